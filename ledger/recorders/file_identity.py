"""Noticing that the files under an open connection are not the ones at its path any more.

SQLite keeps writing to files that were replaced or removed, and everything written there is lost: the ledger's own
file, the write-ahead log (``-wal``) that holds the latest events, and the shared memory (``-shm``) by which processes
agree on who writes. That is noticed before every write, and by readers within a hundredth of a second. So is a second
name (hard link) of the file, for whoever opened it by that name would write another log.

A copy written over the file's content keeps its name and inode. Whenever the file's size or time changed, which a
checkpoint brings about too, it is compared with its log, for at most a fiftieth of the time; what that can see is told
in :mod:`ledger.recorders.sqlite_log_fit`.
"""

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from ledger.errors import LedgerStorageError
from ledger.one_line import one_line
from ledger.recorders.forking import tell_of_forks
from ledger.recorders.sqlite_connections import BUSY_TIMEOUT_S
from ledger.recorders.sqlite_log_fit import refuse_unfitting_log
from ledger.recorders.sqlite_opening import Reach, refuse_second_name, sqlite_uri
from ledger.threads import uninterrupted

__all__ = ["FileIdentity"]


READERS_LOOK_EVERY_S: Final = 0.01
"""How long readers rely on the last look at the path; looking costs as much as a snapshot does."""

REST_IN_COMPARISONS: Final = 50
"""How many times as long as the last comparison of file and log took everybody relies on it: when many write, one
checkpoint follows another."""

_SIDES: Final = {"-wal": "write-ahead log", "-shm": "shared memory"}


class FileIdentity:
    """Which files a ledger was opened for.

    It holds a connection of its own that does nothing: while that one is open nobody, this process included, removes
    the log and the shared memory in good order and makes others.

    Args:
        path: The ledger's file, without links. It exists.
        reach: How it was opened.

    Raises:
        OSError: The file is gone.
        sqlite3.Error: It cannot be read.
    """

    def __init__(self, path: Path, reach: Reach = Reach.WRITE) -> None:
        self._file = path
        self._path = str(path)
        self._reach = reach
        found = os.stat(self._path)  # noqa: PTH116  # on the way of every read and write
        self._inode, self._device = found.st_ino, found.st_dev
        self._content = _content(found)
        self._compare_at = 0.0
        self._readers_look_at = 0.0
        self._holding: sqlite3.Connection | None = None
        self._sides: Sequence[tuple[str, int]] = ()
        self._closed = False
        # Held while a connection is opened or closed here, which no thread must be in the middle of in a fork.
        self._connecting = threading.Lock()
        tell_of_forks(self)
        uninterrupted(self._hold)

    def before_fork(self) -> None:
        """Wait until nobody opens a connection, and let nobody begin."""
        self._connecting.acquire()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._connecting.release()

    def after_fork_in_child(self) -> None:
        """Close what belongs to the parent; the next look opens a connection of this process's own."""
        if self._holding is not None:
            self._holding.close()
        self._holding = None
        self._connecting.release()

    def close(self) -> None:
        """Look no more."""
        self._closed = True
        uninterrupted(self._let_go)

    def _hold(self) -> None:
        with self._connecting:
            if self._closed or self._holding is not None or self._reach is Reach.UNCHANGING:
                return
            connection = sqlite3.connect(
                sqlite_uri(self._file, self._reach),
                uri=True,
                timeout=BUSY_TIMEOUT_S,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
            except BaseException:
                connection.close()
                raise
            self._sides = list(self._beside())
            self._holding = connection

    def _let_go(self) -> None:
        with self._connecting:
            if self._holding is not None:
                self._holding.close()
            self._holding = None

    def _beside(self) -> Iterator[tuple[str, int]]:
        for ending in _SIDES:
            # In any other mode than write-ahead logging, into which whoever writes puts the file, there are none.
            with contextlib.suppress(FileNotFoundError):
                yield ending, Path(f"{self._path}{ending}").stat().st_ino

    def check(self) -> None:
        """Make sure that the path still leads to the files.

        Raises:
            LedgerStorageError: One was replaced or removed, got a second name, or holds what does not belong there.
            sqlite3.Error: In a forked child: the file cannot be read.
        """
        self._readers_look_at = 0.0
        if self._closed:
            return
        try:
            found = os.stat(self._path)  # noqa: PTH116
        except OSError as error:
            raise LedgerStorageError(
                f"ledger {one_line(self._path)}: the file is gone ({error.strerror}); "
                "put it back or open the ledger again"
            ) from error
        if found.st_ino != self._inode or found.st_dev != self._device:
            raise LedgerStorageError(
                f"ledger {one_line(self._path)}: the file was replaced while it was open; nothing was written; "
                "open the ledger again"
            )
        if found.st_nlink > 1:
            refuse_second_name(self._file, found)
        if self._reach is Reach.UNCHANGING:
            self._check_unchanged(found)
        else:
            if self._holding is None:
                uninterrupted(self._hold)
            self._check_sides()
            content = _content(found)
            shrank = found.st_size < self._content[0]
            if content != self._content and (shrank or time.monotonic() >= self._compare_at):
                uninterrupted(lambda: self._compare(content))
        self._readers_look_at = time.monotonic() + READERS_LOOK_EVERY_S

    def check_now_and_then(self) -> None:
        """The same for whoever only reads, without looking again right after the last look that found all well.

        A file that is read without locks, as it lies, is looked at every time.
        """
        if time.monotonic() >= self._readers_look_at or self._reach is Reach.UNCHANGING:
            self.check()

    def _check_sides(self) -> None:
        for ending, inode in self._sides:
            try:
                if os.stat(self._path + ending).st_ino == inode:  # noqa: PTH116
                    continue
                what = "was replaced"
            except OSError as error:
                what = f"is gone ({error.strerror})"
            raise LedgerStorageError(
                f"ledger {one_line(self._path)}: its {_SIDES[ending]} {one_line(self._path + ending)} {what} while it "
                "was open; nothing was written. End the other processes that use the ledger, close it here, which "
                "saves what the log held, and open it again; never remove that file from a ledger in use"
            )

    def _check_unchanged(self, found: os.stat_result) -> None:
        if _content(found)[:2] != self._content[:2] or Path(f"{self._path}-wal").exists():
            raise LedgerStorageError(
                f"ledger {one_line(self._path)}: somebody began to write it while it was open for reading only; "
                "open it again"
            )

    def _compare(self, content: tuple[int, int, int]) -> None:
        with self._connecting:
            if content == self._content:
                return
            began_s = time.monotonic()
            fits = refuse_unfitting_log(self._file)
            now_s = time.monotonic()
            if fits:
                self._content = content
            self._compare_at = now_s + REST_IN_COMPARISONS * (now_s - began_s)


def _content(found: os.stat_result) -> tuple[int, int, int]:
    """What differs when a file was written; the last also where a copy was given the time of its original."""
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns
