"""Fetching rows of a SQLite file in which text may be no text.

Python's SQLite module fails a whole result for one text that is no UTF-8, and does not say which. So the result is
fetched once more with such texts left as the bytes they are: whoever takes the rows can then name the one at fault.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any

__all__ = ["fetch"]


def fetch(connection: sqlite3.Connection, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """All rows of a query, with ``bytes`` where text is stored that is no UTF-8.

    Args:
        connection: One that nobody else uses meanwhile.
        query: What to read; it changes nothing.
        parameters: What its places hold.

    Raises:
        sqlite3.Error: The file cannot be read.
        UnicodeDecodeError: The same, with a message that quotes damaged bytes.
    """
    try:
        return connection.execute(query, parameters).fetchall()
    except sqlite3.OperationalError as error:
        # SQLite itself has no such failure, and so no number for it; what it has one for may have taken its time.
        if getattr(error, "sqlite_errorcode", None) is not None:
            raise
        connection.text_factory = _text_where_it_is
        try:
            return connection.execute(query, parameters).fetchall()
        finally:
            connection.text_factory = str


def _text_where_it_is(stored: bytes) -> str | bytes:
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return stored
