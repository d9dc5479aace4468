"""The SQLite file that an audit log lives in: opened, checked, and used by one transaction at a time.

Made once under an operating system's lock, for several processes that switch a new file to write-ahead logging at
once fail at it. Every write begins immediate: a transaction that reads first and writes later fails at once when
another writer came in between.

A process that may not write the file works on a private temporary copy, so that looking never needs permission to
change anything; so does one that others keep from writing.

Whatever interrupts a question, the next one works: a transaction that was torn belongs to a connection that nobody uses
again. What writes or takes a lock between processes runs where no signal handler does (:mod:`ledger.threads`).
"""

import contextlib
import os
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

from filelock import FileLock, Timeout
from sqlite_utils import Database

from ledger.recorders.access import OWNER_ALONE, Access, make_private_file
from ledger.recorders.forking import tell_of_forks
from ledger.threads import StopRequest
from projections.audit_checkpoint import made_by_this_version
from projections.audit_errors import AuditFileDamaged, AuditFileError, AuditFileHeld, audit_errors
from projections.audit_objects import alterations
from projections.audit_place import connect, may_write, open_read_only, real_place
from projections.audit_schema import APPLICATION_ID, create_tables
from projections.stoppable import stoppable

__all__ = ["AuditFile", "AuditFileDamaged", "AuditFileError", "AuditFileHeld", "as_it_is"]

TURN_TIMEOUT_S: Final = 30.0
"""How long a question waits for another process to create or rebuild the file."""

LOOK_EVERY_S: Final = 0.02

_left_open: Final[list[Database]] = []
"""Connections to files that are gone. To close one would remove the write-ahead log of the file now in its place."""

_Identity = tuple[tuple[int, int] | None, ...]


