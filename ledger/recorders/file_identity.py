"""Noticing that the file under an open connection is not the one at its path any more.

SQLite keeps writing to a file that was replaced or removed, and everything written there is lost. That is noticed
before every write, and by readers within a hundredth of a second.
"""

import os
import time
from pathlib import Path
from typing import Final

from ledger.errors import LedgerStorageError

__all__ = ["FileIdentity"]


READERS_LOOK_EVERY_S: Final = 0.01
"""How long readers rely on the last look at the path; looking costs as much as a snapshot does."""


class FileIdentity:
    """Which file a connection was opened for.

    Args:
        path: The file; it exists.
    """

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        found = os.stat(self._path)  # noqa: PTH116  # on the way of every read and write
        self._inode, self._device = found.st_ino, found.st_dev
        self._readers_look_at = 0.0

    def check(self) -> None:
        """Make sure that the path still leads to the file.

        Raises:
            LedgerStorageError: It was replaced or removed.
        """
        self._readers_look_at = 0.0
        try:
            found = os.stat(self._path)  # noqa: PTH116
        except OSError as error:
            raise LedgerStorageError(
                f"ledger {self._path}: the file is gone ({error.strerror}); put it back or open the ledger again"
            ) from error
        if found.st_ino != self._inode or found.st_dev != self._device:
            raise LedgerStorageError(
                f"ledger {self._path}: the file was replaced while it was open; nothing was written; "
                "open the ledger again"
            )
        self._readers_look_at = time.monotonic() + READERS_LOOK_EVERY_S

    def check_now_and_then(self) -> None:
        """The same for whoever only reads, without looking again right after the last look that found all well."""
        if time.monotonic() >= self._readers_look_at:
            self.check()
