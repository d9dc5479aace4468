"""What a command writes, and to whom: every line is safe to show and fits the encoding of the stream it goes to."""

import codecs
import shutil
import sys
from typing import Any, Final, TextIO

from projections.printable import encodable, printable, printable_json, to_printable_json

__all__ = [
    "TerminalLines",
    "fitting",
    "is_terminal",
    "terminal_width",
    "write_document",
    "write_json",
    "write_line",
    "write_shown",
]

_DEFAULT_SIZE: Final = (80, 24)


def write_line(text: str, *, err: bool = False) -> None:
    """A line for people, to standard output or standard error."""
    write_shown(fitting(printable(text), sys.stderr if err else sys.stdout), err=err)


def write_shown(line: str, *, err: bool = False) -> None:
    """A line that is safe to show already."""
    _write(sys.stderr if err else sys.stdout, line)


def write_json(value: Any, *, err: bool = False) -> None:
    """A value as one line of JSON."""
    stream = sys.stderr if err else sys.stdout
    _write(stream, to_printable_json(value, ascii_only=_encoding(stream) != "utf-8"))


def write_document(document: str) -> None:
    """JSON that is text already, its line breaks kept, to standard output."""
    _write(sys.stdout, printable_json(document, ascii_only=_encoding(sys.stdout) != "utf-8"))


def fitting(text: str, stream: TextIO | None) -> str:
    """The text with what the stream's encoding lacks written as escapes."""
    return text if text.isascii() else encodable(text, _encoding(stream))


def is_terminal() -> bool:
    """Whether a person sees standard output."""
    stream: TextIO | None = sys.stdout
    return stream is not None and stream.isatty()


def terminal_width() -> int:
    """Columns of the terminal: what ``COLUMNS`` says, else the terminal itself, else 80."""
    return shutil.get_terminal_size(_DEFAULT_SIZE).columns


class TerminalLines:
    """A text file for whoever writes lines of data to standard output while a person looks on.

    Args:
        is_json: Whether the lines are JSON, whose escapes are its own.
    """

    def __init__(self, *, is_json: bool) -> None:
        self._is_json = is_json

    def write(self, line: str) -> int:
        """Show one line, or several; what ends them is kept."""
        if self._is_json:
            write_document(line.removesuffix("\n"))
        else:
            write_line(line.removesuffix("\n").removesuffix("\r"))
        return len(line)


def _write(stream: TextIO | None, line: str) -> None:
    # There is no stream where the process was started with it closed.
    if stream is not None:
        stream.write(f"{line}\n")


def _encoding(stream: TextIO | None) -> str:
    # A stream in memory has no encoding: it takes any text.
    named: str | None = None if stream is None else stream.encoding
    return codecs.lookup(named or "utf-8").name
