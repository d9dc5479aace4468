"""The SQLite file that an audit log lives in: where it lies, how it is opened, and who may write it.

Made once under an operating system's lock, for several processes that switch a new file to write-ahead logging at
once fail at it. Every write begins immediate: a transaction that reads first and writes later fails at once when
another writer came in between.

A process that may not write the file works on a private temporary copy, so that looking never needs permission to
change anything.
"""

import contextlib
import os
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

from filelock import FileLock, Timeout
from sqlite_utils import Database

from ledger.errors import LedgerStorageError
from ledger.recorders.base import LeaseRecorder
from ledger.recorders.forking import tell_of_forks
from projections.audit_schema import APPLICATION_ID, create_tables

__all__ = ["AuditFile", "AuditFileError", "beside"]

BUSY_TIMEOUT_S: Final = 30
LOCK_TIMEOUT_S: Final = 600

_DAMAGED: Final = "it is damaged; remove it and ask again, everything in it is made anew from the ledger"
_ADVICE: Final = {
    sqlite3.SQLITE_FULL: "the disk is full; free some space and ask again",
    sqlite3.SQLITE_BUSY: f"other processes held it for {BUSY_TIMEOUT_S} s; ask again",
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: "it is no SQLite database; move it away and ask again",
    sqlite3.SQLITE_READONLY: "it may not be written; check the permissions of it and its -wal and -shm files",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; check the permissions of it and its -wal and -shm files",
}


class AuditFileError(LedgerStorageError):
    """The audit file cannot be used. The ledger is not concerned: the file can always be made anew."""


def beside(recorder: LeaseRecorder) -> Path | None:
    """The audit file of a ledger: ``auth.audit.db`` for ``auth.db``; ``None`` for a ledger that lies in no folder."""
    sidecar = recorder.sidecar("audit")
    if sidecar is None:
        return None
    ledger = sidecar.with_name(sidecar.name.removesuffix(".audit"))
    return ledger.with_name(f"{ledger.stem}.audit{ledger.suffix}")


class AuditFile:
    """An open audit file, or a private copy of it. Safe to share between threads.

    Args:
        path: The file; ``None`` for one in memory.

    Attributes:
        path: The file; ``None`` in memory.
        private: Whether this is a temporary copy, because the file may not be written.
        db: Its tables. Hold :attr:`lock` while using them.
        inherited: Whether this process is a fork of the one that opened it, and must open it anew.

    Raises:
        AuditFileError: It cannot be opened or made, or is something else.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = None if path is None else path.absolute()
        if self.path is not None and not self.path.parent.is_dir():
            raise AuditFileError(f"audit file {self.path}: its folder does not exist; make it or name another")
        self.inherited = False
        self.lock = threading.RLock()
        self._thread_exclusion = threading.RLock()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.private = self.path is not None and not _may_write(self.path)
        with self.errors():
            # Without plugins: an audit answers the same whatever else is installed.
            self.db = Database(self._connection(), recursive_triggers=False, execute_plugins=False)
            try:
                self._prepare()
            except BaseException:
                self.close()
                raise
        tell_of_forks(self)

    def before_fork(self) -> None:
        """Wait until nobody is in the middle of a question, and let nobody begin one."""
        self.lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self.lock.release()

    def after_fork_in_child(self) -> None:
        """Close what belongs to the parent; the file is to be opened anew."""
        self.inherited = True
        self.db.close()
        self.lock.release()

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Turn what SQLite raises into an error that says what to do."""
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", None)
            advice = _ADVICE.get(code & 0xFF) if isinstance(code, int) else None
            raise AuditFileError(f"audit file {self.path or 'in memory'}: {advice or error}") from error

    @contextlib.contextmanager
    def reading(self) -> Iterator[Database]:
        """Read, all of it from one state of the file."""
        with self.errors(), self.lock, self._transaction("BEGIN"):
            yield self.db

    @contextlib.contextmanager
    def writing(self) -> Iterator[Database]:
        """Write as the only writer; all of it or, if anything is raised, nothing."""
        with self.errors(), self.lock, self._transaction("BEGIN IMMEDIATE"):
            yield self.db

    @contextlib.contextmanager
    def sole_rebuilder(self) -> Iterator[None]:
        """Be the only thread of the only process that creates or rebuilds this file. Others read and catch up."""
        with self._thread_exclusion:
            if self.path is None or self.private:
                yield
                return
            lock = FileLock(f"{self.path}.lock", timeout=LOCK_TIMEOUT_S, fallback_to_soft=False)
            try:
                lock.acquire()
            except Timeout:
                raise AuditFileError(
                    f"audit file {self.path}: another process has been rebuilding it for {LOCK_TIMEOUT_S} s; "
                    "wait for it or end it"
                ) from None
            except OSError as error:
                raise AuditFileError(f"audit file {self.path}: cannot be locked: {error.strerror}") from error
            try:
                yield
            finally:
                lock.release()

    def close(self) -> None:
        """Give up the connection, and a private copy with it."""
        with self.lock:
            self.db.close()
        if self._folder is not None:
            self._folder.cleanup()

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        connection = self.db.conn
        connection.execute(begin)
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _prepare(self) -> None:
        if self._is_ready():
            return
        with self.sole_rebuilder():
            if self._is_ready():
                return
            self.db.execute("PRAGMA journal_mode = WAL")
            with self.writing() as db:
                create_tables(db)
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")

    def _is_ready(self) -> bool:
        # In this order, for another process may be making the file: its tables and its name appear at once.
        if not self.db.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall():
            return False
        if self.db.execute("PRAGMA application_id").fetchall() != [(APPLICATION_ID,)]:
            raise AuditFileError(f"{self.path} holds something else than an audit log; name another file for it")
        return True

    def _connection(self) -> sqlite3.Connection:
        if self.path is None:
            return _connect("file::memory:")
        return self._private_copy(self.path) if self.private else _connect(f"file:{quote(os.fsencode(self.path))}")

    def _private_copy(self, path: Path) -> sqlite3.Connection:
        self._folder = tempfile.TemporaryDirectory(prefix="lease-ledger-audit-", ignore_cleanup_errors=True)
        copy = _connect(f"file:{quote(str(Path(self._folder.name, 'audit.db')))}")
        source = _open_read_only(path)
        if source is not None:
            with contextlib.closing(source):
                source.backup(copy)
        return copy


def _connect(uri: str) -> sqlite3.Connection:
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def _may_write(path: Path) -> bool:
    return os.access(path.parent, os.W_OK | os.X_OK) and (not path.exists() or os.access(path, os.W_OK))


def _open_read_only(path: Path) -> sqlite3.Connection | None:
    """A connection that reads the file as it is; ``None`` when there is no way to, and it has to be made anew."""
    uri = f"file:{quote(os.fsencode(path))}?mode=ro"
    # Without its shared memory file SQLite reads a write-ahead log only as "immutable", which is safe while nobody
    # has the file open; then there is no write-ahead log either.
    nobody_has_it_open = not Path(f"{path}-wal").exists()
    for attempt in (uri, f"{uri}&immutable=1") if nobody_has_it_open else (uri,):
        try:
            connection = sqlite3.connect(attempt, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        except sqlite3.Error:
            continue
        try:
            connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
        except sqlite3.Error:
            connection.close()
        else:
            return connection
    return None
