"""The URL of a ledger in a SQLite file, and the file that it names: byte for byte, so that no two files share a URL.

A file name is any bytes without NUL. Each may be written as ``%XX``; ``%``, ``?`` and ``#`` of a name must be.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, quote, unquote_to_bytes

from ledger.one_line import one_line

__all__ = ["SQLiteAddress", "sqlite_url"]

_SCHEME: Final = "sqlite:///"


class SQLiteAddress(NamedTuple):
    """What a ``sqlite:///`` URL says.

    Attributes:
        path: The file.
        options: What stands behind the ``?``, by name.
    """

    path: Path
    options: Mapping[str, str]

    @classmethod
    def parse(cls, url: str) -> "SQLiteAddress | None":
        """Read a URL; ``None`` when it names no SQLite file.

        Raises:
            ValueError: It names one that cannot be, or holds a ``#``, which hides what follows it from other readers.
        """
        # Not by urllib, which drops line breaks and tabs: two file names would become one.
        if url[: len(_SCHEME)].lower() != _SCHEME:
            return None
        named, _, query = url[len(_SCHEME) :].partition("?")
        if "#" in url:
            raise ValueError(f"ledger URL {one_line(url)}: write the # of a file name as %23")
        try:
            name = os.fsdecode(unquote_to_bytes(os.fsencode(named)))
        except UnicodeError:
            raise ValueError(f"ledger URL {one_line(url)}: it holds a character that no file name can hold") from None
        if "\0" in name:
            raise ValueError(f"ledger URL {one_line(url)}: a file name holds no NUL")
        return cls(Path(name), dict(parse_qsl(query, keep_blank_values=True))) if name else None


def sqlite_url(path: str | os.PathLike[str]) -> str:
    """The URL of a file, whatever bytes its name has.

    Raises:
        ValueError: The name holds a character that no file name can hold.
    """
    return f"{_SCHEME}{quote(os.fsencode(path))}"
