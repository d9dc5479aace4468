"""Wakes those who wait for the next event, by LISTEN; whoever waits also looks for himself now and then.

A notification may be lost, with its connection or between two: it hurries a waiter, and nothing depends on it.
"""

import contextlib
import os
import selectors
import socket
import threading
import time
from typing import Final

import psycopg
from psycopg.sql import SQL, Identifier

from ledger.errors import LedgerStorageError
from ledger.recorders.postgres_connections import LedgerConnection, PostgresConnections
from ledger.threads import uninterrupted

__all__ = ["ChangeWatch"]

IDLE_S: Final = 60.0
"""Without anybody waiting for so long, the watch gives its connection up until the next one does."""

RETRY_S: Final = 1.0


class ChangeWatch:
    """One daemon thread with a connection of its own, running only while somebody waits.

    Attributes:
        listening: Whether notifications arrive; else a waiter has only his own looking.
    """

    def __init__(self, connections: PostgresConnections) -> None:
        self._connections = connections
        self._changed = threading.Condition()
        self._start_anew()

    def _start_anew(self) -> None:
        self._pid = os.getpid()
        self._thread: threading.Thread | None = None
        self._wake: socket.socket | None = None
        self._heard = 0
        self._wanted_at = 0.0
        self._stopped = False
        self.listening = False

    def heard(self) -> int:
        """How many times something was heard so far; take it before looking, and hand it to :meth:`wait`."""
        return uninterrupted(self._hear)

    def _hear(self) -> int:
        if self._pid != os.getpid():
            self._changed = threading.Condition()
            self._start_anew()
        with self._changed:
            self._wanted_at = time.monotonic()
            if self._thread is None and not self._stopped:
                self._thread = threading.Thread(target=self._run, name="lease-ledger watch", daemon=True)
                self._thread.start()
            return self._heard

    def wait(self, heard: int, timeout_s: float) -> None:
        """Return once more was heard, or the time is over; an interrupt comes out then, so keep the time short."""
        uninterrupted(lambda: self._wait(heard, timeout_s))

    def _wait(self, heard: int, timeout_s: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._heard != heard or self._stopped, timeout_s)

    def close(self) -> None:
        """End the thread; who waits returns."""
        uninterrupted(self._close)

    def _close(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
            thread, wake = self._thread, self._wake
        if self._pid != os.getpid() or thread is None:
            return
        if wake is not None:
            with contextlib.suppress(OSError):
                wake.send(b"x")
        thread.join(5)

    def _run(self) -> None:
        while self._still_wanted():
            with contextlib.suppress(LedgerStorageError, psycopg.Error, OSError):
                self._listen()
            self.listening = False
            with self._changed:
                self._changed.wait_for(lambda: self._stopped, RETRY_S)

    def _still_wanted(self) -> bool:
        with self._changed:
            if not self._stopped and time.monotonic() - self._wanted_at < IDLE_S:
                return True
            self._thread = None
            return False

    def _listen(self) -> None:
        theirs, ours = socket.socketpair()
        with theirs, ours, self._connections.connect() as connection, selectors.DefaultSelector() as ready:
            connection.execute(SQL("LISTEN {}").format(Identifier(self._connections.address.channel)))
            with self._changed:
                self._wake = theirs
            self.listening = True
            ready.register(connection.fileno(), selectors.EVENT_READ)
            ready.register(ours, selectors.EVENT_READ)
            # What was committed before LISTEN took effect notified nobody.
            self._tell()
            while not self._stopped and time.monotonic() - self._wanted_at < IDLE_S:
                ready.select(IDLE_S)
                self._drain(connection)

    def _drain(self, connection: LedgerConnection) -> None:
        if any(True for _ in connection.notifies(timeout=0)):
            self._tell()

    def _tell(self) -> None:
        with self._changed:
            self._heard += 1
            self._changed.notify_all()
