"""The lock that one lease has among all machines that share a PostgreSQL ledger: an advisory lock of the server.

The server gives it up when the session that holds it ends, however it ends. A session that ended under a live holder
is noticed before the holder's next event is stored: the lock is taken again, or the event is refused where somebody
else has it by then. What ends the session after that look is not noticed in time: that is why events and tokens are
still written by comparison with what was there before, guard or no guard.
"""

import contextlib
import hashlib
import logging
import os
import selectors
import threading
from typing import Any, Final, NamedTuple

import psycopg

from ledger.errors import LedgerStorageError
from ledger.recorders.postgres_connections import LedgerConnection, PostgresConnections
from ledger.recorders.postgres_sessions import POOLED
from ledger.threads import uninterrupted

__all__ = ["AdvisoryGuardLock", "GuardSession"]

_LONGEST_NAME: Final = 63
"""Bytes of an application name that the server keeps."""

_TRY: Final = """
    SELECT pg_try_advisory_lock(%s) AS taken, set_config('application_name', %s, false), pg_backend_pid() AS session"""
_UNLOCK: Final = "SELECT pg_advisory_unlock(%s) AS held"

_HELD_BY: Final = """
    SELECT a.application_name AS name FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND ((l.classid::bigint << 32) | l.objid::bigint) = %s"""

_log = logging.getLogger(__name__)


class _Held(NamedTuple):
    number: int
    name: str


class GuardSession:
    """One database session for all guard locks of a recorder. Thread-safe; a forked child gets one of its own."""

    def __init__(self, connections: PostgresConnections) -> None:
        self._connections = connections
        self._inherited: list[LedgerConnection | None] = []
        self._start_anew()

    def _start_anew(self) -> None:
        self._pid = os.getpid()
        # Not the parent's: a thread of the parent may have held it at the moment of the fork.
        self._lock = threading.Lock()
        self._connection: LedgerConnection | None = None
        self._session_pid: int | None = None
        self._held: dict[str, _Held] = {}

    def try_lock(self, stream: str, number: int, holder: str) -> bool:
        """Take a lease's advisory lock unless any session has it, this one included."""
        wanted = _Held(number, holder.encode()[:_LONGEST_NAME].decode(errors="ignore"))
        taken: list[bool] = []
        try:
            self._connections.patiently(lambda: taken.append(self._try_lock(stream, wanted)))
        except BaseException:
            # Interrupted after it was taken, which nobody will ever know who could give it up.
            if any(taken):
                self.unlock(stream)
            raise
        return any(taken)

    def _try_lock(self, stream: str, wanted: _Held) -> bool:
        if self._pid != os.getpid():
            self._inherited.append(self._connection)
            self._start_anew()
        with self._lock:
            connection = self._session()
            # The server lets a session take its own lock again.
            if stream in self._held:
                return False
            if not self._take(connection, wanted):
                return False
            self._held[stream] = wanted
            return True

    def _take(self, connection: LedgerConnection, wanted: _Held) -> bool:
        try:
            (row,) = connection.execute(_TRY, wanted).fetchall()
        except psycopg.Error as error:
            raise self._connections.meaning(error, connection) from error
        if self._session_pid not in (None, row["session"]):
            with contextlib.suppress(psycopg.Error):
                connection.execute(_UNLOCK, [wanted.number])
            self._drop()
            raise LedgerStorageError(f"ledger {self._connections.address.shown}: {POOLED}")
        self._session_pid = row["session"]
        return bool(row["taken"])

    def ensure(self, stream: str) -> None:
        """Do nothing unless this session took the lease's lock; else see to it that it still has it.

        Raises:
            LedgerStorageError: It was lost with the session, and somebody else has it now.
        """
        if stream in self._held and self._pid == os.getpid():
            self._connections.patiently(lambda: self._ensure(stream))

    def _ensure(self, stream: str) -> None:
        with self._lock:
            if stream not in self._held:
                return
            self._notice_the_end()
            self._session()
            if stream not in self._held:
                raise LedgerStorageError(
                    f"the login guard of {stream} was lost with its session, and somebody else holds it now; nothing "
                    "was recorded, try again"
                )

    def _notice_the_end(self) -> None:
        connection = self._connection
        if connection is None or connection.closed:
            return
        with selectors.DefaultSelector() as ready:
            ready.register(connection.fileno(), selectors.EVENT_READ)
            if not ready.select(0):
                return
        # The server says something unasked: that it ends the session, mostly.
        try:
            connection.execute("SELECT 1")
        except psycopg.Error:
            connection.close()

    def unlock(self, stream: str) -> None:
        """Give a lock up; one that was lost with its session is given up already."""
        uninterrupted(lambda: self._unlock(stream))

    def _unlock(self, stream: str) -> None:
        if self._pid != os.getpid():
            return
        with self._lock:
            connection = self._connection
            held = self._held.pop(stream, None)
            if connection is None or held is None:
                return
            try:
                (row,) = connection.execute(_UNLOCK, [held.number]).fetchall()
            except psycopg.Error:
                # Ending the session ends all its locks, and a lock that cannot be given up must not stay.
                self._end_session()
                row = {"held": False}
            if not row["held"]:
                _log.warning("the login guard of %s had been lost with its session when it was given up", stream)

    def holder(self, number: int) -> str | None:
        """The application name of the session that has the lock."""

        def look() -> dict[str, Any] | None:
            with self._connections.borrow() as connection:
                return connection.execute(_HELD_BY, [number]).fetchone()

        row = self._connections.patiently(look)
        return None if row is None else (row["name"] or None)

    def close(self) -> None:
        """End the session and with it every lock."""
        uninterrupted(self._close)

    def _close(self) -> None:
        if self._pid == os.getpid():
            with self._lock:
                self._drop()

    def _session(self) -> LedgerConnection:
        """The session, made anew with all its locks where it ended; locks that others have by then are given up."""
        if self._connection is None or self._connection.closed:
            self._connection = self._connections.connect()
            self._session_pid = None
            for stream, held in list(self._held.items()):
                if self._take(self._connection, held):
                    _log.warning("the login guard of %s was lost with its session, and taken again", stream)
                else:
                    del self._held[stream]
                    _log.warning("the login guard of %s was lost with its session, and somebody else has it", stream)
        return self._connection

    def _drop(self) -> None:
        self._held.clear()
        self._end_session()

    def _end_session(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class AdvisoryGuardLock:
    """One lease's lock; see :class:`ledger.recorders.locks.GuardLock`.

    Args:
        session: Whose lock it is.
        ledger_id: Keeps the leases of several ledgers in one database apart.
        stream: The lease.
    """

    def __init__(self, session: GuardSession, ledger_id: str, stream: str) -> None:
        self._session = session
        self._stream = stream
        digest = hashlib.sha256(f"lease-ledger guard {ledger_id} {stream}".encode()).digest()
        self._number = int.from_bytes(digest[:8], "big", signed=True)

    def try_acquire(self, holder: str) -> bool:
        return self._session.try_lock(self._stream, self._number, holder)

    def release(self) -> None:
        self._session.unlock(self._stream)

    def held_by(self) -> str | None:
        return self._session.holder(self._number)