class AuditFile:
    """An open audit file, or a private copy of it. Safe to share between threads.

    Args:
        path: The file; ``None`` for one in memory.
        access: Who may use the file, where it has to be made.
        private: Work on a temporary copy, whether or not the file may be written.

    Attributes:
        path: The file; ``None`` in memory.
        private: Whether this is a temporary copy, because the file may not be written.
        inherited: Whether this process is a fork of the one that opened it, and must open it anew.

    Raises:
        AuditFileHeld: It is out of reach for now.
        AuditFileError: It cannot be opened or made, or is something else.
    """

    def __init__(self, path: Path | None, access: Access = OWNER_ALONE, *, private: bool = False) -> None:
        self.path = None if path is None else path.absolute()
        self.inherited = False
        self.lock = threading.RLock()
        self._access = access
        self._real = None if self.path is None else real_place(self.path)
        self.private = private or (self._real is not None and not may_write(self._real))
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        in_one_process = self._real is None or self.private
        self._turn = threading.RLock() if in_one_process else _file_lock(Path(f"{self._real}.lock"))
        self._checked_schema: int | None = None
        self._identity: _Identity = ()
        self._db: Database | None = stoppable(self._open)
        tell_of_forks(self)

    @property
    def db(self) -> Database:
        """Its tables. Hold :attr:`lock` while using them."""
        if self._db is not None and self._is_as_left(self._db):
            return self._db
        self._db = None
        # Opened where no handler tears it; until it is put here, dropping it closes it.
        self._db = stoppable(self._open)
        return self._db

    def before_fork(self) -> None:
        """Wait until nobody is in the middle of a question, and let nobody begin one."""
        self.lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self.lock.release()

    def after_fork_in_child(self) -> None:
        """Close what belongs to the parent; the file is to be opened anew."""
        self.inherited = True
        if self._db is not None:
            self._db.close()
        self.lock.release()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Database]:
        """Read, all of it from one state of the file.

        Raises:
            AuditFileDamaged: The file is damaged, or its tables, indexes, views or triggers were changed.
            AuditFileError: It cannot be read.
        """
        with audit_errors(self.path), self.lock, self._transaction("BEGIN") as db:
            self._refuse_altered(db)
            yield db

    @contextlib.contextmanager
    def writing(self) -> Iterator[Database]:
        """Write as the only writer; all of it or, if anything is raised, nothing. Raises as :meth:`reading`."""
        with audit_errors(self.path), self.lock, self._transaction("BEGIN IMMEDIATE") as db:
            self._refuse_altered(db)
            yield db

    @contextlib.contextmanager
    def replacing(self) -> Iterator[Database]:
        """Write whatever has become of the file's tables, to make them anew.

        Raises:
            AuditFileError: It cannot be written.
        """
        with audit_errors(self.path), self.lock, self._transaction("BEGIN IMMEDIATE") as db:
            yield db

    @contextlib.contextmanager
    def sole_rebuilder(self, stop: StopRequest, patience_s: float = TURN_TIMEOUT_S) -> Iterator[None]:
        """Be the only thread of the only process that creates or rebuilds this file. Others read and catch up.

        Raises:
            AuditFileHeld: It is not this process's turn within ``patience_s`` seconds, or it may not be locked.
            Stopped: Whoever waits for this was interrupted.
        """
        deadline = time.monotonic() + patience_s
        while not self._takes_turn():
            stop.heed()
            if time.monotonic() >= deadline:
                raise AuditFileHeld(
                    f"audit file {self.path}: another process has been rebuilding it for {patience_s:g} s; "
                    "wait for it or end it"
                )
            time.sleep(LOOK_EVERY_S)
        try:
            yield
        finally:
            self._turn.release()

    def close(self) -> None:
        """Give up the connection, and a private copy with it."""
        with self.lock:
            db, self._db = self._db, None
            if db is not None:
                self._discard(db)
        if self._folder is not None:
            self._folder.cleanup()

    def _takes_turn(self) -> bool:
        try:
            if isinstance(self._turn, FileLock):
                make_private_file(Path(self._turn.lock_file), self._access)
                self._turn.acquire(blocking=False)
                return True
            return self._turn.acquire(blocking=False)
        except Timeout:
            return False
        except (OSError, NotImplementedError) as error:
            raise AuditFileHeld(f"audit file {self.path}: cannot be locked: {error}") from error

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[Database]:
        db = self.db
        try:
            db.conn.execute(begin)
            yield db
            db.conn.execute("COMMIT")
        except BaseException as error:
            self._give_up(db, error)
            raise

    def _give_up(self, db: Database, error: BaseException) -> None:
        """End a transaction that failed, and with it, mostly, the connection: who knows what else was left half done."""
        if isinstance(error, Exception) and (self.path is None or self.private):
            # Its contents would have to be made anew.
            with contextlib.suppress(sqlite3.Error):
                db.conn.set_authorizer(None)
                db.conn.set_progress_handler(None, 0)
                if db.conn.in_transaction:
                    db.conn.execute("ROLLBACK")
                return
        if self._db is db:
            self._db = None
        self._discard(db)

    def _refuse_altered(self, db: Database) -> None:
        ((schema,),) = db.conn.execute("PRAGMA schema_version").fetchall()
        if schema == self._checked_schema:
            return
        found = alterations(db.conn)
        if found and made_by_this_version(db.conn):
            raise AuditFileDamaged(
                f"audit file {self.path or 'in memory'}: {found[0].detail}, so its answers may be wrong; 'lease-ledger "
                "verify' shows all that was changed, 'lease-ledger rebuild' makes everything in it anew"
            )
        if not found:
            self._checked_schema = schema

    def _is_as_left(self, db: Database) -> bool:
        if db.conn.in_transaction:
            # An interrupt tore the question that began it, or one is being asked in the middle of another.
            return False
        if self._identity_now() == self._identity:
            return True
        self._discard(db)
        return False

    def _identity_now(self) -> _Identity:
        if self._real is None or self.private:
            return ()
        return tuple(_inode(f"{self._real}{suffix}") for suffix in ("", "-wal", "-shm"))

    def _discard(self, db: Database) -> None:
        if self._identity and self._identity[0] != self._identity_now()[0]:
            _left_open.append(db)
        else:
            db.close()

    def _open(self, stop: StopRequest) -> Database:
        with audit_errors(self.path):
            # Without plugins: an audit answers the same whatever else is installed.
            db = Database(self._connection(stop), recursive_triggers=False, execute_plugins=False)
            try:
                self._prepare(db, stop)
                self._checked_schema = None
                self._identity = self._identity_now()
            except BaseException:
                db.close()
                raise
            return db

    def _connection(self, stop: StopRequest) -> sqlite3.Connection:
        if self._real is None or self.path is None:
            return connect("file::memory:")
        self._real = real_place(self.path)
        if self.private:
            return self._private_copy(self._real)
        if not self._real.exists():
            with self.sole_rebuilder(stop):
                try:
                    make_private_file(self._real, self._access)
                except OSError as error:
                    raise AuditFileHeld(f"audit file {self.path}: cannot be made: {error.strerror}") from error
        return connect(f"file:{quote(str(self._real))}?mode=rw")

    def _prepare(self, db: Database, stop: StopRequest) -> None:
        if self._is_ready(db):
            return
        with self.sole_rebuilder(stop):
            if self._is_ready(db):
                return
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("BEGIN IMMEDIATE")
            create_tables(db)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute("COMMIT")

    def _is_ready(self, db: Database) -> bool:
        # In this order, for another process may be making the file: its tables and its name appear at once.
        if not db.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall():
            return False
        _refuse_foreign(db, self.path)
        return True

    def _private_copy(self, path: Path) -> sqlite3.Connection:
        if self._folder is not None:
            self._folder.cleanup()
        self._folder = tempfile.TemporaryDirectory(prefix="lease-ledger-audit-", ignore_cleanup_errors=True)
        copy, afresh = (Path(self._folder.name, name) for name in ("copy.db", "audit.db"))
        # What cannot be copied, or is not fit to be gone on from, is made anew.
        return _copied(path, copy) or _connect_private(afresh)


