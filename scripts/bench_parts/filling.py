"""Filling an audit file: catch-up and rebuild, against raw ``executemany`` of the same rows into the same tables.

Raw writes what is read off a finished audit file, with the same pragmas, transactions of the same size, and indexes
made at the same point; only writing is timed. It neither reads a ledger nor checks, folds or digests anything.
"""

import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from bench_parts.measuring import Figure, Ratio, compare, seconds_of, speed_ratio
from ledger import LeaseLedger
from projections import AuditLog
from projections.audit_schema import EVENTS, LEASES, create_indexes, create_read_model
from projections.read_model import BATCH

__all__ = ["catch_up_ratio", "rebuild_memory", "rebuild_ratio", "settled_bytes"]

TARGET = 0.6
MEMORY_TARGET_MB = 200

REBUILD = """
import sys
from ledger import LeaseLedger
from projections import AuditLog
with LeaseLedger.open(sys.argv[1]) as ledger, AuditLog.open(ledger, sys.argv[2]) as audit:
    audit.rebuild()
with open("/proc/self/status") as status:
    print(next(line.split()[1] for line in status if line.startswith("VmHWM")))
"""

Rows = Iterator[list[Sequence[Any]]]


def _columns(connection: sqlite3.Connection, table: str) -> str:
    """The columns that are stored; the others are computed when they are read."""
    found = connection.execute(f"PRAGMA table_xinfo({table})").fetchall()
    return ", ".join(name for _, name, _, _, _, _, hidden in found if not hidden)


def _batches(source: sqlite3.Connection, table: str, columns: str, after: int = 0) -> Rows:
    found = source.execute(f"SELECT {columns} FROM {table} WHERE position > ? ORDER BY position", (after,))
    while rows := list(islice(found, BATCH)):
        yield rows


def _write(target: sqlite3.Connection, table: str, columns: str, batches: Rows) -> float:
    places = ", ".join("?" * len(columns.split(",")))
    statement = f"INSERT OR REPLACE INTO {table} ({columns}) VALUES ({places})"

    took_s = 0.0
    for rows in batches:
        start = time.perf_counter()
        target.execute("BEGIN IMMEDIATE")
        target.executemany(statement, rows)
        target.execute("COMMIT")
        took_s += time.perf_counter() - start
    return took_s


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def _raw_rows(finished: Path, path: Path, after: int) -> float:
    """Write the events after a position, and the leases they belong to."""
    with closing(sqlite3.connect(finished)) as source, closing(_connected(path)) as target:
        events, leases = _columns(source, EVENTS), _columns(source, LEASES)
        took_s = _write(target, EVENTS, events, _batches(source, EVENTS, events, after))
        return took_s + _write(target, LEASES, leases, _batches(source, LEASES, leases, after))


def _raw_rebuild(finished: Path, path: Path) -> float:
    with closing(_connected(path)) as target:
        create_read_model(Database(target, recursive_triggers=False), EVENTS, LEASES)
    took_s = _raw_rows(finished, path, 0)

    def index() -> None:
        target.execute("BEGIN IMMEDIATE")
        create_indexes(Database(target, recursive_triggers=False))
        target.execute("COMMIT")

    with closing(_connected(path)) as target:
        return took_s + seconds_of(index)


def _remove(path: Path) -> None:
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


def rebuild_ratio(ledger: LeaseLedger, finished: Path, events: int, rounds: int) -> Ratio:
    """Rebuild a caught-up audit file, again and again; ``finished`` is such a file."""
    rebuilt, raw = finished.with_name("rebuilt.db"), finished.with_name("rebuilt-raw.db")
    shutil.copy(finished, rebuilt)
    with AuditLog.open(ledger, rebuilt) as audit:

        def by_us(_: int) -> float:
            return seconds_of(audit.rebuild) / events

        def by_raw(_: int) -> float:
            _remove(raw)
            return _raw_rebuild(finished, raw) / events

        audit.catch_up()
        taken = compare({"ledger": by_us, "raw": by_raw}, rounds)
    _remove(rebuilt)
    _remove(raw)
    return speed_ratio(f"rebuild of {events:,} events", taken["ledger"], "raw executemany", taken["raw"], TARGET)


def catch_up_ratio(ledger: LeaseLedger, partly: Path, finished: Path, after: int, events: int, rounds: int) -> Ratio:
    """Catch up from a position: ``partly`` is an audit file that stands there, ``finished`` one at the end."""
    caught_up = finished.with_name("caught-up.db")

    def by_us(_: int) -> float:
        shutil.copy(partly, caught_up)
        with AuditLog.open(ledger, caught_up) as audit:
            took_s = seconds_of(audit.catch_up)
        _remove(caught_up)
        return took_s / events

    def by_raw(_: int) -> float:
        shutil.copy(partly, caught_up)
        took_s = _raw_rows(finished, caught_up, after)
        _remove(caught_up)
        return took_s / events

    taken = compare({"ledger": by_us, "raw": by_raw}, rounds)
    label = f"catch-up of {events:,} events onto {after:,}"
    return speed_ratio(label, taken["ledger"], "raw executemany", taken["raw"], TARGET)


def rebuild_memory(url: str, finished: Path, events: int) -> Iterator[Figure]:
    """The most memory that a process of its own takes for a rebuild; nothing where the system does not tell."""
    if not Path("/proc/self/status").exists():
        return
    rebuilt = finished.with_name("rebuilt.db")
    shutil.copy(finished, rebuilt)
    command = [sys.executable, "-c", REBUILD, url, str(rebuilt)]
    peak_kib = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    _remove(rebuilt)
    yield Figure(f"rebuild of {events:,} events, peak memory", peak_kib * 1024 / 1e6, "MB", MEMORY_TARGET_MB)


def settled_bytes(path: Path) -> int:
    """A file's size once its write-ahead log is folded in."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            time.sleep(0.01)
    return path.stat().st_size
