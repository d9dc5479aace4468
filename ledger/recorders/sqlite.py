"""The embedded default: one SQLite file, append-only, in WAL mode, safe for many processes on one machine."""

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote

from eventsourcing.persistence import IntegrityError, Notification, StoredEvent
from eventsourcing.sqlite import SQLiteApplicationRecorder, SQLiteCursor, SQLiteDatastore
from filelock import FileLock, Timeout

from ledger.errors import LedgerStorageError, NotALedger
from ledger.keys import LeaseKey
from ledger.recorders.base import UNKNOWN_CHANGES, LeaseRecorder, LogRow, NewEvent, StoredFold, StreamRow
from ledger.recorders.busy import is_busy, until_free
from ledger.recorders.file_identity import FileIdentity
from ledger.recorders.forking import tell_of_forks
from ledger.recorders.locks import FileGuardLock, GuardLock
from ledger.recorders.schema import APPLICATION_ID, FORMAT, SCHEMA, TRIGGERS
from ledger.stores.filenames import token_file_name

__all__ = ["SQLiteLeaseRecorder", "Synchronous"]

Synchronous = Literal["full", "normal"]

BUSY_TIMEOUT_S: Final = 30
CREATE_TIMEOUT_S: Final = 60

_INSERT = "INSERT INTO stored_events (originator_id, originator_version, topic, state) VALUES (?, ?, ?, ?)"
_INSERT_FOLD = "INSERT OR REPLACE INTO stored_folds (stream, version, fold, digest, state) VALUES (?, ?, ?, ?, ?)"
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


