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
import shutil
import sqlite3
import tempfile
import threading
import time
import uuid
import weakref
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

from filelock import FileLock, Timeout
from sqlite_utils import Database

from ledger.one_line import one_line
from ledger.recorders.access import OWNER_ALONE, Access, make_private_file
from ledger.recorders.forking import tell_of_forks
from ledger.threads import StopRequest
from projections.audit_checkpoint import made_by_this_version
from projections.audit_errors import AuditFileDamaged, AuditFileError, AuditFileHeld, audit_errors
from projections.audit_looking import copied, refuse_foreign
from projections.audit_objects import alterations
from projections.audit_place import connect, may_write, real_place
from projections.audit_schema import APPLICATION_ID, create_tables
from projections.stoppable import stoppable

__all__ = ["AuditFile", "AuditFileDamaged", "AuditFileError", "AuditFileHeld"]

TURN_TIMEOUT_S: Final = 30.0
"""How long a question waits for another process to create or rebuild the file."""

LOOK_EVERY_S: Final = 0.02

FORK_TIMEOUT_S: Final = 5.0
"""How long a fork waits for others' questions to be answered."""

FORK_LOOK_EVERY_S: Final = 0.001

MEMORY_SHARED_SINCE: Final = (3, 36)
"""The version of SQLite since when several connections can have one database in memory."""

_left_open: Final[list[Database]] = []
"""Connections to files that are gone. To close one would remove the write-ahead log of the file now in its place."""

_Identity = tuple[tuple[int, int] | None, ...]


class _Connection:
    """A connection with what is known of the file behind it."""

    __slots__ = ("checked_schema", "db", "identity")

    def __init__(self, db: Database, identity: _Identity) -> None:
        self.db = db
        self.identity = identity
        self.checked_schema: int | None = None


class _Question:
    """That somebody is in the middle of a question, for as long as this lives."""

    __slots__ = ("__weakref__", "thread")

    def __init__(self) -> None:
        self.thread = threading.get_ident()


