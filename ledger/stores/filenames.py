"""The file name of a lease key: readable, and never that of another key, whatever the disk.

``dev:openai:work`` becomes ``dev,openai,work.json``. Names are made of ``a-z 0-9 - _ . , +`` alone, so a disk
that ignores case cannot join two of them: an upper-case letter is written in lower case behind a ``+``
(``Dev`` becomes ``+dev``). No name begins with a dot, or with a device name of Windows before its first dot:
there that dot has a ``+`` before it (``..`` becomes ``+..``, ``con.eu`` becomes ``con+.eu``). A name that
would be longer than 120 characters is cut and ends in ``~`` and the SHA-256 of the key, since many disks take
255 bytes and some 143.
"""

import hashlib
import re
from functools import lru_cache
from typing import Final

from ledger.keys import IdentityError, LeaseKey

__all__ = ["TOKEN_FILE_NAME_MAX", "is_shortened", "key_of_file_name", "token_file_name"]

TOKEN_FILE_NAME_MAX: Final = 120
"""Characters, each one byte. Leaves room for what stands before and after it in the names of auxiliary
files."""

_SUFFIX: Final = ".json"
_HASH_MARK: Final = "~"
_READABLE_PART: Final = TOKEN_FILE_NAME_MAX - len(_SUFFIX) - len(_HASH_MARK) - 64
_UPPER: Final = re.compile("[A-Z]")
_MARKED: Final = re.compile(r"\+([a-z.])")
_SHORTENED: Final = re.compile(
    rf"[a-z0-9+_-][a-z0-9+_.,-]{{{_READABLE_PART - 1}}}{_HASH_MARK}[0-9a-f]{{64}}{re.escape(_SUFFIX)}"
)
_DEVICES: Final = frozenset(
    {"con", "prn", "aux", "nul", *(f"{port}{digit}" for port in ("com", "lpt") for digit in range(10))}
)


@lru_cache(maxsize=1024)
def token_file_name(key: LeaseKey) -> str:
    """The name of the file that holds the tokens of a key, without its folder."""
    text = str(key)
    stem = _UPPER.sub(lambda letter: "+" + letter[0].lower(), text.replace(":", ","))
    before_dot, dot, rest = stem.partition(".")
    if dot and (not before_dot or before_dot in _DEVICES):
        stem = f"{before_dot}+.{rest}"
    if len(stem) + len(_SUFFIX) > TOKEN_FILE_NAME_MAX:
        stem = f"{stem[:_READABLE_PART]}{_HASH_MARK}{hashlib.sha256(text.encode()).hexdigest()}"
    return stem + _SUFFIX


def is_shortened(name: str) -> bool:
    """Whether a file name holds only the beginning of its key, so that the key must be read from the file."""
    return _SHORTENED.fullmatch(name) is not None


def key_of_file_name(name: str) -> LeaseKey | None:
    """The key whose tokens a file of this name holds; ``None`` for a shortened name and any other file's."""
    stem = name.removesuffix(_SUFFIX)
    text = _MARKED.sub(lambda mark: mark[1].upper(), stem)
    try:
        key = LeaseKey.parse(text.replace(",", ":"))
    except IdentityError:
        return None
    return key if token_file_name(key) == name else None
