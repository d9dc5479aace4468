"""Writes made-up lives into a ledger file: every event decided, folded, encoded and chained as the ledger does it.

Only the way to the disk differs: many events go into one transaction. The file's triggers check each of them.
"""

import contextlib
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from generate_parts.lives import Ask, asks
from ledger.chain import event_digest, genesis_digest
from ledger.codec import EventCodec
from ledger.decide import Stamp, decide
from ledger.heads import StreamHeads
from ledger.opening import open_recorder
from ledger.state import evolve

__all__ = ["Generator"]

BATCH: Final = 20_000
"""Events in one transaction."""

_CACHE_KIB: Final = 256 * 1024

_EVENT: Final = "INSERT INTO stored_events (originator_id, originator_version, topic, state) VALUES (?, ?, ?, ?)"
_FOLD: Final = "INSERT INTO stored_folds (stream, version, fold, digest, state) VALUES (?, ?, ?, ?, ?)"


class Generator:
    """Makes a new ledger, and makes it longer as often as asked. Equal seeds make equal ledgers. Used with ``with``.

    Args:
        path: The file to make.
        leases: How many leases there are. The first events are their logins, one for nearly each.
        seed: What everything is drawn from.

    Attributes:
        path: The file.
        written: Events in it.

    Raises:
        FileExistsError: There is such a file.
    """

    def __init__(self, path: Path, leases: int, seed: int = 1) -> None:
        if path.exists():
            raise FileExistsError(f"{path} exists already; name a new file")
        self.path = path
        self.written = 0
        self._chance = random.Random(seed)
        self._ledger_id = f"{self._chance.getrandbits(128):032x}"
        self._recorder = open_recorder(f"sqlite:///{path}?synchronous=normal", self._ledger_id)
        self._codec = EventCodec()
        self._heads = StreamHeads(self._recorder, self._codec)
        self._asks = asks(self._chance, leases)
        self._digests: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._recorder.close()

    def write(self, events: int, progress: Callable[[int], object] | None = None) -> None:
        """Add so many events; ``progress`` is told how many each transaction held."""
        with contextlib.closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            for start in range(0, events, BATCH):
                size = min(BATCH, events - start)
                self._write_batch(connection, size)
                if progress is not None:
                    progress(size)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _write_batch(self, connection: sqlite3.Connection, size: int) -> None:
        rows, folds = [], []
        for _ in range(size):
            row, fold = self._recorded(next(self._asks))
            rows.append(row)
            if fold is not None:
                folds.append(fold)
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(_EVENT, rows)
        connection.executemany(_FOLD, folds)
        connection.execute("COMMIT")
        self.written += size

    def _recorded(self, ask: Ask) -> tuple[tuple[Any, ...], tuple[Any, ...] | None]:
        life, stream = ask.life, ask.life.stream
        stamp: Stamp = {
            "id": f"{self._chance.getrandbits(128):032x}",
            "at": ask.at_ms,
            "actor": ask.actor,
            "prev": self._digests.get(stream) or genesis_digest(self._ledger_id, stream),
            "cause": ask.cause,
            "correlation_id": ask.correlation_id,
        }
        event = decide(life.key, life.state, ask.command, stamp)
        state = life.state = evolve(life.state, event, stream)
        body = self._codec.encode(event)
        digest = self._digests[stream] = event_digest(self._ledger_id, stream, state.version, event.tag, body)
        fold = self._heads.fold_due(state, digest)
        row = (stream, state.version, event.tag, body.decode())
        return row, None if fold is None else (stream, fold.version, fold.fold, fold.digest, fold.state.decode())
