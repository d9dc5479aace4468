"""Writes the rows of a read model: a catch-up into the tables in use, a rebuild into tables beside them."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
from sqlite_utils import Database

from ledger.chain import event_digest
from ledger.errors import CorruptHistory, UnknownEventTag
from ledger.recorders.base import LogRow
from ledger.state import LeaseState
from projections.audit_checkpoint import AuditCheckpoint
from projections.audit_rows import LEASE_COLUMNS, ROW_COLUMNS, RowKind
from projections.log_fold import KEPT_LEASES, LogFold

__all__ = ["BATCH", "PAGE", "ReadModel", "UnusableRows"]

PAGE: Final = 2_000
"""Events read from the ledger at once: what is held in memory."""

BATCH: Final = 50_000
"""Events written in one transaction, each lease of theirs but once: the most that a kill undoes."""

_decode_state = msgspec.json.Decoder(LeaseState).decode


class UnusableRows(Exception):
    """What the tables hold is nothing that a fold could go on from."""


class ReadModel:
    """An events table and a leases table, and the fold that fills them.

    Rows go in as plain tuples: as dictionaries, by sqlite-utils' own insert, they take several times as long.

    Args:
        db: The open audit file.
        events: Name of the events table.
        leases: Name of the leases table.
        start: The checkpoint the tables are at.
    """

    def __init__(self, db: Database, events: str, leases: str, start: AuditCheckpoint) -> None:
        self._connection = db.conn
        self._find = f"SELECT state, running_at_ms FROM {leases} WHERE key = ?"  # noqa: S608  # our own table names only
        self._insert_event = {kind: _insert("INSERT", events, columns) for kind, columns in ROW_COLUMNS.items()}
        self._replace_lease = _insert("INSERT OR REPLACE", leases, LEASE_COLUMNS)
        self._is_empty = start.position == 0
        self._fold = LogFold(start.ledger_id, start.position, start.digest, start.last_digest, self._stored_state)

    def go_on_in(self, db: Database) -> None:
        """Write by another connection to the same file."""
        self._connection = db.conn

    @property
    def checkpoint(self) -> AuditCheckpoint:
        """How far the tables have come."""
        fold = self._fold
        return AuditCheckpoint(fold.ledger_id, fold.position, fold.rolling, fold.last_digest)

    def take_in(self, page: Sequence[LogRow]) -> CorruptHistory | UnknownEventTag | None:
        """Write the events of a page, up to the first that cannot be folded, whose error is returned.

        Call :meth:`settle` before anybody reads the tables.
        """
        error: CorruptHistory | UnknownEventTag | None = None
        execute, statements = self._connection.cursor().execute, self._insert_event
        try:
            for kind, row in self._fold.event_rows(page):
                execute(statements[kind], row)
        except (CorruptHistory, UnknownEventTag) as stopped:
            error = stopped
        if self._fold.unwritten > KEPT_LEASES:
            self.settle()
        return error

    def recompute(self, page: Sequence[LogRow]) -> Iterator[tuple[LogRow, RowKind | None, tuple[Any, ...]]]:
        """Each event of a page with its row, which is written nowhere; without one where it cannot be folded."""
        done, fold = 0, self._fold
        while done < len(page):
            try:
                for kind, row in fold.event_rows(page[done:]):
                    yield page[done], kind, row
                    done += 1
            except (CorruptHistory, UnknownEventTag):
                passed_over = page[done]
                fold.pass_over(passed_over, event_digest(fold.ledger_id, *passed_over[1:]))
                yield passed_over, None, ()
                done += 1
        if fold.unwritten > KEPT_LEASES:
            self.settle()

    def settle(self) -> None:
        """Write the leases that the events taken in have changed, each but once."""
        self._connection.executemany(self._replace_lease, self._fold.lease_rows())
        self._is_empty = False

    def _stored_state(self, stream: str) -> tuple[LeaseState, int] | None:
        if self._is_empty:
            return None
        found = self._connection.execute(self._find, (stream,)).fetchone()
        if found is None:
            return None
        try:
            return _decode_state(found[0]), int(found[1])
        except (msgspec.MsgspecError, TypeError, ValueError) as error:
            raise UnusableRows from error


def _insert(verb: str, table: str, columns: Sequence[str]) -> str:
    places = ", ".join("?" * len(columns))
    return f"{verb} INTO {table} ({', '.join(columns)}) VALUES ({places})"
