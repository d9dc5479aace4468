"""Connections to PostgreSQL: lent to one thread at a time, made anew after a loss, never shared with a forked child.

Nothing here is to run where a signal handler can raise; :meth:`PostgresConnections.patiently` sees to that.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import psycopg
from eventsourcing.persistence import IntegrityError
from psycopg.pq import TransactionStatus
from psycopg.rows import DictRow, dict_row

from ledger.errors import LedgerStorageError
from ledger.recorders.postgres_address import PostgresAddress
from ledger.recorders.postgres_sessions import LOCK_TIMEOUT_S, POOLED, is_direct, is_shared, session_settings
from ledger.threads import uninterrupted

__all__ = ["ConnectionLost", "LedgerConnection", "PostgresConnections", "Unreachable"]

T = TypeVar("T")
LedgerConnection = psycopg.Connection[DictRow]

BORROW_TIMEOUT_S: Final = 30
LONGEST_PAUSE_S: Final = 0.5

_DEFAULTS: Final = {
    "connect_timeout": "10",
    "application_name": "lease-ledger",
    "client_encoding": "UTF8",
    # A server that vanished without a word is noticed within half a minute.
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
_ADVICE: Final = {
    "25006": "the server takes no writes, as a standby; point the URL at the primary, nothing was recorded",
    "42501": "this role lacks a right ({}); grant it, or have the owner run 'lease-ledger init'",
    "42P01": "its tables are not all there ({}); restore a backup",
    "53100": "the server's disk is full; free some space and try again, nothing was recorded",
    "53300": "the server has no connection left; raise max_connections or lower the URL's connections=",
    "54000": "the server refuses so long a lease key ({}); keep keys below 2,600 characters, nothing was recorded",
    "55P03": f"other writers held the ledger for {LOCK_TIMEOUT_S} s; find which; nothing was recorded",
    "57014": "the statement was cancelled or timed out ({}); nothing was recorded",
}
_ENDS_THE_SESSION: Final = ("57P01", "57P02", "57P03", "57P05", "25P03", "25P04")

_inherited: list[Any] = []
"""Connections of a parent process: kept untouched, since closing them here would close the parent's."""


class Unreachable(LedgerStorageError):
    """The server cannot be reached."""


class ConnectionLost(Unreachable):
    """The connection broke, and no new one could be had in time. Whether the last statement took effect is unknown."""


def _storage_error(shown: str, error: psycopg.Error) -> LedgerStorageError:
    """What a driver's error means for the user; the message names the database without its password."""
    said = " ".join((error.diag.message_primary or next(iter(str(error).splitlines()), type(error).__name__)).split())
    advice = _ADVICE.get(error.sqlstate or "", "{}").format(said)
    return LedgerStorageError(f"ledger {shown}: {advice}")


