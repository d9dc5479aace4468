"""An audit file as SQLite sees it: its objects, its header and its pages, held against what this version writes."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from ledger.verification import Finding
from projections.audit_objects import alterations
from projections.witness_findings import about_object

__all__ = ["object_findings", "page_findings", "unless_damaged"]

MOST_LINES: Final = 10


def object_findings(connection: sqlite3.Connection) -> Iterator[Finding]:
    """Tables, indexes, views and triggers that are not as this version writes them.

    Args:
        connection: In a read transaction.
    """
    yield from unless_damaged("the schema", "sqlite_schema", lambda: _objects(connection))


def page_findings(connection: sqlite3.Connection) -> Iterator[Finding]:
    """Damaged pages, indexes that do not lead where their tables say, and a header that no version writes.

    Args:
        connection: In a read transaction.
    """
    yield from unless_damaged("the header", "user_version", lambda: _header(connection))
    yield from unless_damaged("the pages", "pages", lambda: _pages(connection))


def unless_damaged(what: str, name: str, look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """What a look finds; that it cannot be had, where the file is too damaged for it."""
    try:
        yield from look()
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        yield about_object(f"{what} of it cannot be read ({type(error).__name__})", name)


def _objects(connection: sqlite3.Connection) -> Iterator[Finding]:
    for found in alterations(connection):
        yield about_object(found.detail, found.name)


def _header(connection: sqlite3.Connection) -> Iterator[Finding]:
    ((stored,),) = connection.execute("PRAGMA user_version").fetchall()
    if stored != 0:
        yield about_object(f"user_version in the file's header is {stored}, not 0", "user_version")


def _pages(connection: sqlite3.Connection) -> Iterator[Finding]:
    if not _lines(connection, "1"):
        return
    named = connection.execute("SELECT name FROM sqlite_schema WHERE type IN ('table', 'index')").fetchall()
    tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    names = sorted((name for (name,) in named), key=len, reverse=True)
    told = False
    for (table,) in tables:
        quoted = table.replace('"', '""')
        for line in _lines(connection, f'"{quoted}"')[:MOST_LINES]:
            told = True
            # SQLite names an index whose entries are wrong: that is at fault, else the table it was asked of.
            yield about_object(f"{table}: {line}", next((name for name in names if name in line.split()), table))
    if not told:
        for line in _lines(connection, str(MOST_LINES)):
            yield about_object(f"a page is damaged: {line}", "pages")


def _lines(connection: sqlite3.Connection, of: str) -> list[str]:
    found = [text for (text,) in connection.execute(f"PRAGMA integrity_check({of})")]
    return [] if found == ["ok"] else [line for text in found for line in text.splitlines() if line[:3] != "***"]
