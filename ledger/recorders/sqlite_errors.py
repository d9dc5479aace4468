"""What SQLite's driver and the operating system raise about a ledger's file, as one error that says what to do."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ledger.errors import LedgerStorageError, NotALedger
from ledger.one_line import one_line
from ledger.recorders.sqlite_connections import BUSY_TIMEOUT_S

__all__ = ["DAMAGE", "sqlite_storage_error", "sqlite_storage_errors"]

DAMAGE: Final = (sqlite3.Error, UnicodeDecodeError)
"""What a damaged file makes the driver raise. Messages that quote damaged bytes fail to be decoded themselves."""

_ADVICE: Final = {
    sqlite3.SQLITE_FULL: "the disk is full; free some space and try again, nothing was recorded",
    sqlite3.SQLITE_READONLY: "the file is read-only for this process; check its permissions, nothing was recorded",
    sqlite3.SQLITE_BUSY: f"other writers held the file for {BUSY_TIMEOUT_S} s; find which; nothing was recorded",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; keep it aside and restore a backup",
    sqlite3.SQLITE_NOTADB: "the file is no SQLite database; point --db at a ledger",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened; check that its folder exists and may be written",
    sqlite3.SQLITE_IOERR: "reading or writing failed; check the disk, nothing is known to be recorded",
}


def sqlite_storage_error(path: Path, error: Exception) -> LedgerStorageError:
    """What an error means for the user.

    Args:
        path: The ledger's file.
        error: What was raised.
    """
    code = getattr(error, "sqlite_errorcode", None)
    advice = _ADVICE.get(code & 0xFF) if isinstance(code, int) else getattr(error, "strerror", None)
    kind = NotALedger if isinstance(code, int) and code & 0xFF == sqlite3.SQLITE_NOTADB else LedgerStorageError
    return kind(f"ledger {one_line(path)}: {advice or error}")


@contextlib.contextmanager
def sqlite_storage_errors(path: Path) -> Iterator[None]:
    """Raise what the block meets as the error for it.

    Raises:
        NotALedger: The file is no database.
        LedgerStorageError: It cannot be used.
    """
    try:
        yield
    except (*DAMAGE, OSError) as error:
        raise sqlite_storage_error(path, error) from error
