"""Snapshots: the first of a new process, for leases of every length, and the repeated one of a running process."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

from bench_parts.measuring import Ratio, compare, seconds_of, time_ratio
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger

__all__ = ["snapshot_ratios"]

FIRST_TARGET = 3.0
REPEATED_TARGET = 3.0

FIRST_SNAPSHOT = """
import json, sys, time
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
with LeaseLedger.open(sys.argv[1]) as ledger:
    key = LeaseKey.parse(sys.argv[2])
    start = time.perf_counter()
    snapshot = ledger.snapshot(key)
    print(json.dumps([time.perf_counter() - start, snapshot.version]))
"""

RIVAL = """
import sys
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
with LeaseLedger.open(sys.argv[1]) as ledger:
    ledger.acquire_lease(LeaseKey.parse(sys.argv[2]), 500)
"""


def _run(script: str, url: str, key: LeaseKey) -> str:
    command = [sys.executable, "-c", script, url, str(key)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _first_snapshot(url: str, key: LeaseKey, length: int, _round: int) -> float:
    seconds, version = json.loads(_run(FIRST_SNAPSHOT, url, key))
    assert version == length, f"the snapshot of {key} is of version {version}, not {length}"
    return float(seconds)


def _record(ledger: LeaseLedger, key: LeaseKey, length: int) -> None:
    ledger.acquire_lease(key, 1_800_000_000)
    for number in range(length - 1):
        if number % 2:
            ledger.complete_refresh(key, 1_800_000_600, 1_800_000_000)
        else:
            ledger.begin_refresh(key)


def _repeated(ledger: LeaseLedger, key: LeaseKey, times: int) -> float:
    def ask() -> None:
        for _ in range(times):
            ledger.snapshot(key)

    return seconds_of(ask) / times


def _pragma(connection: sqlite3.Connection, times: int) -> float:
    def ask() -> None:
        for _ in range(times):
            connection.execute("PRAGMA data_version").fetchone()

    return seconds_of(ask) / times


def _check_that_others_are_seen(ledger: LeaseLedger, url: str, key: LeaseKey) -> None:
    before = ledger.snapshot(key).version
    _run(RIVAL, url, key)
    assert before is not None
    assert ledger.snapshot(key).version == before + 1, "the other process's event was not seen"


def snapshot_ratios(folder: Path, lengths: list[int], rounds: int, repeats: int) -> Iterator[Ratio]:
    """Compare snapshots of leases of these lengths with that of the shortest, and a repeated one with one PRAGMA."""
    url = f"sqlite:///{folder}/snapshots.db?synchronous=normal"
    keys = {length: LeaseKey("dev", f"lease-of-{length}") for length in lengths}
    with LeaseLedger.open(url, actor="agent-7@build-host pid 4242") as ledger:
        for length, key in keys.items():
            _record(ledger, key, length)
        first = compare(
            {str(length): partial(_first_snapshot, url, key, length) for length, key in keys.items()}, rounds
        )
        shortest = lengths[0]
        for length in lengths[1:]:
            label = f"first snapshot in a new process, {length:,} events"
            target = FIRST_TARGET if length == lengths[-1] else None
            yield time_ratio(label, first[str(length)], f"{shortest} events", first[str(shortest)], target)
        yield _repeated_ratio(ledger, folder, keys[lengths[-1]], rounds, repeats)
        _check_that_others_are_seen(ledger, url, keys[shortest])


def _repeated_ratio(ledger: LeaseLedger, folder: Path, key: LeaseKey, rounds: int, repeats: int) -> Ratio:
    ledger.snapshot(key)
    with closing(sqlite3.connect(folder / "snapshots.db", isolation_level=None)) as raw:
        taken = compare(
            {"ledger": lambda _: _repeated(ledger, key, repeats), "raw": lambda _: _pragma(raw, repeats)}, rounds
        )
    return time_ratio("repeated snapshot", taken["ledger"], "one PRAGMA data_version", taken["raw"], REPEATED_TARGET)
