"""Every file that is written for people or for other tools: whole or not at all, and never in the place of another.

The bytes go to a file of their own in the same folder, are synced, and get their name at the end: a new one by a link,
which never replaces what somebody else put there meanwhile. An interrupt, a full disk or any other failure removes that
file again; only a kill can leave it (``.writing-...``). What is there already is replaced when it is recognised as an
earlier output of the same kind, or when the caller says so; a ledger, an audit file, tokens, a lock, a link, a device
or anything else that is no regular file never is.
"""

import contextlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from ledger.errors import LeaseLedgerError
from ledger.new_files import give_new_name
from ledger.stores.private_files import sync_folder
from projections.protected_files import read_regular, why_no_place, why_protected

__all__ = ["NoSuchFolder", "OutputRefused", "OwnKind", "checked_target", "nothing_of_ours", "output_file"]

OwnKind = Callable[[bytes], bool]
"""Whether a file that begins with these bytes is an earlier output of the same kind."""

HEAD_BYTES: Final = 4096
"""How much of a file an ``OwnKind`` gets to see."""

_CREATE: Final = (
    os.O_WRONLY
    | os.O_CREAT
    | os.O_EXCL
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_BINARY", 0)
)
_MODE: Final = 0o600
_POSIX: Final = os.name == "posix"


class OutputRefused(LeaseLedgerError, OSError):
    """Nothing was written, for it would have taken the place of something else, or there is no such folder.

    Attributes:
        path: Where it should have been written.
        reason: Why not, in words, and what to do.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class NoSuchFolder(OutputRefused, FileNotFoundError):
    """There is no such folder."""


def nothing_of_ours(head: bytes) -> bool:
    """An ``OwnKind`` for outputs that cannot be told from other files: none is replaced unasked."""
    del head
    return False


def checked_target(path: str | os.PathLike[str]) -> Path:
    """The absolute path of a file that may be made, its folder resolved; whether it is there is not looked at.

    Raises:
        OutputRefused: There is no such folder, or the name is one that only a ledger or a token store may use.
    """
    given = Path(path)
    if "\0" in str(given) or not given.name:
        raise OutputRefused(str(given), "this is no file name; name a new file")
    try:
        target = given.parent.resolve(strict=True) / given.name
        if not target.parent.is_dir():
            raise OutputRefused(str(given), "what should be its folder is none; name a file in a folder that is there")
        reason = why_no_place(target)
    except FileNotFoundError:
        raise NoSuchFolder(str(given), "its folder does not exist; make it, or name another") from None
    except (OSError, RuntimeError) as error:
        raise OutputRefused(str(given), f"{_words(error)}; name another file") from None
    if reason is not None:
        raise OutputRefused(str(given), f"{reason}; name another file")
    return target


@contextlib.contextmanager
def output_file(
    path: str | os.PathLike[str], *, own_kind: OwnKind = nothing_of_ours, overwrite: bool = False
) -> Iterator[BinaryIO]:
    """A file to write to, which gets its name when the block ends well, and goes away when it does not.

    A new file is for its owner alone (0600); one that is replaced keeps its mode.

    Args:
        path: Where it will be.
        own_kind: Recognises earlier outputs of the same kind, which are replaced.
        overwrite: Whether any other regular file may be replaced too, but for ledgers, audit files, tokens and locks.

    Raises:
        OutputRefused: Something is there that is not to be replaced, or there is no such folder. Nothing was written.
        OSError: Writing failed, as on a full disk. What was there is there still.
    """
    target = checked_target(path)
    before = _occupant(target, own_kind, overwrite)
    unfinished = target.with_name(f".writing-{secrets.token_hex(8)}")
    mode = _MODE if before is None else stat.S_IMODE(before.st_mode)
    try:
        with _named(path), open(_create(unfinished, path), "wb") as file:  # a descriptor of our own
            if _POSIX:
                os.fchmod(file.fileno(), mode)
            yield file
            file.flush()
            os.fsync(file.fileno())
        _give_name(unfinished, target, before)
    finally:
        unfinished.unlink(missing_ok=True)
    sync_folder(str(target.parent))


def _create(unfinished: Path, path: str | os.PathLike[str]) -> int:
    try:
        return os.open(unfinished, _CREATE, _MODE)
    except FileNotFoundError:
        raise NoSuchFolder(str(Path(path)), "its folder does not exist; make it, or name another") from None
    except (PermissionError, NotADirectoryError) as error:
        raise OutputRefused(str(Path(path)), f"{_words(error)}; choose a folder that may be written") from None


def _occupant(target: Path, own_kind: OwnKind, overwrite: bool) -> os.stat_result | None:
    """The file that is to be replaced; ``None`` for none."""
    try:
        found = target.lstat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OutputRefused(str(target), f"{_words(error)}; name another file") from None
    if stat.S_ISLNK(found.st_mode):
        raise OutputRefused(str(target), "it is a symbolic link; name a file, or '-' for standard output")
    if stat.S_ISDIR(found.st_mode):
        raise OutputRefused(str(target), "it is a folder; name a file in it")
    if not stat.S_ISREG(found.st_mode):
        raise OutputRefused(str(target), "it is no regular file; name a file, or '-' for standard output")
    try:
        reason = why_protected(target)
        ours = own_kind(read_regular(target, HEAD_BYTES) or b"")
    except OSError as error:
        raise OutputRefused(
            str(target), f"it is there already and cannot be looked into ({_words(error)}); name a new file"
        ) from None
    if reason is not None:
        raise OutputRefused(str(target), f"{reason}, and no output replaces one; name a new file")
    if not (ours or overwrite):
        raise OutputRefused(
            str(target), "it is there already; name a new file, or say that it is to be replaced (--force)"
        )
    return found


def _give_name(unfinished: Path, target: Path, before: os.stat_result | None) -> None:
    if before is not None:
        _refuse_unless_same(target, before)
        unfinished.replace(target)
        return
    try:
        give_new_name(unfinished, target)
    except FileExistsError:
        raise _came_meanwhile(target) from None


def _refuse_unless_same(target: Path, before: os.stat_result) -> None:
    try:
        now = target.lstat()
    except FileNotFoundError:
        return
    if (now.st_dev, now.st_ino) != (before.st_dev, before.st_ino):
        raise _came_meanwhile(target)


def _came_meanwhile(target: Path) -> OutputRefused:
    return OutputRefused(str(target), "somebody else put a file there meanwhile; name a new file")


@contextlib.contextmanager
def _named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Give what the operating system says of a descriptor the name that people know it by."""
    try:
        yield
    except LeaseLedgerError:
        raise
    except OSError as error:
        if error.filename is None and error.errno is not None and isinstance(error.strerror, str):
            raise OSError(error.errno, error.strerror, str(Path(path))) from error
        raise


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
