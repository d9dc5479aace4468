"""An audit file's rows made anew from the ledger's events, to be held against those that it has.

In bounded memory: the leases go to a temporary database that only this process sees, and nothing else is kept.
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, Final, NamedTuple

from sqlite_utils import Database

from ledger.chain import event_digest
from ledger.errors import CorruptHistory
from ledger.recorders.base import LeaseRecorder, LogRow
from ledger.salvage import Gap, rows_and_gaps
from projections.audit_checkpoint import first_checkpoint
from projections.audit_rows import EVENT_COLUMNS, LEASE_COLUMNS, ROW_COLUMNS, RowKind
from projections.audit_schema import EVENTS, LEASES, create_read_model
from projections.read_model import PAGE, ReadModel

__all__ = ["EVENT_TABLE_COLUMNS", "EventRow", "lease_rows", "recomputation", "same_row", "whatever_text"]

Row = tuple[Any, ...]

_DIGEST: Final = EVENT_COLUMNS.index("digest")

EVENT_TABLE_COLUMNS: Final = tuple(dict.fromkeys(column for columns in ROW_COLUMNS.values() for column in columns))
"""Every column of the events table that is stored."""


def _places(columns: Sequence[str]) -> "itemgetter[Any]":
    # A kind of row leaves out the columns that it does not fill: those are found in the null put behind its values.
    return itemgetter(*(columns.index(name) if name in columns else len(columns) for name in EVENT_TABLE_COLUMNS))


_WHOLE: Final[Mapping[RowKind, "itemgetter[Any]"]] = {kind: _places(columns) for kind, columns in ROW_COLUMNS.items()}


class EventRow(NamedTuple):
    """One event of the ledger.

    Attributes:
        position: Its place in the log.
        key: Its lease.
        version: Its place in the stream.
        digest: Its digest; empty for what is no event.
        row: The row an audit file has of it; ``None`` where that cannot be known.
    """

    position: int
    key: str
    version: int
    digest: str
    row: Row | None


class _Recomputation:
    """One pass over the ledger.

    Args:
        recorder: The ledger's log.
        db: Where the leases are gathered.
        upto: The last position that the audit file has taken in.
    """

    def __init__(self, recorder: LeaseRecorder, db: Database, upto: int) -> None:
        self._recorder = recorder
        self._upto = upto
        self._model = ReadModel(db, EVENTS, LEASES, first_checkpoint(recorder.ledger_id))
        self.db = db

    @property
    def rolling(self) -> str:
        """Rolling digest of the events gone by, up to the last that the audit file has taken in."""
        return self._model.checkpoint.digest

    def events(self) -> Iterator[EventRow]:
        """Every event of the ledger, in order; those that the audit file has not taken in without a row."""
        for found in _pages(self._recorder):
            if isinstance(found, Gap):
                # What cannot be read is told by whoever checks the ledger itself.
                if isinstance(found.error, CorruptHistory):
                    yield EventRow(found.first, found.error.stream, found.error.version, "", None)
                continue
            known = sum(1 for row in found if row.position <= self._upto)
            for row, kind, values in self._model.recompute(found[:known]):
                whole = None if kind is None else _WHOLE[kind]((*values, None))
                yield EventRow(row.position, row.stream, row.version, self._digest(row, values), whole)
            for row in found[known:]:
                yield EventRow(row.position, row.stream, row.version, self._digest(row, ()), None)

    def _digest(self, row: LogRow, values: Row) -> str:
        return str(values[_DIGEST]) if values else event_digest(self._recorder.ledger_id, *row[1:])

    def settle(self) -> None:
        """Have the rows of the leases ready to be read."""
        self._model.settle()


@contextlib.contextmanager
def recomputation(recorder: LeaseRecorder, upto: int) -> Iterator[_Recomputation]:
    """Make an audit file's rows anew, up to a position."""
    with contextlib.closing(sqlite3.connect("", isolation_level=None)) as connection:
        db = Database(connection, execute_plugins=False)
        create_read_model(db, EVENTS, LEASES)
        db.execute("PRAGMA synchronous = OFF")
        db.execute("BEGIN")
        yield _Recomputation(recorder, db, upto)


def lease_rows(db: Database) -> Iterator[Row]:
    """The rows of the leases, sorted by key."""
    # Not "yield from", which would close the cursor of a connection that an interrupt may have closed before.
    for row in db.execute(f"SELECT {', '.join(LEASE_COLUMNS)} FROM {LEASES} ORDER BY key"):  # noqa: S608, UP028
        yield row


@contextlib.contextmanager
def whatever_text(connection: sqlite3.Connection) -> Iterator[None]:
    """Read texts that are no texts too, each such byte spelled out."""
    connection.text_factory = partial(str, encoding="utf-8", errors="backslashreplace")
    try:
        yield
    finally:
        connection.text_factory = str


def _pages(recorder: LeaseRecorder) -> Iterator[list[LogRow] | Gap]:
    page: list[LogRow] = []
    for found in rows_and_gaps(recorder):
        if isinstance(found, LogRow):
            page.append(found)
        if page and (len(page) == PAGE or isinstance(found, Gap)):
            yield page
            page = []
        if isinstance(found, Gap):
            yield found
    if page:
        yield page


def same_row(one: Row, other: Row) -> bool:
    """Whether two rows hold the same values, of the same types."""
    return one == other and [*map(type, one)] == [*map(type, other)]