def _file_lock(path: Path) -> FileLock:
    return FileLock(path, mode=0o600, fallback_to_soft=False, preserve_lock_file=True)


def _connect_private(path: Path) -> sqlite3.Connection:
    make_private_file(path)
    return connect(f"file:{quote(str(path))}")


def _copied(path: Path, copy: Path) -> sqlite3.Connection | None:
    source = open_read_only(path)
    if source is None:
        return None
    connection = _connect_private(copy)
    try:
        with contextlib.closing(source):
            source.backup(connection)
        if not alterations(connection) or not made_by_this_version(connection):
            return connection
    except (sqlite3.Error, UnicodeDecodeError):
        pass
    connection.close()
    return None


@contextlib.contextmanager
def as_it_is(path: Path) -> Iterator[Database]:
    """Read a file that is there as it is, all of it from one state, without making, mending or locking anything.

    Raises:
        AuditFileHeld: It may not be read, or others hold it.
        AuditFileError: It is damaged, or something else.
    """
    real = real_place(path.absolute())
    with audit_errors(path):
        writable = may_write(real)
        connection = connect(f"file:{quote(str(real))}?mode=rw") if writable else open_read_only(real)
        if connection is None:
            raise AuditFileHeld(f"audit file {path}: it cannot be read; check its permissions")
        with contextlib.closing(connection):
            connection.execute("PRAGMA query_only = ON")
            db = Database(connection, recursive_triggers=False, execute_plugins=False)
            _refuse_foreign(db, path)
            connection.execute("BEGIN")
            yield db


def _refuse_foreign(db: Database, path: Path | None) -> None:
    if db.execute("PRAGMA application_id").fetchall() != [(APPLICATION_ID,)]:
        raise AuditFileError(f"{path} holds something else than an audit log; name another file for it")


def _inode(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116  # on the way of every question
    except OSError:
        return None
    return found.st_dev, found.st_ino
