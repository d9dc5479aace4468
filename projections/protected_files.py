"""Which files no output may ever take the place of, told by what is in them and by what lies beside them.

A ledger, an audit file, tokens and locks have one thing in common: whatever is written over them cannot be had back.
So nothing here asks what somebody meant.
"""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ledger.store_errors import TokenSerializationError
from ledger.stores.stored_form import keys_named_in
from ledger.tokens import PersistedTokens

__all__ = ["LONGEST_TOKENS_BYTES", "read_regular", "why_no_place", "why_protected"]

_SQLITE: Final = b"SQLite format 3\0"
LONGEST_TOKENS_BYTES: Final = 4 * 1024 * 1024
"""Whatever is longer is no set of tokens."""

_OPEN: Final = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)

_BESIDE: Final = ("-wal", "-shm", "-journal", ".create-lock", ".lock", ".locks", ".fingerprint-key")
"""What is added to a database's name in the names of the files that belong to it."""


def read_regular(path: Path, most_bytes: int) -> bytes | None:
    """The beginning of a file; ``None`` when it is no regular file. Never waits, and follows no link.

    Raises:
        OSError: It cannot be read.
    """
    fd = os.open(path, _OPEN)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        with open(fd, "rb", closefd=False) as file:  # a descriptor, checked before it is read
            return file.read(most_bytes)
    finally:
        os.close(fd)


def why_no_place(target: Path) -> str | None:
    """Why nothing may be written under this name, be it there or not; ``None`` when something may.

    Args:
        target: Absolute path, its folder resolved.

    Raises:
        OSError: The folder cannot be looked into.
    """
    folder = target.parent
    if (folder / ".locks").is_dir():
        return f"{folder} is a token folder, which holds tokens and nothing else"
    if folder.name.endswith(".locks"):
        return f"{folder} holds locks and nothing else"
    for suffix in _BESIDE:
        if target.name.endswith(suffix) and _is_database(target.with_name(target.name.removesuffix(suffix))):
            return f"the name belongs to the database {target.name.removesuffix(suffix)} beside it"
    ledger = f"{target.stem.removesuffix('.audit')}{target.suffix}"
    if target.stem.endswith(".audit") and _is_database(target.with_name(ledger)):
        return f"the name belongs to the audit file of {ledger}"
    return None


def why_protected(target: Path) -> str | None:
    """Why the regular file that is there must stay; ``None`` when it may be replaced by who is told to.

    Raises:
        OSError: It cannot be read.
    """
    if target.name.endswith((".lock", "-lock")):
        return "it is a lock, and replacing one lets two hold it"
    data = read_regular(target, LONGEST_TOKENS_BYTES + 1)
    if data is None:
        return "it is no regular file"
    return next((reason for holds, reason in _PRECIOUS if holds(data)), None)


def _is_database(path: Path) -> bool:
    try:
        return read_regular(path, len(_SQLITE)) == _SQLITE
    except OSError:
        return False


def _is_tokens(data: bytes) -> bool:
    # Damaged tokens still name their key; tokens that other tools wrote do not, and can be read.
    if next(keys_named_in(data), None) is not None:
        return True
    try:
        PersistedTokens.from_json(data)
    except TokenSerializationError:
        return False
    return True


_PRECIOUS: Final[tuple[tuple[Callable[[bytes], bool], str], ...]] = (
    (lambda data: data.startswith(_SQLITE), "it is a SQLite database, as ledgers and audit files are"),
    (_is_tokens, "it holds tokens"),
)
