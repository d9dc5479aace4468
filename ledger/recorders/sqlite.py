"""The embedded default: one SQLite file, append-only, in WAL mode, safe for many processes on one machine."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

from eventsourcing.persistence import IntegrityError, Notification, StoredEvent
from eventsourcing.sqlite import SQLiteApplicationRecorder, SQLiteCursor, SQLiteDatastore
from filelock import FileLock, Timeout

from ledger.errors import LedgerStorageError, NotALedger
from ledger.keys import LeaseKey
from ledger.recorders.base import LeaseRecorder, LogRow, NewEvent, StoredFold, StreamRow
from ledger.recorders.busy import until_free
from ledger.recorders.file_identity import FileIdentity
from ledger.recorders.forking import tell_of_forks
from ledger.recorders.locks import FileGuardLock, GuardLock
from ledger.recorders.schema import APPLICATION_ID, FORMAT, SCHEMA, TRIGGERS
from ledger.recorders.sqlite_connections import BUSY_TIMEOUT_S, SQLiteConnections, Synchronous
from ledger.stores.filenames import token_file_name
from ledger.threads import uninterrupted

__all__ = ["SQLiteLeaseRecorder", "Synchronous"]

T = TypeVar("T")

CREATE_TIMEOUT_S: Final = 60

_INSERT = "INSERT INTO stored_events (originator_id, originator_version, topic, state) VALUES (?, ?, ?, ?)"
_INSERT_FOLD = "INSERT OR REPLACE INTO stored_folds (stream, version, fold, digest, state) VALUES (?, ?, ?, ?, ?)"
_IS_STORED = "SELECT 1 FROM stored_events WHERE rowid = ? AND originator_id = ? AND originator_version = ?"
_ROWS = (
    "SELECT rowid, originator_version, topic, CAST(state AS BLOB) FROM stored_events "
    "WHERE originator_id = ? AND originator_version > ? AND originator_version <= ? ORDER BY originator_version"
)
_LOG = (
    "SELECT rowid, originator_id, originator_version, topic, CAST(state AS BLOB) FROM stored_events "
    "WHERE rowid > ? ORDER BY rowid LIMIT ?"
)
_FOLD = (
    "SELECT version, fold, digest, CAST(state AS BLOB) FROM stored_folds "
    "WHERE stream = ? AND version <= ? AND fold = ? ORDER BY version DESC LIMIT 1"
)
_MAX_VERSION: Final = 2**63 - 1

_ADVICE: Final = {
    sqlite3.SQLITE_FULL: "the disk is full; free some space and try again, nothing was recorded",
    sqlite3.SQLITE_READONLY: "the file is read-only for this process; check its permissions, nothing was recorded",
    sqlite3.SQLITE_BUSY: f"other writers held the file for {BUSY_TIMEOUT_S} s; find which; nothing was recorded",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; keep it aside and restore a backup",
    sqlite3.SQLITE_NOTADB: "the file is no SQLite database; point --db at a ledger",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened; check that its folder exists and may be written",
    sqlite3.SQLITE_IOERR: "reading or writing failed; check the disk, nothing is known to be recorded",
}


def _storage_error(path: Path, error: sqlite3.Error) -> LedgerStorageError:
    code = getattr(error, "sqlite_errorcode", None)
    advice = _ADVICE.get(code & 0xFF) if isinstance(code, int) else None
    kind = NotALedger if isinstance(code, int) and code & 0xFF == sqlite3.SQLITE_NOTADB else LedgerStorageError
    return kind(f"ledger {path}: {advice or error}")


def identity(connection: sqlite3.Connection, path: Path) -> str | None:
    """The id of the ledger in a file; ``None`` for a file without tables.

    Raises:
        NotALedger: The file holds something else, or only a newer version may open it.
    """
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if not tables:
        return None
    if "ledger_meta" not in tables:
        raise NotALedger(f"{path} is a SQLite database but holds no lease ledger; point --db at another file")
    ((ledger_id, lowest_reader),) = connection.execute("SELECT ledger_id, lowest_reader FROM ledger_meta")
    if lowest_reader > FORMAT:
        raise NotALedger(
            f"{path} was written in a format that needs reader version {lowest_reader}, "
            f"and this is version {FORMAT}; upgrade lease-ledger"
        )
    return str(ledger_id)


def _in_transaction(writer: sqlite3.Connection, work: Callable[[], T]) -> T:
    until_free(lambda: writer.execute("BEGIN IMMEDIATE"), BUSY_TIMEOUT_S)
    try:
        result = work()
        writer.execute("COMMIT")
    except BaseException:
        if writer.in_transaction:
            writer.execute("ROLLBACK")
        raise
    return result


class SQLiteLeaseRecorder(SQLiteApplicationRecorder, LeaseRecorder):
    """The log in one SQLite file.

    Every append is one transaction. With ``synchronous="full"`` an acknowledged append survives power loss; with
    ``"normal"`` it survives the process, and power loss may take the latest ones.

    No signal handler can tear a write: an event alone is one call into SQLite, and whatever takes several runs in a
    thread that handlers never visit. Readers never wait for a commit.

    Args:
        path: The file; created with its tables when it does not exist or is empty. Several processes may do so at once.
        new_ledger_id: The id a newly created ledger gets.
        synchronous: How durable an acknowledged append is.

    Raises:
        NotALedger: The file holds something else, or only a newer version may open it.
        LedgerStorageError: The file cannot be opened or created.
    """

    def __init__(self, path: Path, *, new_ledger_id: str, synchronous: Synchronous = "full") -> None:
        self.path = path.absolute()
        self._uri = f"file:{quote(str(self.path))}"
        super().__init__(SQLiteDatastore(self._uri, lock_timeout=BUSY_TIMEOUT_S, originator_id_type="text"))
        self.select_events_statement = (
            "SELECT originator_id, originator_version, topic, CAST(state AS BLOB) AS state "
            "FROM stored_events WHERE originator_id=? "
        )
        self._connections = SQLiteConnections(self.path, self._uri, synchronous)
        self.ledger_id = uninterrupted(lambda: self._open(new_ledger_id))
        self._file = FileIdentity(self.path)
        tell_of_forks(self)

    def before_fork(self) -> None:
        """Nothing to wait for: the library's own connections are not used by this recorder."""

    def after_fork_in_parent(self) -> None:
        """Nothing to do."""

    def after_fork_in_child(self) -> None:
        """Close what the library opened in the parent."""
        self.datastore.close()
        self.datastore = SQLiteDatastore(self._uri, lock_timeout=BUSY_TIMEOUT_S, originator_id_type="text")

    def _open(self, new_ledger_id: str) -> str:
        with contextlib.ExitStack() as on_failure, self._storage_errors():
            on_failure.callback(self._connections.close)
            writer = self._connections.writer()
            ledger_id = until_free(lambda: identity(writer, self.path), BUSY_TIMEOUT_S)
            ledger_id = ledger_id or self._create(writer, new_ledger_id)
            self._connections.give_back_writer(writer)
            on_failure.pop_all()
            return ledger_id

    def sidecar(self, name: str) -> Path | None:
        return self.path.with_name(f"{self.path.name}.{name}")

    def guard_lock(self, stream: str) -> GuardLock:
        name = token_file_name(LeaseKey.parse(stream)).removesuffix(".json")
        return FileGuardLock(self.path.with_name(f"{self.path.name}.locks") / f"{name}.lock")

    @contextlib.contextmanager
    def _storage_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _storage_error(self.path, error) from error

    def _create(self, writer: sqlite3.Connection, ledger_id: str) -> str:
        lock = FileLock(
            f"{self.path}.create-lock",
            timeout=CREATE_TIMEOUT_S,
            fallback_to_soft=False,
            preserve_lock_file=True,
        )
        try:
            with lock:
                existing = until_free(lambda: identity(writer, self.path), BUSY_TIMEOUT_S)
                if existing is not None:
                    return existing
                until_free(lambda: writer.execute("PRAGMA journal_mode = WAL"), BUSY_TIMEOUT_S)
                _in_transaction(writer, lambda: self._create_tables(writer, ledger_id))
                return ledger_id
        except Timeout:
            raise LedgerStorageError(
                f"ledger {self.path}: another process has been creating it for {CREATE_TIMEOUT_S} s; "
                "find it or remove the empty file"
            ) from None
        except OSError as error:
            raise LedgerStorageError(f"ledger {self.path}: cannot be created: {error.strerror}") from error

    def _create_tables(self, writer: sqlite3.Connection, ledger_id: str) -> None:
        writer.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        for statement in (*self.create_table_statements, *SCHEMA, *TRIGGERS.values()):
            writer.execute(statement)
        writer.execute("INSERT INTO ledger_meta VALUES (?, ?, ?)", (ledger_id, FORMAT, FORMAT))

    def append(self, event: NewEvent) -> int:
        if event.fold is not None:
            return self._write(lambda writer: self._insert_with_fold(writer, event))
        self._file.check()
        try:
            writer = self._connections.writer()
            try:
                # One call into SQLite, which commits by itself: an interrupt comes before it or after it.
                position = until_free(lambda: self._insert(writer, event), BUSY_TIMEOUT_S)
                self._check_stored(writer, event, position)
                return position
            finally:
                self._connections.give_back_writer(writer)
        except sqlite3.Error as error:
            raise _storage_error(self.path, error) from error

    def append_exclusively(self, stream: str, after: int, build: Callable[[Sequence[StreamRow]], NewEvent]) -> int:
        def append(writer: sqlite3.Connection) -> int:
            found = writer.execute(_ROWS, (stream, after, _MAX_VERSION)).fetchall()
            return self._insert_with_fold(writer, build([StreamRow._make(row) for row in found]))

        return self._write(append)

    def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do several things in one transaction, where no signal handler runs."""

        def transaction() -> T:
            self._file.check()
            with self._storage_errors():
                writer = self._connections.writer()
                try:
                    return _in_transaction(writer, lambda: work(writer))
                finally:
                    self._connections.give_back_writer(writer)

        return uninterrupted(transaction)

    def _insert(self, writer: sqlite3.Connection, event: NewEvent) -> int:
        try:
            position = writer.execute(_INSERT, (event.stream, event.version, event.tag, event.body.decode())).lastrowid
        except sqlite3.IntegrityError as error:
            raise IntegrityError(error) from error
        assert position is not None
        return position

    def _insert_with_fold(self, writer: sqlite3.Connection, event: NewEvent) -> int:
        position = self._insert(writer, event)
        self._check_stored(writer, event, position)
        fold = event.fold
        if fold is not None:
            writer.execute(_INSERT_FOLD, (event.stream, fold.version, fold.fold, fold.digest, fold.state.decode()))
        return position

    def _check_stored(self, writer: sqlite3.Connection, event: NewEvent, position: int) -> None:
        # A trigger that somebody added may have swallowed it without a word.
        look = (position, event.stream, event.version)
        if not until_free(lambda: writer.execute(_IS_STORED, look).fetchall(), BUSY_TIMEOUT_S):
            raise LedgerStorageError(
                f"ledger {self.path}: the event was not stored, though SQLite reported no error; nothing was recorded; "
                "run 'lease-ledger verify', which names what was altered in the file"
            )

    def _insert_events(self, c: SQLiteCursor, stored_events: Sequence[StoredEvent], **_: Any) -> Sequence[int] | None:
        as_text = [
            replace(event, state=event.state.decode())  # type: ignore[arg-type]  # stored as text, so that SQL can read it
            for event in stored_events
        ]
        return super()._insert_events(c, as_text)

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        found = super().select_notifications(start, limit, stop, topics, inclusive_of_start=inclusive_of_start)
        return [replace(row, state=str(row.state).encode()) for row in found]

    def _read(self, query: str, parameters: Sequence[object] = ()) -> list[Any]:
        self._file.check_now_and_then()
        try:
            reader = self._connections.reader()
            try:
                return reader.execute(query, parameters).fetchall()
            finally:
                self._connections.give_back_reader(reader)
        except sqlite3.Error as error:
            raise _storage_error(self.path, error) from error

    def rows(self, stream: str, after: int = 0, upto: int | None = None) -> Sequence[StreamRow]:
        parameters = (stream, after, _MAX_VERSION if upto is None else upto)
        found = self._read(_ROWS, parameters)
        return [StreamRow._make(row) for row in found]

    def log(self, after: int, limit: int) -> Sequence[LogRow]:
        found: Sequence[LogRow] = self._read(_LOG, (after, limit))
        return found

    def last_position(self) -> int:
        ((position,),) = self._read("SELECT COALESCE(MAX(rowid), 0) FROM stored_events")
        return int(position)

    def last_version(self, stream: str) -> int:
        query = "SELECT COALESCE(MAX(originator_version), 0) FROM stored_events WHERE originator_id = ?"
        ((version,),) = self._read(query, (stream,))
        return int(version)

    def streams(self) -> Sequence[str]:
        found = self._read("SELECT DISTINCT originator_id FROM stored_events ORDER BY 1")
        return [stream for (stream,) in found]

    def streams_after(self, stream: str, limit: int) -> Sequence[str]:
        query = "SELECT DISTINCT originator_id FROM stored_events WHERE originator_id > ? ORDER BY 1 LIMIT ?"
        return [following for (following,) in self._read(query, (stream, limit))]

    def change_token(self) -> int:
        return self.last_position()

    def stored_fold(self, stream: str, fold: int, upto: int | None = None) -> StoredFold | None:
        parameters = (stream, _MAX_VERSION if upto is None else upto, fold)
        return next(iter(map(StoredFold._make, self._read(_FOLD, parameters))), None)

    def stored_folds(self) -> Iterable[tuple[str, StoredFold]]:
        query = "SELECT stream, version, fold, digest, CAST(state AS BLOB) FROM stored_folds"
        found = self._read(query)
        return [(stream, StoredFold._make(rest)) for stream, *rest in found]

    def defects(self) -> Sequence[str]:
        stored = dict(self._read("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'"))
        damage = [text for (text,) in self._read("PRAGMA quick_check(10)") if text != "ok"]
        missing = [
            f"the guard trigger {name} is missing or altered: the file was not append-only"
            for name, sql in TRIGGERS.items()
            if stored.get(name) != sql.strip()
        ]
        return [*missing, *(f"the file is damaged: {text}" for text in damage)]

    def close(self) -> None:
        self._connections.close()
        self.datastore.close()
