"""Noticing that the files under an open connection are not the ones at its path any more.

SQLite keeps writing to files that were replaced or removed, and everything written there is lost: the ledger's own
file, the write-ahead log (``-wal``) that holds the latest events, and the shared memory (``-shm``) by which processes
agree on who writes. That is noticed before every write, and by readers within a hundredth of a second. So is a second
name (hard link) of the file, for whoever opened it by that name would write another log.

A copy written over the file's content keeps its name and inode. Whenever the file's size or time changed, which a
checkpoint brings about too, it is compared with its log, for at most a tenth of the time; what that can see is told
in :mod:`ledger.recorders.sqlite_log_fit`.
"""

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import Final

from ledger.errors import LedgerStorageError
from ledger.one_line import one_line
from ledger.recorders.forking import tell_of_forks
from ledger.recorders.sqlite_log_fit import refuse_unfitting_log
from ledger.recorders.sqlite_opening import refuse_second_name

__all__ = ["FileIdentity"]


READERS_LOOK_EVERY_S: Final = 0.01
"""How long readers rely on the last look at the path; looking costs as much as a snapshot does."""

REST_IN_COMPARISONS: Final = 10
"""How many times as long as the last comparison of file and log took everybody relies on it: when many write, one
checkpoint follows another."""

_SIDES: Final = {"-wal": "write-ahead log", "-shm": "shared memory"}


class FileIdentity:
    """Which files a connection was opened for.

    Args:
        path: The ledger's file, without links; it exists, and a connection has read it, so that the other two exist.
        unchanging: Nobody writes the file and there is no log: it was opened as it lies, without locks.
    """

    def __init__(self, path: Path, *, unchanging: bool = False) -> None:
        self._file = path
        self._path = str(path)
        self._unchanging = unchanging
        found = os.stat(self._path)  # noqa: PTH116  # on the way of every read and write
        self._inode, self._device = found.st_ino, found.st_dev
        self._content = (found.st_size, found.st_mtime_ns)
        self._compare_at = 0.0
        self._comparing = threading.Lock()
        self._readers_look_at = 0.0
        self._sides: list[tuple[str, int]] = []
        for ending in () if unchanging else _SIDES:
            # In any other mode than write-ahead logging, into which whoever writes puts the file, there are none.
            with contextlib.suppress(FileNotFoundError):
                self._sides.append((ending, Path(f"{path}{ending}").stat().st_ino))
        # Other threads must not fork in the middle of a comparison, which has connections of its own.
        tell_of_forks(self)

    def before_fork(self) -> None:
        """Wait until nobody compares, and let nobody begin."""
        self._comparing.acquire()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._comparing.release()

    def after_fork_in_child(self) -> None:
        """Go on."""
        self._comparing.release()

    def check(self) -> None:
        """Make sure that the path still leads to the files.

        Raises:
            LedgerStorageError: One was replaced or removed, got a second name, or holds what does not belong there.
        """
        self._readers_look_at = 0.0
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
        if self._unchanging:
            self._check_unchanged(found)
        else:
            self._check_sides()
            content = (found.st_size, found.st_mtime_ns)
            shrank = found.st_size < self._content[0]
            if content != self._content and (shrank or time.monotonic() >= self._compare_at):
                self._compare(content)
        self._readers_look_at = time.monotonic() + READERS_LOOK_EVERY_S

    def check_now_and_then(self) -> None:
        """The same for whoever only reads, without looking again right after the last look that found all well."""
        if time.monotonic() >= self._readers_look_at:
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
        if (found.st_size, found.st_mtime_ns) != self._content or Path(f"{self._path}-wal").exists():
            raise LedgerStorageError(
                f"ledger {one_line(self._path)}: somebody began to write it while it was open for reading only; "
                "open it again"
            )

    def _compare(self, content: tuple[int, int]) -> None:
        with self._comparing:
            if content != self._content:
                began = time.monotonic()
                refuse_unfitting_log(self._file)
                now = time.monotonic()
                self._content = content
                self._compare_at = now + REST_IN_COMPARISONS * (now - began)
