"""Files that are read whole: regular ones of a bounded size, so that no pipe, device or mistaken name keeps anybody."""

import os
import stat
import sys
from pathlib import Path
from typing import BinaryIO, Final

from ledger.errors import LeaseLedgerError

__all__ = ["InputRefused", "NoSuchInput", "open_input", "read_input", "read_standard_input"]

_OPEN: Final = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)

_STANDARD: Final = "standard input"


class InputRefused(LeaseLedgerError, OSError):
    """A file cannot be read, or is none that could be what was asked for. Nothing of it was used.

    Attributes:
        path: The file.
        reason: What is wrong with it, in words.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class NoSuchInput(InputRefused, FileNotFoundError):
    """There is no such file."""


def open_input(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading. Never waits, as opening a pipe would.

    Raises:
        InputRefused: It is not there, no regular file, or may not be read.
    """
    shown = str(Path(path))
    try:
        fd = os.open(path, _OPEN)
    except FileNotFoundError:
        raise NoSuchInput(shown, "it does not exist; name a file that can be read") from None
    except (OSError, ValueError) as error:
        raise InputRefused(shown, _words(error)) from None
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise InputRefused(shown, "it is a folder; name a file")
        if not stat.S_ISREG(mode):
            raise InputRefused(shown, "it is no regular file; name one, or '-' for standard input")
        return os.fdopen(fd, "rb")
    except BaseException:
        os.close(fd)
        raise


def read_input(path: str | os.PathLike[str], *, most_bytes: int) -> bytes:
    """The contents of a regular file.

    Args:
        path: The file.
        most_bytes: A longer one is some other file, and not read.

    Raises:
        InputRefused: It is not there, no regular file, too long, or cannot be read.
    """
    with open_input(path) as file:
        if os.fstat(file.fileno()).st_size > most_bytes:
            raise _too_long(str(Path(path)), most_bytes)
        return _read_bounded(file, str(Path(path)), most_bytes)


def read_standard_input(*, most_bytes: int) -> bytes:
    """What is left on standard input, which need not end.

    Raises:
        InputRefused: It is closed, longer than ``most_bytes``, or cannot be read.
    """
    # There is none where the process was started with it closed.
    if sys.stdin is None:
        raise InputRefused(_STANDARD, "it is closed; name a file, or pipe something in")
    return _read_bounded(sys.stdin.buffer, _STANDARD, most_bytes)


def _read_bounded(file: BinaryIO, shown: str, most_bytes: int) -> bytes:
    # A file may tell its length wrong.
    try:
        data = file.read(most_bytes + 1)
    except OSError as error:
        raise InputRefused(shown, _words(error)) from None
    if len(data) > most_bytes:
        raise _too_long(shown, most_bytes)
    return data


def _too_long(shown: str, most_bytes: int) -> InputRefused:
    return InputRefused(shown, f"it is longer than {most_bytes / 1024 / 1024:,.0f} MiB: that is some other file")


def _words(error: Exception) -> str:
    strerror = getattr(error, "strerror", None)
    return (
        f"it cannot be read ({strerror}); name a file that can be read"
        if strerror
        else "this is no file name; name a file"
    )
