"""Whole transitions: the current snapshot, the decision, and one durable append with chain and guard triggers.

Everybody records streams of ten events: a login, four refreshes in two events each, and a logout. An agent looks at
the lease before each command, so the ledger's figure is that of ``snapshot`` and the command together. The raw
contender inserts the very rows that the ledger wrote, one commit each, into a table with the same columns and primary
key but without triggers. The stock contender keeps the same facts with the storage library's ``Aggregate`` and
``Application``, their defaults untouched; its connection alone is patched for ``synchronous=NORMAL``, for which it has
no setting. It does the job once with the same look before each command, and once without it.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import NAMESPACE_URL, UUID, uuid5

from eventsourcing.application import AggregateNotFoundError, Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.sqlite import SQLiteConnectionPool
from msgspec import to_builtins

from bench_parts.measuring import Ratio, compare, seconds_of, speed_ratio
from ledger.holder import this_process
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger

__all__ = ["STREAM", "record_streams", "transition_ratios"]

STREAM = 10
"""Events in a stream."""

REFRESHES = 4

ACTOR = "agent-7@build-host pid 4242"

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
    with LeaseLedger.open(f"sqlite:///{path}?synchronous={synchronous}", actor=ACTOR) as ledger:
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
    """The same lease, with the same facts in its events, as the storage library's users would write it."""

    @staticmethod
    def create_id(key: str) -> UUID:
        return uuid5(NAMESPACE_URL, key)

    @event("Acquired")
    def __init__(self, key: str, expires_at: int, published_at: int, event_id: str, actor: str) -> None:
        self.key = key
        self.phase = "valid"
        self.expires_at = expires_at
        self.generation = 1
        self.published_at = published_at
        self.published_by = event_id
        self.attempt: str | None = None

    @event("RefreshStarted")
    def begin_refresh(self, event_id: str, actor: str, duration_ms: int, holder: dict[str, Any]) -> None:
        self._require(self.phase in ("valid", "expiring"))
        self.phase = "refreshing"
        self.attempt = event_id
        self.duration_ms = duration_ms
        self.holder = holder

    @event("Refreshed")
    def complete_refresh(
        self, attempt: str, expires_at: int, published_at: int, refreshed_at: int, event_id: str, actor: str
    ) -> None:
        self._require(self.phase == "refreshing" and attempt == self.attempt)
        self.phase = "valid"
        self.expires_at = expires_at
        self.generation += 1
        self.published_at = max(published_at, self.published_at + 1)
        self.published_by = event_id
        self.attempt = None

    @event("Released")
    def release(self, event_id: str, actor: str) -> None:
        self.phase = "released"

    def _require(self, allowed: bool) -> None:
        if not allowed:
            raise ValueError(f"the lease is {self.phase}")


class StockLeases(Application[UUID]):
    """The storage library's application, as it comes."""

    def look(self, key: str) -> tuple[str, int, int] | None:
        try:
            lease: StockLease = self.repository.get(StockLease.create_id(key))
        except AggregateNotFoundError:
            return None
        return lease.phase, lease.expires_at, lease.generation

    def acquire(self, key: str) -> None:
        self.save(StockLease(key, 1_800_000_000, _now_ms(), _event_id(), ACTOR))

    def begin_refresh(self, key: str) -> str:
        lease: StockLease = self.repository.get(StockLease.create_id(key))
        attempt = _event_id()
        lease.begin_refresh(attempt, ACTOR, 60_000, to_builtins(this_process("0123456789abcdef")))
        self.save(lease)
        return attempt

    def complete_refresh(self, key: str, attempt: str) -> None:
        lease: StockLease = self.repository.get(StockLease.create_id(key))
        lease.complete_refresh(attempt, 1_800_000_600, _now_ms(), 1_800_000_000, _event_id(), ACTOR)
        self.save(lease)

    def release(self, key: str) -> None:
        lease: StockLease = self.repository.get(StockLease.create_id(key))
        lease.release(_event_id(), ACTOR)
        self.save(lease)


def _event_id() -> str:
    return os.urandom(16).hex()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _record_stock_streams(leases: StockLeases, streams: int, look: Callable[[str], object]) -> None:
    for number in range(streams):
        key = f"dev:lease-{number}"
        look(key)
        leases.acquire(key)
        for _ in range(REFRESHES):
            look(key)
            attempt = leases.begin_refresh(key)
            look(key)
            leases.complete_refresh(key, attempt)
        look(key)
        leases.release(key)


@contextmanager
def _stock_connections_at(synchronous: str) -> Iterator[None]:
    original = SQLiteConnectionPool._create_connection

    def create(pool: SQLiteConnectionPool) -> Any:
        connection = original(pool)
        connection.cursor().execute(f"PRAGMA synchronous = {synchronous}")
        return connection

    with patch.object(SQLiteConnectionPool, "_create_connection", create):
        yield


def _stock_round(path: Path, synchronous: str, streams: int, *, looking: bool) -> float:
    environment = {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(path)}
    with _stock_connections_at(synchronous), StockLeases(env=environment) as leases:
        look = leases.look if looking else len
        return seconds_of(lambda: _record_stock_streams(leases, streams, look)) / (streams * STREAM)


def transition_ratios(folder: Path, streams: dict[str, int], rounds: int) -> Iterator[Ratio]:
    """Compare whole transitions at both settings of ``synchronous``; ``streams`` to record a round, by setting."""
    for synchronous in ("full", "normal"):
        taken = _compared(folder, synchronous, streams[synchronous], rounds)
        ours, label = taken["ledger"], f"transition, {synchronous.upper()}"
        yield speed_ratio(label, ours, "one raw INSERT per commit", taken["raw"], TARGETS[synchronous])
        patched = ", patched" if synchronous == "normal" else ""
        target = STOCK_TARGET_AT_NORMAL if synchronous == "normal" else None
        yield speed_ratio(label, ours, f"stock Application{patched}", taken["stock"], target)
        yield speed_ratio(label, ours, f"stock Application{patched}, no look before", taken["stock-blind"], None)


def _compared(folder: Path, synchronous: str, streams: int, rounds: int) -> dict[str, list[float]]:
    rows = _rows_like_the_ledgers(folder / f"rows-{synchronous}.db", streams)
    # The stock library is slow enough that a fifth of the streams takes about as long.
    fewer = max(streams // 5, 1)

    def file(contender: str, number: int) -> Path:
        return folder / f"transition-{synchronous}-{contender}-{number}.db"

    contenders = {
        "ledger": lambda number: _ledger_round(file("ledger", number), synchronous, streams),
        "raw": lambda number: _raw_round(file("raw", number), synchronous, rows),
        "stock": lambda number: _stock_round(file("stock", number), synchronous, fewer, looking=True),
        "stock-blind": lambda number: _stock_round(file("blind", number), synchronous, fewer, looking=False),
    }
    return compare(contenders, rounds)
