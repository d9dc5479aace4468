"""From a path to the one file that a SQLite ledger is, and what can be done with it by this process.

SQLite names its log and its shared memory after the path it was given, and so do the locks beside a ledger. One file
under two names would be two ledgers that overwrite each other: links are resolved, and a second hard link is refused.

A file that this process may not write is read as it is when no write-ahead log lies beside it: then nobody has it open,
and SQLite needs to write nothing beside it. ``FileIdentity`` notices when somebody begins to write it after all.
"""

import contextlib
import errno
import os
import stat
from enum import Enum
from pathlib import Path
from typing import Final
from urllib.parse import quote

from ledger.errors import LedgerStorageError, NotALedger
from ledger.one_line import one_line
from ledger.recorders.access import OWNER_ALONE, Access, access_like, make_private_file
from ledger.recorders.sqlite_log_fit import refuse_unfitting_log

__all__ = ["Reach", "prepare", "real_file", "refuse_second_name", "share_side_files", "sqlite_uri"]

_LONGEST_PATH_BYTES: Final = 504
"""What SQLite takes on POSIX systems, less the longest name it appends."""

_LONGEST_NAME_BYTES: Final = 255 - len(".fingerprint-key")

_KINDS: Final = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def real_file(path: Path) -> Path:
    """The file that a path leads to through all links, whether or not it is there yet. Opens nothing.

    Raises:
        NotALedger: What is there is no regular file.
        LedgerStorageError: The path leads nowhere, is too long, or the file has a second name.
    """
    real = Path(os.path.realpath(path))
    try:
        found = real.stat()
    except FileNotFoundError:
        if path.is_symlink():
            raise LedgerStorageError(
                f"ledger {one_line(path)}: the symbolic link leads to {one_line(real)}, where there is nothing; "
                "mend the link, or name the file itself"
            ) from None
    except OSError as error:
        reason = "symbolic links lead round in a circle" if error.errno == errno.ELOOP else error.strerror
        raise LedgerStorageError(f"ledger {one_line(path)}: cannot be opened: {reason}") from error
    else:
        if not stat.S_ISREG(found.st_mode):
            kind = _KINDS.get(stat.S_IFMT(found.st_mode), "no file")
            raise NotALedger(f"ledger {one_line(real)}: it is {kind} and cannot be opened; name a file")
        refuse_second_name(real, found)
    if os.name == "posix" and len(os.fsencode(real)) > _LONGEST_PATH_BYTES:
        raise LedgerStorageError(
            f"ledger {one_line(real)}: the path is longer than the {_LONGEST_PATH_BYTES} bytes that SQLite takes; "
            "use a shorter one"
        )
    return real


def refuse_second_name(path: Path, found: os.stat_result) -> None:
    """Make sure that a ledger's file has one name alone.

    Raises:
        LedgerStorageError: It has several; events written by one name would be lost by the other.
    """
    if found.st_nlink > 1:
        raise LedgerStorageError(
            f"ledger {one_line(path)}: the file has {found.st_nlink} names (hard links), and writing by two of them "
            "loses events; remove all but one, or replace one by a copy made with 'lease-ledger backup'"
        )


class Reach(Enum):
    """What a process can do with a ledger's file; the value is what SQLite's address of the file needs for it.

    * ``WRITE``: all.
    * ``READ``: read, beside others who may be writing.
    * ``UNCHANGING``: read, as long as nobody writes.
    """

    WRITE = ""
    READ = "?mode=ro"
    UNCHANGING = "?mode=ro&immutable=1"


def sqlite_uri(path: Path, reach: Reach) -> str:
    """A file as SQLite's own address, whatever bytes its name has."""
    return f"file:{quote(os.fsencode(path))}{reach.value}"


def prepare(path: Path, access: Access = OWNER_ALONE) -> Reach:
    """Do what comes before the first connection: make the file if there is none, and look at what lies beside it.

    Args:
        path: The file, from :func:`real_file`.
        access: Whom a file that is made is for. SQLite gives what it makes beside it the same mode.

    Raises:
        LedgerStorageError: The file cannot be made, or its write-ahead log is not its own or cannot be read.
    """
    if not path.exists():
        _make(path, access)
    reach = _reach(path)
    if _has_log(path):
        refuse_unfitting_log(path)
    return reach


def share_side_files(path: Path) -> None:
    """Give the log and the shared memory of a shared ledger to the group of its file, as far as they are ours.

    SQLite makes them with the file's mode, but with the group of whoever is first.
    """
    with contextlib.suppress(OSError):
        access = access_like(path)
        if access.group is not None:
            for ending in ("-wal", "-shm"):
                beside = Path(f"{path}{ending}")
                if beside.stat().st_gid != access.group:
                    os.chown(beside, -1, access.group, follow_symlinks=False)


def _make(path: Path, access: Access) -> None:
    if _has_log(path):
        raise LedgerStorageError(
            f"ledger {one_line(path)}: the file is gone, but its write-ahead log {one_line(path.name)}-wal is there "
            "and may hold events; put the file back, or move the log and -shm away to make a new ledger"
        )
    try:
        if len(os.fsencode(path.name)) > _LONGEST_NAME_BYTES:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        # SQLite would make it open to others.
        make_private_file(path, access)
    except OSError as error:
        raise LedgerStorageError(
            f"ledger {one_line(path)}: the file cannot be opened ({error.strerror}); "
            "check that its folder exists and may be written"
        ) from error


def _has_log(path: Path) -> bool:
    try:
        return Path(f"{path}-wal").stat().st_size > 0
    except OSError:
        return False


def _reach(path: Path) -> Reach:
    if _may(path, os.W_OK) and (_may(path.parent, os.W_OK | os.X_OK) or Path(f"{path}-wal").exists()):
        return Reach.WRITE
    if not Path(f"{path}-wal").exists():
        return Reach.UNCHANGING
    if not Path(f"{path}-shm").exists() and not _may(path.parent, os.W_OK | os.X_OK):
        raise LedgerStorageError(
            f"ledger {one_line(path)}: it was not closed in good order, and its write-ahead log cannot be read where "
            f"this process may write nothing; copy it and {one_line(path.name)}-wal to another folder and open it there"
        )
    return Reach.READ


def _may(path: Path, what: int) -> bool:
    return os.access(path, what, effective_ids=os.access in os.supports_effective_ids)
