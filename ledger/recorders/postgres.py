"""The log in PostgreSQL, for many machines: the storage library's recorder, made append-only and gap-free."""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from eventsourcing.persistence import IntegrityError, Notification, StoredEvent
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore
from psycopg.rows import tuple_row

from ledger.errors import LedgerStorageError
from ledger.recorders.base import (
    LARGEST_STORED,
    LOOK_EVERY_S,
    Defect,
    LeaseRecorder,
    LogRow,
    NewEvent,
    StoredFold,
    StreamRow,
)
from ledger.recorders.postgres_address import PostgresAddress
from ledger.recorders.postgres_connections import LedgerConnection, PostgresConnections
from ledger.recorders.postgres_defects import schema_defects
from ledger.recorders.postgres_guard import AdvisoryGuardLock, GuardSession
from ledger.recorders.postgres_identity import identity, no_ledger
from ledger.recorders.postgres_indexes import index_defects
from ledger.recorders.postgres_schema import create_tables, writer_lock
from ledger.recorders.postgres_statements import fold_of, insert_values, is_stored, statements, stored_bytes
from ledger.recorders.postgres_watch import ChangeWatch
from ledger.recorders.stored_rows import log_rows, stream_rows
from ledger.recorders.user_state import user_state_folder

__all__ = ["PostgresLeaseRecorder"]

LISTENING_LOOK_EVERY_S: Final = 0.25
"""How often a waiter looks for himself while notifications arrive."""


class _Inserted(NamedTuple):
    """An event as the database says it stored it; ``alone``: no trigger but ours acts on the table."""

    position: int
    event: NewEvent
    alone: bool


class _Datastore(PostgresDatastore):
    """The library's datastore, lending this ledger's connections instead of those of a pool with threads."""

    def __init__(self, connections: PostgresConnections) -> None:
        super().__init__("", "", "", "", "", schema=connections.address.schema, originator_id_type="text")
        self._connections = connections

    def register_type_adapters(self) -> None:
        """Nothing to register: events are inserted as plain columns."""

    @contextlib.contextmanager
    def get_connection(self) -> Iterator[LedgerConnection]:
        with self._connections.borrow() as connection:
            yield connection


