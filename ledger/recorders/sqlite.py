"""The embedded default: one SQLite file, append-only, in WAL mode, safe for many processes on one machine."""

import contextlib
import logging
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

from eventsourcing.persistence import IntegrityError, Notification, StoredEvent
from eventsourcing.sqlite import SQLiteApplicationRecorder, SQLiteCursor, SQLiteDatastore
from filelock import FileLock, Timeout

from ledger.errors import CorruptHistory, LedgerStorageError
from ledger.keys import LeaseKey
from ledger.one_line import one_line
from ledger.recorders.access import OWNER_ALONE, Access, access_like, make_private_file
from ledger.recorders.base import LARGEST_STORED, Defect, LeaseRecorder, LogRow, NewEvent, StoredFold, StreamRow
from ledger.recorders.busy import until_free
from ledger.recorders.file_identity import FileIdentity
from ledger.recorders.forking import tell_of_forks
from ledger.recorders.locks import FileGuardLock, GuardLock
from ledger.recorders.schema import APPLICATION_ID, FORMAT, SCHEMA, TRIGGERS
from ledger.recorders.sqlite_connections import BUSY_TIMEOUT_S, SQLiteConnections, Synchronous
from ledger.recorders.sqlite_defects import find_defects
from ledger.recorders.sqlite_errors import DAMAGE, sqlite_storage_error, sqlite_storage_errors
from ledger.recorders.sqlite_fetching import fetch
from ledger.recorders.sqlite_identity import read_identity
from ledger.recorders.sqlite_opening import Reach, prepare, real_file, share_side_files, sqlite_uri
from ledger.recorders.stored_rows import is_whole_fold, log_rows, stream_rows
from ledger.stores.filenames import token_file_name
from ledger.threads import uninterrupted

__all__ = ["SQLiteLeaseRecorder", "Synchronous"]

T = TypeVar("T")

CREATE_TIMEOUT_S: Final = 60

_INSERT = "INSERT INTO stored_events (originator_id, originator_version, topic, state) VALUES (?, ?, ?, ?)"
_INSERT_FOLD = "INSERT OR REPLACE INTO stored_folds (stream, version, fold, digest, state) VALUES (?, ?, ?, ?, ?)"
_IS_STORED = (
    "SELECT 1 FROM stored_events WHERE rowid = ? "
    "AND originator_id = ? AND originator_version = ? AND topic = ? AND state = ?"
)
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

_log = logging.getLogger(__name__)


