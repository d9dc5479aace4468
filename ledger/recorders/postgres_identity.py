"""What a schema in PostgreSQL holds: nothing, a ledger, or something else, and what the database holds instead."""

from typing import Final

from psycopg.sql import SQL, Identifier

from ledger.errors import NotALedger
from ledger.recorders.postgres_address import PostgresAddress
from ledger.recorders.postgres_connections import LedgerConnection

__all__ = ["FORMAT", "identity", "no_ledger"]

FORMAT: Final = 1
"""The format this version writes. A schema names the lowest format its readers must know."""

_OURS: Final = {
    "ledger_meta": {"ledger_id", "format", "lowest_reader"},
    "stored_events": {"originator_id", "originator_version", "topic", "state", "notification_id"},
    "stored_folds": {"stream", "version", "fold", "digest", "state"},
}

_COLUMNS: Final = """
    SELECT c.relname AS relation, array_agg(a.attname::text) AS columns FROM pg_class c
    LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relnamespace = to_regnamespace(%s) AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relname = ANY(%s)
    GROUP BY 1"""

_LEDGERS: Final = """
    SELECT n.nspname AS schema FROM pg_namespace n
    WHERE EXISTS (SELECT FROM pg_class WHERE relnamespace = n.oid AND relname = 'ledger_meta')
        AND EXISTS (SELECT FROM pg_class WHERE relnamespace = n.oid AND relname = 'stored_events')
    ORDER BY 1 LIMIT 4"""

_OTHERS: Final = """
    SELECT count(*) AS relations FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
        AND n.nspname NOT LIKE 'pg\\_%%'"""


def identity(connection: LedgerConnection, address: PostgresAddress) -> str | None:
    """The ledger's id; ``None`` when the schema is missing, or holds no table of a ledger's.

    Raises:
        NotALedger: The schema holds something else, a ledger that needs a newer version, or one that does not say
            which it is.
    """
    rows = connection.execute(_COLUMNS, [f'"{address.schema}"', list(_OURS)]).fetchall()
    found: dict[str, set[str]] = {row["relation"]: set(row["columns"]) for row in rows}
    if not found:
        return None
    if any(not _OURS[name] <= found.get(name, set()) for name in ("ledger_meta", "stored_events")):
        raise NotALedger(f"{address.shown} holds tables of something else; choose another schema")
    query = SQL("SELECT ledger_id, lowest_reader FROM {}.ledger_meta LIMIT 2").format(Identifier(address.schema))
    meta = connection.execute(query).fetchall()
    if len(meta) != 1 or not isinstance(meta[0]["ledger_id"], str) or not isinstance(meta[0]["lowest_reader"], int):
        raise NotALedger(
            f"{address.shown} does not say which ledger it is: table ledger_meta holds "
            f"{'something else' if len(meta) == 1 else 'two rows' if meta else 'no row'}; restore a backup"
        )
    ((ledger_id, lowest_reader),) = ((row["ledger_id"], row["lowest_reader"]) for row in meta)
    if lowest_reader > FORMAT:
        raise NotALedger(
            f"{address.shown} was written in a format that needs reader version {lowest_reader}, "
            f"and this is version {FORMAT}; upgrade lease-ledger"
        )
    return str(ledger_id)


def no_ledger(connection: LedgerConnection, address: PostgresAddress) -> NotALedger:
    """What to raise where a ledger is to be read and the schema holds none; says what the database does hold."""
    elsewhere = [row["schema"] for row in connection.execute(_LEDGERS)]
    if elsewhere:
        there = f"this database has one in schema {', '.join(elsewhere[:3])}{' and more' if elsewhere[3:] else ''}"
        return NotALedger(
            f"{address.shown} holds no ledger; {there}: name it with ?schema=, or run 'lease-ledger init' once"
        )
    (row,) = connection.execute(_OTHERS).fetchall()
    there = f"{row['relations']} tables of something else" if row["relations"] else "nothing at all"
    return NotALedger(f"{address.shown} holds no ledger yet, its database {there}; run 'lease-ledger init' once")