class PostgresLeaseRecorder(PostgresApplicationRecorder, LeaseRecorder):
    """The log in one schema of a PostgreSQL database. Safe to share between threads; survives a fork.

    Every append is one statement and one transaction. A trigger takes the log's advisory lock, then checks the
    version and gives the next position, so positions have no gaps and become visible in order: who has read
    position n never sees a smaller one appear. Appends therefore take turns; a turn is a commit long.

    A lost connection is made anew for as long as the URL's ``reconnect`` says. An append whose outcome was lost with
    its connection is repeated: the server refuses a second copy, and the first is recognised by its bytes, so the
    event is stored once and its position returned.

    Args:
        address: The database.
        new_ledger_id: The id a newly created ledger gets.

    Raises:
        NotALedger: The schema holds something else, a ledger that needs a newer version, or none and
            ``create=no`` was asked for.
        LedgerStorageError: The database cannot be reached, refuses, or is reached through a pooler that gives each
            transaction whichever session is free.
    """

    def __init__(self, address: PostgresAddress, *, new_ledger_id: str) -> None:
        self.address = address
        self._connections = PostgresConnections(address)
        self._guards = GuardSession(self._connections)
        self._watch = ChangeWatch(self._connections)
        # The library's tools read a view in which states are bytes, as they expect.
        super().__init__(_Datastore(self._connections), events_table_name="stored_events_as_bytes")
        self.channel_name = address.channel
        self._sql = statements(address.schema)
        with contextlib.ExitStack() as failing:
            failing.callback(self._connections.close)
            self.ledger_id, self._writer_lock = self._connections.patiently(partial(self._open, new_ledger_id))
            failing.pop_all()

    def _open(self, new_ledger_id: str) -> tuple[str, tuple[int, int]]:
        with self._connections.borrow() as connection:
            ledger_id = identity(connection, self.address)
            if ledger_id is None and not self.address.create:
                raise no_ledger(connection, self.address)
        with self._connections.transaction() as connection:
            if ledger_id is None:
                ledger_id = create_tables(connection, self.address, new_ledger_id)
            return ledger_id, writer_lock(connection, self.address)

    def __repr__(self) -> str:
        return f"<PostgresLeaseRecorder {self.address.shown}>"

    def sidecar(self, name: str) -> Path:
        """A file of this user on this machine, in ``$XDG_STATE_HOME/lease-ledger`` (``%LOCALAPPDATA%`` on Windows).

        The database has no folder of its own. What must be the same on all machines, such as the key of
        fingerprints, is to be given by the environment.
        """
        folder = user_state_folder()
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder / f"{self.ledger_id}.{name}"

    def guard_lock(self, stream: str) -> AdvisoryGuardLock:
        return AdvisoryGuardLock(self._guards, self.ledger_id, stream)

    # Writing

    def append(self, event: NewEvent) -> int:
        self._guards.ensure(event.stream)
        return self._append(lambda connection: [self._insert(connection, event)], [event])[-1]

    def insert_events(self, stored_events: Sequence[StoredEvent], **_: Any) -> Sequence[int] | None:
        """Append the library's events in one transaction; raises as :meth:`append`."""
        events = [NewEvent(str(e.originator_id), e.originator_version, e.topic, e.state) for e in stored_events]

        def insert(connection: LedgerConnection) -> list[_Inserted]:
            connection.execute("BEGIN")
            inserted = [self._insert(connection, event) for event in events]
            connection.execute("COMMIT")
            return inserted

        return self._append(insert, events) if events else []

    def _append(self, insert: Callable[[LedgerConnection], list[_Inserted]], events: Sequence[NewEvent]) -> list[int]:
        tries = itertools.count()

        def attempt() -> list[int]:
            first = next(tries) == 0
            try:
                with self._connections.borrow() as connection:
                    inserted = insert(connection)
            except IntegrityError:
                # A try whose connection was lost may have stored them, or may do so yet while its session lives: the
                # next try then waits for the same lock and is refused.
                stored = None if first else self._stored(events)
                if stored is None:
                    raise
                return stored
            return [self._kept(one) for one in inserted]

        return self._connections.patiently(attempt)

    def _stored(self, events: Sequence[NewEvent]) -> list[int] | None:
        found = [self.rows(event.stream, event.version - 1, event.version) for event in events]
        return [rows[0].position for rows in found] if all(map(is_stored, events, found)) else None

    def append_exclusively(self, stream: str, after: int, build: Callable[[Sequence[StreamRow]], NewEvent]) -> int:
        self._guards.ensure(stream)
        built: list[NewEvent] = []

        def attempt() -> int:
            with self._connections.transaction() as connection:
                connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", self._writer_lock)
                for event in built[-1:]:
                    # The try that lost its connection held this lock to its end, so now its outcome is certain.
                    rows = self._select_rows(connection, (event.stream, event.version - 1, event.version))
                    if is_stored(event, rows):
                        return rows[0].position
                built.append(build(self._select_rows(connection, (stream, after, LARGEST_STORED))))
                inserted = self._insert(connection, built[-1])
            return self._kept(inserted)

        return self._connections.patiently(attempt)

    def _insert(self, connection: LedgerConnection, event: NewEvent) -> _Inserted:
        name, values = insert_values(event)
        with connection.cursor(row_factory=tuple_row) as cursor:
            cursor.execute(self._sql[name], values, prepare=True)
            stored = cursor.fetchall()
        if len(stored) != 1 or stored[0][1] is not True:
            raise self._swallowed(event)
        position, _, alone = stored[0]
        return _Inserted(int(position), event, bool(alone))

    def _kept(self, inserted: _Inserted) -> int:
        """The position, once it is certain that the committed event is there."""
        if not inserted.alone and self._stored([inserted.event]) != [inserted.position]:
            raise self._swallowed(inserted.event)
        return inserted.position

    def _swallowed(self, event: NewEvent) -> LedgerStorageError:
        return LedgerStorageError(
            f"ledger {self.address.shown}: the database did not keep event {event.version} of {event.stream} as it was "
            "given; something acts on its tables that is not the ledger's, and 'lease-ledger verify' names it"
        )

    # Reading

    def _read(self, name: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        def read() -> list[tuple[Any, ...]]:
            with self._connections.borrow() as connection, connection.cursor(row_factory=tuple_row) as cursor:
                return cursor.execute(self._sql[name], values, prepare=True).fetchall()

        return self._connections.patiently(read)

    def _select_rows(self, connection: LedgerConnection, values: tuple[str, int, int]) -> list[StreamRow]:
        with connection.cursor(row_factory=tuple_row) as cursor:
            found = cursor.execute(self._sql["rows"], values, prepare=True).fetchall()
        stream, after, _ = values
        return stream_rows(stream, after, ((*row[:3], stored_bytes(row[3])) for row in found))

    def rows(self, stream: str, after: int = 0, upto: int | None = None) -> Sequence[StreamRow]:
        values = (stream, after, LARGEST_STORED if upto is None else upto)

        def read() -> list[StreamRow]:
            with self._connections.borrow() as connection:
                return self._select_rows(connection, values)

        return self._connections.patiently(read)

    def log(self, after: int, limit: int) -> Sequence[LogRow]:
        found = self._read("log", (after, limit))
        return log_rows(after, [LogRow._make((*row[:4], stored_bytes(row[4]))) for row in found])

    def last_position(self) -> int:
        return int(self._read("last position")[0][0])

    def last_version(self, stream: str) -> int:
        return int(self._read("last version", (stream,))[0][0])

    def streams(self) -> Sequence[str]:
        return [stream for (stream,) in self._read("streams")]

    def streams_after(self, stream: str, limit: int) -> Sequence[str]:
        return [following for (following,) in self._read("streams after", (stream, limit))]

    def change_token(self) -> int:
        return self.last_position()

    def wait_for_change(self, token: int, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            heard = self._watch.heard()
            if self.change_token() != token:
                return
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                return
            look_in_s = LISTENING_LOOK_EVERY_S if self._watch.listening else LOOK_EVERY_S
            self._watch.wait(heard, min(remaining_s, look_in_s))

    def stored_fold(self, stream: str, fold: int, upto: int | None = None) -> StoredFold | None:
        for found in self._read("fold", (stream, LARGEST_STORED if upto is None else upto, fold)):
            return fold_of(*found)
        return None

    def stored_folds(self) -> Iterable[tuple[str, StoredFold]]:
        return [(stream, fold_of(*rest)) for stream, *rest in self._read("folds")]

    def defects(self) -> Sequence[Defect]:
        def look() -> Sequence[str]:
            with self._connections.borrow() as connection:
                defects = schema_defects(connection, self.address, self.ledger_id)
                return defects or index_defects(connection, self.address.schema)

        return [Defect(sentence) for sentence in self._connections.patiently(look)]

    # The library's own reading, with the patience of the rest

    def select_events(self, *args: Any, **kwargs: Any) -> Sequence[StoredEvent]:
        return self._connections.patiently(partial(super().select_events, *args, **kwargs))

    def select_notifications(self, *args: Any, **kwargs: Any) -> Sequence[Notification]:
        return self._connections.patiently(partial(super().select_notifications, *args, **kwargs))

    def max_notification_id(self) -> int | None:
        found: int | None = self._connections.patiently(super().max_notification_id)
        return found

    def close(self) -> None:
        self._connections.close()
        self._watch.close()
        self._guards.close()
