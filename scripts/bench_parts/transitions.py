"""Whole transitions: the current snapshot, the decision, and one durable append with chain and guard triggers.

Everybody records streams of ten events: a login, four refreshes in two events each, and a logout. The raw contender
inserts the very rows that the ledger wrote, one commit each, into a table with the same columns and primary key but
without triggers. The stock contender does the same job with the storage library's ``Aggregate`` and ``Application``,
their defaults untouched; its connection alone is patched for ``synchronous=NORMAL``, for which it has no setting.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.sqlite import SQLiteConnectionPool

from bench_parts.measuring import Ratio, compare, seconds_of, speed_ratio
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger

__all__ = ["STREAM", "record_streams", "transition_ratios"]

STREAM = 10
"""Events in a stream."""

REFRESHES = 4

TARGETS = {"full": 0.80, "normal": 0.45}
STOCK_TARGET_AT_NORMAL = 8.0

TABLE = (
    "CREATE TABLE stored_events (originator_id TEXT, originator_version INTEGER, topic TEXT, state BLOB, "
    "PRIMARY KEY (originator_id, originator_version))"
)
Row = tuple[str, int, str, str]


def record_streams(ledger: LeaseLedger, streams: int, prefix: str = "lease") -> None:
    """Record streams of ten events, looking at the lease before each of them as an agent does."""
    for number in range(streams):
        key = LeaseKey("dev", f"{prefix}-{number}")
        ledger.snapshot(key)
        ledger.acquire_lease(key, 1_800_000_000)
        for refresh in range(REFRESHES):
            ledger.snapshot(key)
            attempt = ledger.begin_refresh(key)
            ledger.snapshot(key)
            ledger.complete_refresh(key, 1_800_000_600 + refresh, 1_800_000_000, attempt)
        ledger.snapshot(key)
        ledger.release_lease(key)


def _ledger_round(path: Path, synchronous: str, streams: int) -> float:
    with LeaseLedger.open(f"sqlite:///{path}?synchronous={synchronous}", actor="agent-7@build-host pid 4242") as ledger:
        return seconds_of(lambda: record_streams(ledger, streams)) / (streams * STREAM)


def _rows_like_the_ledgers(path: Path, streams: int) -> list[Row]:
    _ledger_round(path, "normal", streams)
    query = "SELECT originator_id, originator_version, topic, state FROM stored_events ORDER BY rowid"
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def _raw_round(path: Path, synchronous: str, rows: list[Row]) -> float:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute(TABLE)

        def insert_all() -> None:
            for row in rows:
                connection.execute("INSERT INTO stored_events VALUES (?, ?, ?, ?)", row)

        return seconds_of(insert_all) / len(rows)


class StockLease(Aggregate):
    """The same lease as the storage library's users would write it."""

    @event("Acquired")
    def __init__(self, key: str, expires_at: int) -> None:
        self.key = key
        self.expires_at = expires_at
        self.generation = 1
        self.phase = "valid"

    @event("RefreshStarted")
    def begin_refresh(self, holder: str) -> None:
        self.phase = "refreshing"
        self.holder = holder

    @event("Refreshed")
    def complete_refresh(self, expires_at: int, refreshed_at: int) -> None:
        self.phase = "valid"
        self.expires_at = expires_at
        self.generation += 1

    @event("Released")
    def release(self) -> None:
        self.phase = "released"


class StockLeases(Application[UUID]):
    """The storage library's application, as it comes."""

    def acquire(self, key: str, expires_at: int) -> UUID:
        lease = StockLease(key, expires_at)
        self.save(lease)
        return lease.id

    def change(self, lease_id: UUID, change: Callable[[StockLease], None]) -> None:
        lease: StockLease = self.repository.get(lease_id)
        change(lease)
        self.save(lease)


def _record_stock_streams(leases: StockLeases, streams: int) -> None:
    for number in range(streams):
        lease_id = leases.acquire(f"dev:lease-{number}", 1_800_000_000)
        for _ in range(REFRESHES):
            leases.change(lease_id, lambda lease: lease.begin_refresh("agent-7@build-host pid 4242"))
            leases.change(lease_id, lambda lease: lease.complete_refresh(1_800_000_600, 1_800_000_000))
        leases.change(lease_id, StockLease.release)


@contextmanager
def _stock_connections_at(synchronous: str) -> Iterator[None]:
    original = SQLiteConnectionPool._create_connection

    def create(pool: SQLiteConnectionPool) -> Any:
        connection = original(pool)
        connection.cursor().execute(f"PRAGMA synchronous = {synchronous}")
        return connection

    with patch.object(SQLiteConnectionPool, "_create_connection", create):
        yield


def _stock_round(path: Path, synchronous: str, streams: int) -> float:
    environment = {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(path)}
    with _stock_connections_at(synchronous), StockLeases(env=environment) as leases:
        return seconds_of(lambda: _record_stock_streams(leases, streams)) / (streams * STREAM)


def transition_ratios(folder: Path, streams: dict[str, int], rounds: int) -> Iterator[Ratio]:
    """Compare whole transitions at both settings of ``synchronous``; ``streams`` to record a round, by setting."""
    for synchronous in ("full", "normal"):
        taken = _compared(folder, synchronous, streams[synchronous], rounds)
        label = f"transition, synchronous={synchronous.upper()}"
        yield speed_ratio(label, taken["ledger"], "one raw INSERT per commit", taken["raw"], TARGETS[synchronous])
        patched = " (connection patched)" if synchronous == "normal" else ""
        target = STOCK_TARGET_AT_NORMAL if synchronous == "normal" else None
        yield speed_ratio(label, taken["ledger"], f"stock Application{patched}", taken["stock"], target)


def _compared(folder: Path, synchronous: str, streams: int, rounds: int) -> dict[str, list[float]]:
    rows = _rows_like_the_ledgers(folder / f"rows-{synchronous}.db", streams)
    # The stock library is slow enough that a fifth of the streams takes about as long.
    fewer = max(streams // 5, 1)

    def file(contender: str, number: int) -> Path:
        return folder / f"transition-{synchronous}-{contender}-{number}.db"

    contenders = {
        "ledger": lambda number: _ledger_round(file("ledger", number), synchronous, streams),
        "raw": lambda number: _raw_round(file("raw", number), synchronous, rows),
        "stock": lambda number: _stock_round(file("stock", number), synchronous, fewer),
    }
    return compare(contenders, rounds)
