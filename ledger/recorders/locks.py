"""The lock that one lease has among all processes that share its ledger."""

import contextlib
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from ledger.errors import LedgerStorageError

__all__ = ["FileGuardLock", "GuardLock"]


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
        path: The lock file; its folder is made, for the owner alone, when it is not there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = FileLock(
            path,
            mode=0o600,
            thread_local=False,
            fallback_to_soft=False,
            preserve_lock_file=True,
        )

    def try_acquire(self, holder: str) -> bool:
        try:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            self._lock.acquire(blocking=False)
        except Timeout:
            return False
        except (OSError, NotImplementedError) as error:
            raise LedgerStorageError(
                f"lock {self._path}: {error}; the ledger's folder must allow lock files"
            ) from error
        # The note serves an error message alone, so not being able to leave it harms nobody.
        with contextlib.suppress(OSError):
            self._path.write_text(holder)
        return True

    def release(self) -> None:
        self._lock.release()

    def held_by(self) -> str | None:
        try:
            return self._path.read_text() or None
        except OSError:
            return None
