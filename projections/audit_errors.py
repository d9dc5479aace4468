"""Why an audit file cannot be used, split by what can be done about it."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ledger.errors import LedgerStorageError
from ledger.one_line import one_line

__all__ = ["AuditFileDamaged", "AuditFileError", "AuditFileHeld", "audit_errors", "audit_file_error"]


class AuditFileError(LedgerStorageError):
    """The audit file cannot be used. The ledger is not concerned: the file can always be made anew."""


class AuditFileDamaged(AuditFileError):
    """The audit file's contents cannot be relied on. It has to be removed or rebuilt."""


class AuditFileHeld(AuditFileError):
    """The audit file is out of reach for now: others hold it, or it may not be written. A copy would do."""


_DAMAGED: Final = "it is damaged; remove it and ask again, everything in it is made anew from the ledger"
_UNEXPECTED: Final = (
    "it does not hold what an audit file holds; 'lease-ledger rebuild' makes everything in it anew from the ledger, "
    "and so does removing it"
)
_HELD: Final = {
    sqlite3.SQLITE_BUSY: "others hold it; find who has it open, or ask again",
    sqlite3.SQLITE_LOCKED: "others hold it; find who has it open, or ask again",
    sqlite3.SQLITE_PROTOCOL: "others hold it; find who has it open, or ask again",
    sqlite3.SQLITE_READONLY: "it may not be written; check the permissions of it and its -wal and -shm files",
    sqlite3.SQLITE_PERM: "it may not be opened; check the permissions of it and its -wal and -shm files",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; check the permissions of it and its -wal and -shm files",
}
_FAILED: Final = {
    sqlite3.SQLITE_FULL: "the disk is full; free some space and ask again",
    sqlite3.SQLITE_IOERR: "reading or writing failed; check the disk, or remove the file and ask again",
    sqlite3.SQLITE_NOMEM: "there is too little memory to read it",
}
_WRONG: Final = {
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: "it is no SQLite database; move it away and ask again",
}


def audit_file_error(path: Path | None, error: Exception) -> AuditFileError:
    """What SQLite raised, as an error that says what to do."""
    where = f"audit file {'in memory' if path is None else one_line(path)}"
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in _HELD:
        return AuditFileHeld(f"{where}: {_HELD[code]}")
    if code in _FAILED:
        return AuditFileError(f"{where}: {_FAILED[code]}")
    return AuditFileDamaged(f"{where}: {_WRONG.get(code, _UNEXPECTED)}")


@contextlib.contextmanager
def audit_errors(path: Path | None) -> Iterator[None]:
    """Turn what SQLite raises into an error that says what to do. Texts that are damaged fail to be decoded."""
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise audit_file_error(path, error) from error
