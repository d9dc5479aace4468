"""A lock between processes, for the moment of one read, compare and rename."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from filelock import FileLock, Timeout

from ledger.one_line import one_line
from ledger.store_errors import TokenStoreUnavailable
from ledger.stores.private_files import os_errors_as_store_errors

__all__ = ["LOCK_TIMEOUT_SECS", "held_lock"]

LOCK_TIMEOUT_SECS: Final = 30.0
"""Seconds a writer waits for the others. Each holds the lock for a few disk syncs, so only a stuck one uses
them up."""

_POLL_SECS: Final = 0.005
_NO_LOCKS: Final = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP})


@contextmanager
def held_lock(path: str, *, timeout: float) -> Iterator[None]:
    """Hold the operating system's lock on a file that exists for nothing else, in this thread alone.

    The lock dies with its holder, so a killed process blocks nobody. The file is 0600, empty, and never
    removed: two processes would then lock two files of one name. Not re-entrant.

    Args:
        path: The lock file; its folder must exist.
        timeout: Seconds to wait.

    Raises:
        TokenStoreUnavailable: Another holds it for longer than that, or the file system has no locks.
        TokenPermissionDenied: The lock file may not be opened.
        TokenIOError: Locking failed.
    """
    lock = FileLock(
        path,
        timeout=timeout,
        mode=0o600,
        poll_interval=_POLL_SECS,
        fallback_to_soft=False,
        preserve_lock_file=True,
    )
    with os_errors_as_store_errors("lock", path):
        try:
            lock.acquire()
        except Timeout:
            raise TokenStoreUnavailable(
                f"another process or thread has held the lock {one_line(path)} for more than {timeout:g} seconds"
            ) from None
        except OSError as error:
            if error.errno in _NO_LOCKS:
                raise TokenStoreUnavailable(f"the file system of {one_line(path)} has no locks") from error
            raise
    try:
        yield
    finally:
        with os_errors_as_store_errors("unlock", path):
            lock.release()