class PostgresConnections:
    """Lends connections in autocommit mode, and tries again when one breaks.

    Thread-safe. A forked child gets connections of its own. Sessions keep settings and prepared statements, so a
    pooler in between must pool sessions, not transactions.

    Args:
        address: The database.
    """

    def __init__(self, address: PostgresAddress) -> None:
        self.address = address
        self._closed = False
        self._ever_connected = False
        self._sole_sessions = False
        self._start_anew()

    def _start_anew(self) -> None:
        self._pid = os.getpid()
        self._idle: list[LedgerConnection] = []
        self._free = threading.BoundedSemaphore(self.address.connections)

    def connect(self) -> LedgerConnection:
        """A connection that the caller keeps, and closes.

        Raises:
            ConnectionLost: The server was there before and cannot be reached now.
            Unreachable: It could not be reached from the beginning.
            LedgerStorageError: This object is closed, or a pooler in between shares sessions out by transaction.
        """
        shown = self.address.shown
        if self._closed:
            raise LedgerStorageError(f"{shown} is closed; open it again")
        with contextlib.ExitStack() as failing:
            try:
                connection = self._new_connection()
                failing.callback(connection.close)
                self._ever_connected = True
                if not self._sole_sessions:
                    self._refuse_shared(connection)
                connection.execute(session_settings(connection.info.server_version))
            except psycopg.Error as error:
                said = f"{_storage_error(shown, error)}"
                if self._ever_connected:
                    raise ConnectionLost(f"{said}; no new connection could be made") from error
                raise Unreachable(f"{said}; check the URL, and that the server runs") from error
            failing.pop_all()
        return connection

    def _new_connection(self) -> LedgerConnection:
        return psycopg.Connection[DictRow].connect(
            **{**_DEFAULTS, **self.address.parameters},  # type: ignore[arg-type]  # all of it is text
            autocommit=True,
            row_factory=dict_row,
        )

    def _refuse_shared(self, connection: LedgerConnection) -> None:
        if not is_direct(connection):
            with contextlib.closing(self._new_connection()) as other:
                shared = is_shared(connection, other)
            if shared:
                raise LedgerStorageError(f"ledger {self.address.shown}: {POOLED}")
        self._sole_sessions = True

    @contextlib.contextmanager
    def borrow(self) -> Iterator[LedgerConnection]:
        """A connection for as long as the block runs; one left in the middle of something is closed afterwards.

        Raises:
            ConnectionLost: It broke in the block.
            IntegrityError: A constraint or guard trigger refused a statement.
            LedgerStorageError: Any other error of the driver.
        """
        if os.getpid() != self._pid:
            _inherited.append(self._idle)
            self._start_anew()
        free, idle = self._free, self._idle
        if not free.acquire(timeout=BORROW_TIMEOUT_S):
            raise LedgerStorageError(
                f"ledger {self.address.shown}: its {self.address.connections} connections were busy for "
                f"{BORROW_TIMEOUT_S} s; raise connections= in the URL"
            )
        connection: LedgerConnection | None = None
        try:
            connection = self._idle_connection(idle) or self.connect()
            yield connection
        except psycopg.Error as error:
            raise self.meaning(error, connection) from error
        finally:
            if connection is not None:
                usable = connection.info.transaction_status == TransactionStatus.IDLE
                if usable and not self._closed:
                    idle.append(connection)
                else:
                    connection.close()
            free.release()

    def _idle_connection(self, idle: list[LedgerConnection]) -> LedgerConnection | None:
        with contextlib.suppress(IndexError):
            return idle.pop()
        return None

    def meaning(self, error: psycopg.Error, connection: LedgerConnection | None) -> Exception:
        """What a driver's error on this connection is to be raised as; a broken one takes the idle ones with it."""
        if connection is not None and (connection.closed or error.sqlstate in _ENDS_THE_SESSION):
            # What took this connection mostly took the idle ones too.
            while (stale := self._idle_connection(self._idle)) is not None:
                stale.close()
            return ConnectionLost(
                f"{_storage_error(self.address.shown, error)}; the connection was lost for good, and whether the last "
                "statement took effect is not known: look before trying again"
            )
        if isinstance(error, psycopg.IntegrityError):
            return IntegrityError(error.diag.message_primary or type(error).__name__)
        return _storage_error(self.address.shown, error)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[LedgerConnection]:
        """A connection in a transaction that ends with the block: committed, or rolled back when it raises."""
        with self.borrow() as connection:
            connection.execute("BEGIN")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if not connection.closed:
                    with contextlib.suppress(psycopg.Error):
                        connection.execute("ROLLBACK")
                raise

    def patiently(self, call: Callable[[], T]) -> T:
        """Make the call again, with new connections, as long as connections are lost and the time allows.

        Each try runs where no signal handler can raise, so that an interrupt leaves no connection, slot, lock or
        transaction behind; it comes out after the try, or between two.

        Only for calls that may be made twice: the first may have taken effect before its connection was lost.
        """
        pause_s = 0.0
        deadline: float | None = None
        while True:
            try:
                return uninterrupted(call)
            except ConnectionLost:
                now = time.monotonic()
                deadline = now + self.address.reconnect_s if deadline is None else deadline
                if self._closed or now + pause_s > deadline:
                    raise
            time.sleep(pause_s)
            pause_s = min(max(0.01, pause_s * 2), LONGEST_PAUSE_S)

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    def close(self) -> None:
        """Close the idle connections, and each lent one when it comes back."""
        uninterrupted(self._close)

    def _close(self) -> None:
        self._closed = True
        if os.getpid() == self._pid:
            while (idle := self._idle_connection(self._idle)) is not None:
                idle.close()

    def __del__(self) -> None:
        # Whoever forgets a token store, which need not be closed, leaves no session behind.
        with contextlib.suppress(Exception):
            self._close()
