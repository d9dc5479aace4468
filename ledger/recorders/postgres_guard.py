"""The lock that one lease has among all machines that share a PostgreSQL ledger: an advisory lock of the server.

The server gives it up when the session that holds it ends, however it ends. Should the connection break under a live
holder, the lock is gone and the holder not told: that is why events and tokens are still written by comparison with
what was there before, guard or no guard.
"""

import contextlib
import hashlib
import os
import threading
from typing import Any, Final

import psycopg

from ledger.errors import LedgerStorageError
from ledger.recorders.postgres_connections import LedgerConnection, PostgresConnections
from ledger.recorders.postgres_sessions import POOLED

__all__ = ["AdvisoryGuardLock", "GuardSession"]

_LONGEST_NAME: Final = 63
"""Bytes of an application name that the server keeps."""

_TRY: Final = """
    SELECT pg_try_advisory_lock(%s) AS taken, set_config('application_name', %s, false), pg_backend_pid() AS session"""
_UNLOCK: Final = "SELECT pg_advisory_unlock(%s)"

_HELD_BY: Final = """
    SELECT a.application_name AS name FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND ((l.classid::bigint << 32) | l.objid::bigint) = %s"""


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
        self._held: set[int] = set()

    def try_lock(self, number: int, holder: str) -> bool:
        """Take an advisory lock unless any session has it, this one included."""
        return self._connections.patiently(lambda: self._try_lock(number, holder))

    def _try_lock(self, number: int, holder: str) -> bool:
        name = holder.encode()[:_LONGEST_NAME].decode(errors="ignore")
        if self._pid != os.getpid():
            self._inherited.append(self._connection)
            self._start_anew()
        with self._lock:
            connection = self._session()
            # The server lets a session take its own lock again.
            if number in self._held:
                return False
            try:
                (row,) = connection.execute(_TRY, [number, name]).fetchall()
            except psycopg.Error as error:
                raise self._connections.meaning(error, connection) from error
            except BaseException:
                # Interrupted, it may have been taken all the same, and nobody would ever give it up.
                with contextlib.suppress(psycopg.Error):
                    connection.execute(_UNLOCK, [number])
                raise
            self._refuse_other_session(connection, row["session"], number)
            if row["taken"]:
                self._held.add(number)
            return bool(row["taken"])

    def _refuse_other_session(self, connection: LedgerConnection, pid: int, number: int) -> None:
        if self._session_pid in (None, pid):
            self._session_pid = pid
            return
        with contextlib.suppress(psycopg.Error):
            connection.execute(_UNLOCK, [number])
        self._drop()
        raise LedgerStorageError(f"ledger {self._connections.address.shown}: {POOLED}")

    def unlock(self, number: int) -> None:
        """Give a lock up; one that was lost with its session is given up already."""
        if self._pid != os.getpid():
            return
        with self._lock:
            connection = self._connection
            if connection is None or number not in self._held:
                return
            self._held.discard(number)
            try:
                connection.execute(_UNLOCK, [number])
            except psycopg.Error:
                # Ending the session ends all its locks, and a lock that cannot be given up must not stay.
                self._drop()

    def holder(self, number: int) -> str | None:
        """The application name of the session that has the lock."""

        def look() -> dict[str, Any] | None:
            with self._connections.borrow() as connection:
                return connection.execute(_HELD_BY, [number]).fetchone()

        row = self._connections.patiently(look)
        return None if row is None else (row["name"] or None)

    def close(self) -> None:
        """End the session and with it every lock."""
        if self._pid == os.getpid():
            with self._lock:
                self._drop()

    def _session(self) -> LedgerConnection:
        if self._connection is None or self._connection.closed:
            self._held.clear()
            self._session_pid = None
            self._connection = self._connections.connect()
        return self._connection

    def _drop(self) -> None:
        self._held.clear()
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
        digest = hashlib.sha256(f"lease-ledger guard {ledger_id} {stream}".encode()).digest()
        self._number = int.from_bytes(digest[:8], "big", signed=True)

    def try_acquire(self, holder: str) -> bool:
        return self._session.try_lock(self._number, holder)

    def release(self) -> None:
        self._session.unlock(self._number)

    def held_by(self) -> str | None:
        return self._session.holder(self._number)