def _storable(number: int | None) -> int:
    # Beyond what SQLite keeps there is no version and no position, so that the bound is as good.
    return LARGEST_STORED if number is None else max(-LARGEST_STORED, min(number, LARGEST_STORED))


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
        access: Whom a file that is made is for.

    Attributes:
        path: The file itself, all links resolved.
        reach: What this process can do with it.

    Raises:
        NotALedger: The file holds something else, or only a newer version may open it.
        LedgerStorageError: The file cannot be opened or created.
    """

    def __init__(
        self,
        path: Path,
        *,
        new_ledger_id: str,
        synchronous: Synchronous = "full",
        access: Access = OWNER_ALONE,
    ) -> None:
        self.path = real_file(path)
        self.reach = prepare(self.path, access)
        self.read_only = self.reach is not Reach.WRITE
        if self.read_only:
            _log.info("ledger %s is open for reading only", one_line(self.path))
        with sqlite_storage_errors(self.path):
            self.access = access_like(self.path)
        self._uri = sqlite_uri(self.path, self.reach)
        super().__init__(self._library_datastore())
        self.select_events_statement = (
            "SELECT originator_id, originator_version, topic, CAST(state AS BLOB) AS state "
            "FROM stored_events WHERE originator_id=? "
        )
        self._connections = SQLiteConnections(self.path, self._uri, synchronous)
        self.ledger_id = uninterrupted(lambda: self._open(new_ledger_id))
        with contextlib.ExitStack() as on_failure, sqlite_storage_errors(self.path):
            on_failure.callback(self._connections.close)
            self._file = FileIdentity(self.path, self.reach)
            on_failure.pop_all()
        share_side_files(self.path)
        tell_of_forks(self)

    def before_fork(self) -> None:
        """Nothing to wait for: the library's own connections are not used by this recorder."""

    def after_fork_in_parent(self) -> None:
        """Nothing to do."""

    def after_fork_in_child(self) -> None:
        """Close what the library opened in the parent."""
        self.datastore.close()
        self.datastore = self._library_datastore()

    def _library_datastore(self) -> SQLiteDatastore:
        datastore = SQLiteDatastore(self._uri, lock_timeout=BUSY_TIMEOUT_S, originator_id_type="text")
        # Read as it lies, a file does not show its mode, which the library would then set.
        datastore.pool.is_journal_mode_wal = self.reach is Reach.UNCHANGING
        return datastore

    def _open(self, new_ledger_id: str) -> str:
        with contextlib.ExitStack() as on_failure, sqlite_storage_errors(self.path):
            on_failure.callback(self._connections.close)
            writer = self._connections.writer()
            ledger_id = until_free(lambda: read_identity(writer, self.path), BUSY_TIMEOUT_S)
            ledger_id = ledger_id or self._create(writer, new_ledger_id)
            self._connections.give_back_writer(writer)
            on_failure.pop_all()
            return ledger_id

    def sidecar(self, name: str) -> Path | None:
        return self.path.with_name(f"{self.path.name}.{name}")

    def guard_lock(self, stream: str) -> GuardLock:
        name = token_file_name(LeaseKey.parse(stream)).removesuffix(".json")
        return FileGuardLock(self.path.with_name(f"{self.path.name}.locks") / f"{name}.lock", self.access)

    def _create(self, writer: sqlite3.Connection, ledger_id: str) -> str:
        lock = FileLock(
            f"{self.path}.create-lock",
            mode=self.access.file_mode,
            timeout=CREATE_TIMEOUT_S,
            fallback_to_soft=False,
            preserve_lock_file=True,
        )
        try:
            make_private_file(Path(f"{self.path}.create-lock"), self.access)
            with lock:
                existing = until_free(lambda: read_identity(writer, self.path), BUSY_TIMEOUT_S)
                if existing is not None:
                    return existing
                until_free(lambda: writer.execute("PRAGMA journal_mode = WAL"), BUSY_TIMEOUT_S)
                _in_transaction(writer, lambda: self._create_tables(writer, ledger_id))
                return ledger_id
        except Timeout:
            raise LedgerStorageError(
                f"ledger {one_line(self.path)}: another process has been creating it for {CREATE_TIMEOUT_S} s; "
                "find it or remove the empty file"
            ) from None
        except OSError as error:
            raise LedgerStorageError(f"ledger {one_line(self.path)}: cannot be created: {error.strerror}") from error

    def _create_tables(self, writer: sqlite3.Connection, ledger_id: str) -> None:
        writer.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        for statement in (*SCHEMA, *TRIGGERS.values()):
            writer.execute(statement)
        writer.execute("INSERT INTO ledger_meta VALUES (?, ?, ?)", (ledger_id, FORMAT, FORMAT))

    def append(self, event: NewEvent) -> int:
        if event.fold is not None:
            return self._write(lambda writer: self._insert_with_fold(writer, event))
        try:
            self._check_before_write()
            writer = self._connections.writer()
            try:
                # One call into SQLite, which commits by itself: an interrupt comes before it or after it.
                position = until_free(lambda: self._insert(writer, event), BUSY_TIMEOUT_S)
                self._check_stored(writer, event, position)
                return position
            finally:
                self._connections.give_back_writer(writer)
        except DAMAGE as error:
            raise sqlite_storage_error(self.path, error) from error

    def append_exclusively(self, stream: str, after: int, build: Callable[[Sequence[StreamRow]], NewEvent]) -> int:
        def append(writer: sqlite3.Connection) -> int:
            found = fetch(writer, _ROWS, (stream, after, LARGEST_STORED))
            return self._insert_with_fold(writer, build(stream_rows(stream, after, found)))

        return self._write(append)

    def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do several things in one transaction, where no signal handler runs."""

        def transaction() -> T:
            with sqlite_storage_errors(self.path):
                self._check_before_write()
                writer = self._connections.writer()
                try:
                    return _in_transaction(writer, lambda: work(writer))
                finally:
                    self._connections.give_back_writer(writer)

        return uninterrupted(transaction)

    def _check_before_write(self) -> None:
        if self.read_only:
            raise LedgerStorageError(
                f"ledger {one_line(self.path)} is open for reading only: this process has no permission to write it "
                "and its folder, or the disk is read-only; nothing was recorded"
            )
        self._file.check()

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
        # A trigger that somebody added may have swallowed or changed it without a word.
        look = (position, event.stream, event.version, event.tag, event.body.decode())
        if not until_free(lambda: writer.execute(_IS_STORED, look).fetchall(), BUSY_TIMEOUT_S):
            raise LedgerStorageError(
                f"ledger {one_line(self.path)}: the event is not stored as it was sent, though SQLite reported no "
                "error; run 'lease-ledger verify', which names what was altered in the file"
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
        try:
            self._file.check_now_and_then()
            reader = self._connections.reader()
            try:
                return fetch(reader, query, parameters)
            finally:
                self._connections.give_back_reader(reader)
        except DAMAGE as error:
            raise sqlite_storage_error(self.path, error) from error

    def rows(self, stream: str, after: int = 0, upto: int | None = None) -> Sequence[StreamRow]:
        parameters = (stream, _storable(after), _storable(upto))
        return stream_rows(stream, after, self._read(_ROWS, parameters))

    def log(self, after: int, limit: int) -> Sequence[LogRow]:
        return log_rows(after, self._read(_LOG, (_storable(after), limit)))

    def last_position(self) -> int:
        ((position,),) = self._read("SELECT COALESCE(MAX(rowid), 0) FROM stored_events")
        return int(position)

    def last_version(self, stream: str) -> int:
        query = "SELECT COALESCE(MAX(originator_version), 0) FROM stored_events WHERE originator_id = ?"
        ((version,),) = self._read(query, (stream,))
        if not isinstance(version, int):
            raise CorruptHistory(stream, 0, f"its last version is {version!r}")
        return version

    def streams(self) -> Sequence[str]:
        found = self._read("SELECT DISTINCT originator_id FROM stored_events ORDER BY 1")
        for (stream,) in found:
            if not isinstance(stream, str):
                raise CorruptHistory(repr(stream), 0, "its stream is no lease")
        return [stream for (stream,) in found]

    def streams_after(self, stream: str, limit: int) -> Sequence[str]:
        query = "SELECT DISTINCT originator_id FROM stored_events WHERE originator_id > ? ORDER BY 1 LIMIT ?"
        return [following for (following,) in self._read(query, (stream, limit))]

    def change_token(self) -> int:
        return self.last_position()

    def stored_fold(self, stream: str, fold: int, upto: int | None = None) -> StoredFold | None:
        parameters = (stream, _storable(upto), fold)
        return next(filter(is_whole_fold, map(StoredFold._make, self._read(_FOLD, parameters))), None)

    def stored_folds(self) -> Iterable[tuple[str, StoredFold]]:
        query = "SELECT stream, version, fold, digest, CAST(state AS BLOB) FROM stored_folds"
        found = self._read(query)
        return [(stream, StoredFold._make(rest)) for stream, *rest in found]

    def defects(self) -> Sequence[Defect]:
        self._file.check()
        with sqlite_storage_errors(self.path), contextlib.closing(self._connections.reader()) as connection:
            return find_defects(connection, self.ledger_id)

    def close(self) -> None:
        self._connections.close()
        self.datastore.close()
        self._file.close()
