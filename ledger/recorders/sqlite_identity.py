"""Whose ledger a SQLite file is, read from a file that may hold anything."""

import sqlite3
from pathlib import Path

from ledger.errors import NotALedger
from ledger.one_line import one_line
from ledger.recorders.schema import FORMAT

__all__ = ["read_identity"]


def read_identity(connection: sqlite3.Connection, path: Path) -> str | None:
    """The id of the ledger in a file; ``None`` for a file in which nothing was ever made.

    Args:
        connection: Leads to the file.
        path: The file, for messages.

    Raises:
        NotALedger: It holds something else, a ledger whose identity is damaged, or one that needs a newer version.
    """
    # Before the tables: whoever creates the ledger meanwhile makes tables and pages at once, and is no damage.
    holds_data = _holds_data(connection)
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if not tables and holds_data:
        raise NotALedger(
            f"{one_line(path)} holds data but no table: it is another database, or damaged; keep it aside and restore "
            "a backup, or point --db at another file"
        )
    if not tables:
        return None
    if "ledger_meta" not in tables:
        raise NotALedger(f"{one_line(path)} is a SQLite database but holds no lease ledger; point --db at another file")
    rows = connection.execute("SELECT ledger_id, lowest_reader FROM ledger_meta").fetchmany(2)
    if len(rows) != 1:
        raise _damaged(path, f"its table ledger_meta holds {'more than one row' if rows else 'no row'}")
    ((ledger_id, lowest_reader),) = rows
    if not isinstance(ledger_id, str) or not isinstance(lowest_reader, int):
        raise _damaged(path, "its table ledger_meta holds values of another type")
    if lowest_reader > FORMAT:
        raise NotALedger(
            f"{one_line(path)} was written in a format that needs reader version {lowest_reader}, "
            f"and this is version {FORMAT}; upgrade lease-ledger"
        )
    return ledger_id


def _holds_data(connection: sqlite3.Connection) -> bool:
    # A ledger's first page may be damaged so that it lists nothing: what lies behind it must not be written over.
    ((pages,),) = connection.execute("PRAGMA page_count").fetchall()
    ((application_id,),) = connection.execute("PRAGMA application_id").fetchall()
    return bool(pages > 1 or application_id)


def _damaged(path: Path, what: str) -> NotALedger:
    return NotALedger(
        f"{one_line(path)}: whose ledger it is cannot be told, {what}; keep the file aside and restore a backup"
    )
