"""The connections to one SQLite file, lent to one caller at a time.

A connection is owned by whoever holds the only reference to it, never by a lock: an interrupt that keeps a borrower
from giving it back drops the reference, and a dropped connection closes itself, rolls back what it had begun and is
replaced by the next borrower. The pools are queues that the interpreter implements in one step each. How many
connections there are matters to nobody's safety, for SQLite's own locks keep writers apart; that there is mostly one
writer spares threads of one process the wait for those locks.
"""

import contextlib
import sqlite3
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final, Literal

from ledger.errors import LedgerStorageError
from ledger.one_line import one_line
from ledger.recorders.forking import tell_of_forks
from ledger.threads import uninterrupted

__all__ = ["LedgerConnection", "SQLiteConnections", "Synchronous"]

Synchronous = Literal["full", "normal"]

BUSY_TIMEOUT_S: Final = 30
FORK_PATIENCE_S: Final = 1.0
"""How long a fork waits for connections that are lent."""

WRITER_LOOK_EVERY_S: Final = 0.05
WRITER_PATIENCE_S: Final = 2.0
"""How long a writer waits for the connection of another before it gets one of its own."""


class LedgerConnection(sqlite3.Connection):
    """A connection that can be told apart from one that is gone."""

    __slots__ = ("__weakref__",)


class SQLiteConnections:
    """Lends connections to one file. Safe to share between threads; a forked child gets connections of its own.

    Args:
        path: The file.
        uri: The same, as SQLite's URI.
        synchronous: How durable a commit is.
    """

    def __init__(self, path: Path, uri: str, synchronous: Synchronous) -> None:
        self._path = path
        self._uri = uri
        self._synchronous = synchronous
        self._closed = False
        self._alive: weakref.WeakSet[LedgerConnection] = weakref.WeakSet()
        self._at_fork: list[LedgerConnection] = []
        self._start_anew()
        tell_of_forks(self)

    def _start_anew(self) -> None:
        self._readers: deque[LedgerConnection] = deque()
        self._writers: SimpleQueue[LedgerConnection] = SimpleQueue()
        self._lent_writer: Callable[[], LedgerConnection | None] = lambda: None
        # Taken only where no signal handler runs, and by a fork: nobody opens a file while the process is copied.
        self._opening = threading.Lock()
        self._none_opens = False

    def reader(self) -> LedgerConnection:
        """A connection to read with; for :meth:`give_back_reader`.

        Raises:
            LedgerStorageError: The ledger is closed.
            sqlite3.Error: No connection could be opened.
        """
        try:
            return self._readers.pop()
        except IndexError:
            return uninterrupted(lambda: self._open(reads_only=True))

    def give_back_reader(self, connection: LedgerConnection) -> None:
        """Let others have it."""
        if self._closed:
            connection.close()
        else:
            self._readers.append(connection)

    def writer(self) -> LedgerConnection:
        """The connection to write with, when nobody else in this process has it; for :meth:`give_back_writer`.

        It waits for nobody in the database: a statement that finds another process writing fails at once.

        Raises:
            LedgerStorageError: The ledger is closed.
            sqlite3.Error: No connection could be opened.
        """
        try:
            return self._writers.get(block=False)
        except Empty:
            return self._next_writer()

    def _next_writer(self) -> LedgerConnection:
        patient_until_s = time.monotonic() + WRITER_PATIENCE_S
        while not self._closed and self._lent_writer() is not None and time.monotonic() < patient_until_s:
            with contextlib.suppress(Empty):
                return self._writers.get(timeout=WRITER_LOOK_EVERY_S)
        connection = uninterrupted(lambda: self._open(reads_only=False))
        self._lent_writer = weakref.ref(connection)
        return connection

    def give_back_writer(self, connection: LedgerConnection) -> None:
        """Let others have it, unless it is in the middle of something, or others have one already."""
        if self._closed or connection.in_transaction or not self._writers.empty():
            connection.close()
        else:
            self._writers.put(connection)

    def _open(self, *, reads_only: bool) -> LedgerConnection:
        with self._opening:
            if self._closed:
                raise LedgerStorageError(f"ledger {one_line(self._path)} is closed; open it again")
            connection = sqlite3.connect(
                self._uri,
                uri=True,
                timeout=BUSY_TIMEOUT_S,
                isolation_level=None,
                check_same_thread=False,
                factory=LedgerConnection,
            )
            connection.execute(f"PRAGMA synchronous = {self._synchronous.upper()}")
            connection.execute("PRAGMA recursive_triggers = ON")
            if reads_only:
                connection.execute("PRAGMA query_only = ON")
            else:
                connection.execute("PRAGMA busy_timeout = 0")
            self._alive.add(connection)
            return connection

    def close(self) -> None:
        """Close what is idle, and each lent connection when it comes back."""
        self._closed = True
        for connection in self._idle():
            connection.close()

    def _idle(self) -> list[LedgerConnection]:
        taken: list[LedgerConnection] = []
        with contextlib.suppress(IndexError):
            while True:
                taken.append(self._readers.pop())
        with contextlib.suppress(Empty):
            while True:
                taken.append(self._writers.get(block=False))
        return taken

    def before_fork(self) -> None:
        """Wait until nobody uses a connection, and let nobody have one."""
        deadline_s = time.monotonic() + FORK_PATIENCE_S
        self._none_opens = self._opening.acquire(timeout=FORK_PATIENCE_S)
        self._at_fork.extend(self._idle())
        while len(self._at_fork) < len(self._alive) and time.monotonic() < deadline_s:
            time.sleep(0.000_5)
            self._at_fork.extend(self._idle())

    def after_fork_in_parent(self) -> None:
        """Go on."""
        while self._at_fork:
            connection = self._at_fork.pop()
            is_reader = bool(connection.execute("PRAGMA query_only").fetchone()[0])
            (self.give_back_reader if is_reader else self.give_back_writer)(connection)
        if self._none_opens:
            self._none_opens = False
            self._opening.release()

    def after_fork_in_child(self) -> None:
        """Close what belongs to the parent; the next use opens connections of this process's own."""
        for connection in self._at_fork:
            connection.close()
        self._at_fork.clear()
        self._alive = weakref.WeakSet()
        self._start_anew()
