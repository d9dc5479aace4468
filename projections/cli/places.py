"""Where the ledger and the tokens are, as ``--db`` and ``--store`` say it, looked at before anything is opened.

A command that only looks must not make what it looks for: no file, no folder, no table.
"""

import os
import re
from pathlib import Path
from typing import Final

import click

from ledger.addresses import split_address, without_password
from ledger.one_line import one_line
from ledger.recorders.sqlite_address import SQLiteAddress, sqlite_url
from ledger.recorders.sqlite_opening import real_file
from ledger.store_errors import TokenStoreUnavailable
from projections.cli.error_codes import NoLedgerThere

__all__ = ["database_url", "ledger_url", "looks_like_an_address", "token_folder"]

_POSTGRES: Final = ("postgresql", "postgres")
_MEMORY_URLS: Final = ("sqlite://", "sqlite:///")
_LIKE_AN_ADDRESS: Final = re.compile(r"\s*(?:postgres\w*|mysql|mariadb|sqlite):|[^/]*:[^@]*@", re.IGNORECASE)
_EXPECTED: Final = "a ledger is a path, sqlite:///auth.db or postgresql://user@host/database"
_IN_MEMORY: Final = f"this names no file, and a ledger in memory would end with the command; {_EXPECTED}."


def ledger_url(db: str, *, create: bool) -> str:
    """The URL to open a ledger by.

    Args:
        db: A path or a URL.
        create: Whether the ledger may be made.

    Raises:
        click.UsageError: It is neither, or names a ledger that would end with the command.
        NoLedgerThere: There is no such file, and it may not be made.
        NotALedger: What is there is no regular file.
    """
    if db == ":memory:":
        raise click.UsageError(_IN_MEMORY)
    if "://" not in db:
        path = Path(db)
        if looks_like_an_address(db) and not path.exists():
            raise click.UsageError(f"this is no path, and no address: {_EXPECTED}.")
        _look_at(path, create=create)
        return sqlite_url(db)
    try:
        file = SQLiteAddress.parse(db)
        scheme = split_address(db).scheme
    except ValueError as error:
        raise click.UsageError(f"{error}.") from None
    if scheme in _POSTGRES:
        return database_url(db, create=create)
    if db in _MEMORY_URLS or scheme == "memory" or (file is not None and str(file.path) == ":memory:"):
        raise click.UsageError(_IN_MEMORY)
    if file is None:
        raise click.UsageError(f"unknown ledger URL {without_password(db)}: {_EXPECTED}.")
    _look_at(file.path, create=create)
    return db


def looks_like_an_address(text: str) -> bool:
    """Whether a text without ``://`` is one that lost it, and may hold a password, rather than a path."""
    return _LIKE_AN_ADDRESS.match(text) is not None


def database_url(url: str, *, create: bool) -> str:
    """A ``postgresql://`` URL by which tables are made only if they may be."""
    if create:
        return url
    without = re.sub(r"(?<=[?&])create=[^&]*&?", "", url)
    return f"{without}{'&' if '?' in without else '?'}create=no"


def token_folder(store: str, *, create: bool) -> str:
    """The folder of the token files.

    Raises:
        click.UsageError: It is no path.
        TokenStoreUnavailable: It is not there and may not be made, or what is there is no folder.
    """
    folder = Path(store)
    if looks_like_an_address(store) and not folder.is_dir():
        raise click.UsageError("this is no folder, and no address: tokens are in a folder or postgresql://...")
    if "\0" in store:
        raise click.UsageError("a path holds no NUL character.")
    if folder.is_dir() or (create and not os.path.lexists(folder)):
        return store
    if os.path.lexists(folder):
        raise TokenStoreUnavailable(f"{one_line(store)} is no folder; point --store at the folder of the tokens")
    raise TokenStoreUnavailable(f"there is no token folder {one_line(store)}; point --store at the one in use")


def _look_at(path: Path, *, create: bool) -> None:
    if "\0" in str(path):
        raise click.UsageError("a path holds no NUL character.")
    real = real_file(path)
    # An empty file is what a killed creation leaves, or a mistake; opening it would make a ledger of it.
    if not create and (not real.exists() or real.stat().st_size == 0):
        raise NoLedgerThere(
            f"there is no ledger at {one_line(path)}; point --db at one, or make it with 'lease-ledger login'"
        )