class SQLiteLeaseRecorder(SQLiteApplicationRecorder, LeaseRecorder):
    """The log in one SQLite file.

    One connection writes and one reads, each under a lock of its own, so a reader never waits for a commit. Every
    append is one transaction. With ``synchronous="full"`` an acknowledged append survives power loss; with
    ``"normal"`` it survives the process, and power loss may take the latest ones.

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
        self._synchronous = synchronous
        self._appends = 0
        self._uri = f"file:{quote(str(self.path))}"
        super().__init__(SQLiteDatastore(self._uri, lock_timeout=BUSY_TIMEOUT_S, originator_id_type="text"))
        self.select_events_statement = (
            "SELECT originator_id, originator_version, topic, CAST(state AS BLOB) AS state "
            "FROM stored_events WHERE originator_id=? "
        )
        self._closed = False
        self._file: FileIdentity | None = None
        self._open(new_ledger_id)
        tell_of_forks(self)

    def before_fork(self) -> None:
        """Wait until nobody is in the middle of a transaction, and let nobody begin one."""
        self._writer_lock.acquire()
        self._reader_lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._reader_lock.release()
        self._writer_lock.release()

    def after_fork_in_child(self) -> None:
        """Close what belongs to the parent; the next use opens connections of this process's own."""
        self._close_connections()
        self.datastore = SQLiteDatastore(self._uri, lock_timeout=BUSY_TIMEOUT_S, originator_id_type="text")

    def _open(self, new_ledger_id: str) -> FileIdentity:
        self._writer_lock = threading.RLock()
        self._reader_lock = threading.RLock()
        with contextlib.ExitStack() as on_failure, self._storage_errors():
            self._writer = on_failure.enter_context(contextlib.closing(self._connect()))
            self.ledger_id = self._identity() or self._create(new_ledger_id)
            self._writer.execute("PRAGMA busy_timeout = 0")
            self._reader = self._connect()
            self._reader.execute("PRAGMA query_only = ON")
            on_failure.pop_all()
        # A new connection counts others' commits anew: no token of its own may equal one of the connection before it.
        self._appends += 1 << 32
        self._file = FileIdentity(self.path)
        return self._file

    def _connected(self) -> FileIdentity:
        """The file that the connections lead to, for the caller to check; a forked child gets connections of its own.

        Raises:
            LedgerStorageError: The ledger was closed.
        """
        if self._file is not None:
            return self._file
        if self._closed:
            raise LedgerStorageError(f"ledger {self.path} is closed; open it again")
        return self._open(self.ledger_id)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        self._connected().check_now_and_then()
        try:
            with self._reader_lock:
                yield self._reader
        except sqlite3.Error as error:
            raise _storage_error(self.path, error) from error

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

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        connection.execute(f"PRAGMA synchronous = {self._synchronous.upper()}")
        connection.execute("PRAGMA recursive_triggers = ON")
        return connection

    def _identity(self) -> str | None:
        tables = {name for (name,) in self._writer.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        if not tables:
            return None
        if "ledger_meta" not in tables:
            raise NotALedger(f"{self.path} is a SQLite database but holds no lease ledger; point --db at another file")
        ((ledger_id, lowest_reader),) = self._writer.execute("SELECT ledger_id, lowest_reader FROM ledger_meta")
        if lowest_reader > FORMAT:
            raise NotALedger(
                f"{self.path} was written in a format that needs reader version {lowest_reader}, "
                f"and this is version {FORMAT}; upgrade lease-ledger"
            )
        return str(ledger_id)

    def _create(self, ledger_id: str) -> str:
        lock = FileLock(
            f"{self.path}.create-lock",
            timeout=CREATE_TIMEOUT_S,
            fallback_to_soft=False,
            preserve_lock_file=True,
        )
        try:
            with lock:
                existing = self._identity()
                if existing is not None:
                    return existing
                self._writer.execute("PRAGMA journal_mode = WAL")
                self._create_tables(ledger_id)
                return ledger_id
        except Timeout:
            raise LedgerStorageError(
                f"ledger {self.path}: another process has been creating it for {CREATE_TIMEOUT_S} s; "
                "find it or remove the empty file"
            ) from None
        except OSError as error:
            raise LedgerStorageError(f"ledger {self.path}: cannot be created: {error.strerror}") from error

    def _create_tables(self, ledger_id: str) -> None:
        with self._transaction():
            self._writer.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            for statement in (*self.create_table_statements, *SCHEMA, *TRIGGERS.values()):
                self._writer.execute(statement)
            self._writer.execute("INSERT INTO ledger_meta VALUES (?, ?, ?)", (ledger_id, FORMAT, FORMAT))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._writer_lock:
            until_free(lambda: self._writer.execute("BEGIN IMMEDIATE"), BUSY_TIMEOUT_S)
            try:
                yield
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    def _insert(self, event: NewEvent) -> int:
        # Counted first, under the lock that readers of the count take: whatever interrupts us, no commit is uncounted.
        self._appends += 1
        try:
            cursor = self._writer.execute(_INSERT, (event.stream, event.version, event.tag, event.body.decode()))
        except sqlite3.IntegrityError as error:
            raise IntegrityError(error) from error
        position = cursor.lastrowid
        assert position is not None
        fold = event.fold
        if fold is not None:
            self._writer.execute(
                _INSERT_FOLD, (event.stream, fold.version, fold.fold, fold.digest, fold.state.decode())
            )
        return position

    def append(self, event: NewEvent) -> int:
        self._connected().check()
        try:
            with self._writer_lock:
                if event.fold is None:
                    return until_free(lambda: self._insert(event), BUSY_TIMEOUT_S)
                with self._transaction():
                    return self._insert(event)
        except sqlite3.Error as error:
            raise _storage_error(self.path, error) from error

    def append_exclusively(self, stream: str, after: int, build: Callable[[Sequence[StreamRow]], NewEvent]) -> int:
        self._connected().check()
        with self._storage_errors(), self._transaction():
            found = self._writer.execute(_ROWS, (stream, after, _MAX_VERSION)).fetchall()
            return self._insert(build([StreamRow._make(row) for row in found]))

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

    def rows(self, stream: str, after: int = 0, upto: int | None = None) -> Sequence[StreamRow]:
        parameters = (stream, after, _MAX_VERSION if upto is None else upto)
        with self._reading() as reader:
            found = reader.execute(_ROWS, parameters).fetchall()
        return [StreamRow._make(row) for row in found]

    def log(self, after: int, limit: int) -> Sequence[LogRow]:
        with self._reading() as reader:
            found: Sequence[LogRow] = reader.execute(_LOG, (after, limit)).fetchall()
        return found

    def last_position(self) -> int:
        with self._reading() as reader:
            ((position,),) = reader.execute("SELECT COALESCE(MAX(rowid), 0) FROM stored_events")
        return int(position)

    def last_version(self, stream: str) -> int:
        query = "SELECT COALESCE(MAX(originator_version), 0) FROM stored_events WHERE originator_id = ?"
        with self._reading() as reader:
            ((version,),) = reader.execute(query, (stream,))
        return int(version)

    def streams(self) -> Sequence[str]:
        with self._reading() as reader:
            found = reader.execute("SELECT DISTINCT originator_id FROM stored_events ORDER BY 1").fetchall()
        return [stream for (stream,) in found]

    def change_token(self) -> int:
        self._connected().check_now_and_then()
        # To the connection that writes, every commit but its own is a change; its own are counted beside.
        if not self._writer_lock.acquire(blocking=False):
            return UNKNOWN_CHANGES
        try:
            return int(self._writer.execute("PRAGMA data_version").fetchone()[0]) + self._appends
        except sqlite3.Error as error:
            if is_busy(error):
                return UNKNOWN_CHANGES
            raise _storage_error(self.path, error) from error
        finally:
            self._writer_lock.release()

    def stored_fold(self, stream: str, fold: int, upto: int | None = None) -> StoredFold | None:
        parameters = (stream, _MAX_VERSION if upto is None else upto, fold)
        with self._reading() as reader:
            found = reader.execute(_FOLD, parameters).fetchone()
        return None if found is None else StoredFold._make(found)

    def stored_folds(self) -> Iterable[tuple[str, StoredFold]]:
        query = "SELECT stream, version, fold, digest, CAST(state AS BLOB) FROM stored_folds"
        with self._reading() as reader:
            found = reader.execute(query).fetchall()
        return [(stream, StoredFold._make(rest)) for stream, *rest in found]

    def defects(self) -> Sequence[str]:
        with self._reading() as reader:
            stored = dict(reader.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'"))
            damage = [text for (text,) in reader.execute("PRAGMA quick_check(10)") if text != "ok"]
        missing = [
            f"the guard trigger {name} is missing or altered: the file was not append-only"
            for name, sql in TRIGGERS.items()
            if stored.get(name) != sql.strip()
        ]
        return [*missing, *(f"the file is damaged: {text}" for text in damage)]

    def close(self) -> None:
        with self._writer_lock, self._reader_lock:
            self._closed = True
            self._close_connections()

    def _close_connections(self) -> None:
        self._file = None
        self._reader.close()
        self._writer.close()
        self.datastore.close()