class AuditFile:
    """An open audit file, or a private copy of it. Safe to share between threads.

    Each transaction has a connection to itself, and no lock: an interrupted one is simply not used again, and closes,
    and so rolls back, when the last reference to it is gone.

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
        self._access = access
        self._real = None if self.path is None else real_place(self.path)
        self.private = private or (self._real is not None and not may_write(self._real))
        self._copy: weakref.finalize[..., AuditFile] | None = None
        self._of_one_process = self._temporary_uri() if self._real is None or self.private else None
        self._turn = threading.RLock() if self._of_one_process else _file_lock(Path(f"{self._real}.lock"), access)
        self._forking: int | None = None
        self._questions: weakref.WeakSet[_Question] = weakref.WeakSet()
        self._idle: deque[_Connection] = deque()
        first = stoppable(self._open)
        # What lies in memory lasts as long as somebody has it open.
        self._anchor = first if self._of_one_process else None
        if self._anchor is None:
            self._idle.append(first)
        tell_of_forks(self)

    @property
    def db(self) -> Database:
        """Its tables, by the connection that the next transaction will have."""
        connection = self._connection()
        self._idle.append(connection)
        return connection.db

    def before_fork(self) -> None:
        """Wait until nobody else is in the middle of a question, and let nobody begin one."""
        self._forking = threading.get_ident()
        deadline = time.monotonic() + FORK_TIMEOUT_S
        while any(question.thread != self._forking for question in self._questions) and time.monotonic() < deadline:
            time.sleep(FORK_LOOK_EVERY_S)

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._forking = None

    def after_fork_in_child(self) -> None:
        """Close what belongs to the parent; the file is to be opened anew."""
        self.inherited = True
        self._forking = None
        for connection in self._idle:
            connection.db.close()
        self._idle.clear()
        if self._anchor is not None:
            self._anchor.db.close()
        if self._copy is not None:
            # The parent goes on in it.
            self._copy.detach()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Database]:
        """Read, all of it from one state of the file.

        Raises:
            AuditFileDamaged: The file is damaged, or its tables, indexes, views or triggers were changed.
            AuditFileError: It cannot be read.
        """
        with audit_errors(self.path), self._transaction("BEGIN") as connection:
            self._refuse_altered(connection)
            yield connection.db

    @contextlib.contextmanager
    def writing(self) -> Iterator[Database]:
        """Write as the only writer; all of it or, if anything is raised, nothing. Raises as :meth:`reading`."""
        with audit_errors(self.path), self._transaction("BEGIN IMMEDIATE") as connection:
            self._refuse_altered(connection)
            yield connection.db

    @contextlib.contextmanager
    def replacing(self) -> Iterator[Database]:
        """Write whatever has become of the file's tables, to make them anew.

        Raises:
            AuditFileError: It cannot be written.
        """
        with audit_errors(self.path), self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection.db

    @contextlib.contextmanager
    def sole_rebuilder(self, stop: StopRequest, patience_s: float | None = None) -> Iterator[None]:
        """Be the only thread of the only process that creates or rebuilds this file. Others read and catch up.

        Args:
            stop: Whoever waits for this may ask that it ends.
            patience_s: Seconds to wait for one's turn; by default as long as a question waits.

        Raises:
            AuditFileHeld: It is not this process's turn in time, or it may not be locked.
            Stopped: Whoever waits for this was interrupted.
        """
        patience_s = TURN_TIMEOUT_S if patience_s is None else patience_s
        deadline = time.monotonic() + patience_s
        while not self._takes_turn():
            stop.heed()
            if time.monotonic() >= deadline:
                raise AuditFileHeld(
                    f"audit file {one_line(self.path)}: another process has been rebuilding it for {patience_s:g} s; "
                    "wait for it or end it"
                )
            time.sleep(LOOK_EVERY_S)
        try:
            yield
        finally:
            self._turn.release()

    def close(self) -> None:
        """Give up the connections, and a private copy with them."""
        while self._idle:
            self._discard(self._idle.pop())
        if self._anchor is not None:
            self._anchor.db.close()
        if self._copy is not None:
            self._copy()

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
            raise AuditFileHeld(f"audit file {one_line(self.path)}: cannot be locked: {error}") from error

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[_Connection]:
        question = self._question()
        connection = self._connection()
        execute = connection.db.conn.execute
        try:
            execute(begin)
            yield connection
            execute("COMMIT")
        except BaseException:
            # Who knows what else was left half done: this connection is not used again.
            self._discard(connection)
            raise
        self._idle.append(connection)
        del question

    def _question(self) -> _Question:
        question = _Question()
        while True:
            self._questions.add(question)
            # In this order: whoever is about to fork looks for questions once it has said so.
            if self._forking in (None, question.thread):
                return question
            self._questions.discard(question)
            time.sleep(FORK_LOOK_EVERY_S)

    def _connection(self) -> _Connection:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                # Opened where no handler tears it.
                return stoppable(self._open)
            if connection.identity == self._identity_now():
                return connection
            self._discard(connection)

    def _refuse_altered(self, connection: _Connection) -> None:
        execute = connection.db.conn.execute
        ((schema,),) = execute("PRAGMA schema_version").fetchall()
        if schema == connection.checked_schema:
            return
        found = alterations(connection.db.conn)
        if found and made_by_this_version(connection.db.conn):
            where = "in memory" if self.path is None else one_line(self.path)
            raise AuditFileDamaged(
                f"audit file {where}: {found[0].detail}, so its answers may be wrong; 'lease-ledger verify' shows all "
                "that was changed, 'lease-ledger rebuild' makes everything in it anew"
            )
        if not found:
            connection.checked_schema = schema

    def _identity_now(self) -> _Identity:
        if self._of_one_process:
            return ()
        return tuple(_inode(f"{self._real}{suffix}") for suffix in ("", "-wal", "-shm"))

    def _discard(self, connection: _Connection) -> None:
        if connection.identity and connection.identity[0] != self._identity_now()[0]:
            _left_open.append(connection.db)
        else:
            connection.db.close()

    def _open(self, stop: StopRequest) -> _Connection:
        with audit_errors(self.path):
            # Without plugins: an audit answers the same whatever else is installed.
            db = Database(self._connected(stop), recursive_triggers=False, execute_plugins=False)
            try:
                self._prepare(db, stop)
            except BaseException:
                db.close()
                raise
            return _Connection(db, self._identity_now())

    def _connected(self, stop: StopRequest) -> sqlite3.Connection:
        if self._of_one_process:
            return connect(self._of_one_process)
        assert self.path is not None
        self._real = real_place(self.path)
        if not self._real.exists():
            with self.sole_rebuilder(stop):
                try:
                    make_private_file(self._real, self._access)
                except OSError as error:
                    raise AuditFileHeld(
                        f"audit file {one_line(self.path)}: cannot be made: {error.strerror}"
                    ) from error
        return connect(f"file:{quote(os.fsencode(self._real))}?mode=rw")

    def _temporary_uri(self) -> str:
        """Where what this process has alone lies: in memory, or in a folder that nobody else may look into."""
        if self._real is None and sqlite3.sqlite_version_info >= MEMORY_SHARED_SINCE:
            return f"file:/{uuid.uuid4().hex}?vfs=memdb"
        folder = tempfile.mkdtemp(prefix="lease-ledger-audit-")
        self._copy = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        copy, afresh = (Path(folder, name) for name in ("copy.db", "audit.db"))
        is_copied = self._real is not None and copied(self._real, copy)
        return f"file:{quote(os.fsencode(copy if is_copied else afresh))}"

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
        refuse_foreign(db, self.path)
        return True


def _file_lock(path: Path, access: Access) -> FileLock:
    return FileLock(path, mode=access.file_mode, fallback_to_soft=False, preserve_lock_file=True)


def _inode(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116  # on the way of every question
    except OSError:
        return None
    return found.st_dev, found.st_ino
