"""The lock that one lease has among all processes that share its ledger."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

from filelock import FileLock, Timeout

from ledger.errors import LedgerStorageError
from ledger.one_line import one_line
from ledger.recorders.access import OWNER_ALONE, Access, make_private_file, make_private_folder

__all__ = ["FileGuardLock", "GuardLock"]

_NOTE_BYTES: Final = 1024
# Whatever was put in the lock file's place is neither followed nor waited for.
_NO_SURPRISES: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


class GuardLock(Protocol):
    """A lock that dies with its holder. Not re-entrant; one holder in all processes and machines."""

    def try_acquire(self, holder: str) -> bool:
        """Take the lock if nobody has it, and leave ``holder`` behind for those who then wait."""
        ...

    def release(self) -> None:
        """Give the lock up."""

    def held_by(self) -> str | None:
        """Who took it last, when that can be told."""


class FileGuardLock:
    """An operating system's lock on a file that is never removed: removing it would let two hold "the" lock.

    Args:
        path: The lock file; its folder is made when it is not there.
        access: Whom the file and its folder are for, when they are made.
    """

    def __init__(self, path: Path, access: Access = OWNER_ALONE) -> None:
        self._path = path
        self._access = access
        self._lock = FileLock(
            path,
            mode=access.file_mode,
            thread_local=False,
            fallback_to_soft=False,
            preserve_lock_file=True,
        )

    def try_acquire(self, holder: str) -> bool:
        try:
            make_private_folder(self._path.parent, self._access)
            make_private_file(self._path, self._access)
            self._lock.acquire(blocking=False)
        except Timeout:
            return False
        except (OSError, NotImplementedError) as error:
            raise LedgerStorageError(
                f"lock {one_line(self._path)}: {one_line(error)}; the ledger's folder must allow lock files"
            ) from error
        # The note serves an error message alone, so not being able to leave it harms nobody.
        with contextlib.suppress(OSError), self._note(os.O_RDWR) as fd:
            os.ftruncate(fd, 0)
            os.write(fd, holder.encode(errors="replace")[:_NOTE_BYTES])
        return True

    def release(self) -> None:
        self._lock.release()

    def held_by(self) -> str | None:
        try:
            with self._note(os.O_RDONLY) as fd:
                return os.read(fd, _NOTE_BYTES).decode(errors="replace") or None
        except OSError:
            return None

    @contextlib.contextmanager
    def _note(self, how: int) -> Iterator[int]:
        fd = os.open(self._path, how | _NO_SURPRISES)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
                raise OSError(f"{self._path} is no lock file of ours")
            yield fd
        finally:
            os.close(fd)
