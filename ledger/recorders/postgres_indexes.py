"""Whether each index of a ledger in PostgreSQL holds what its table holds: answers are read by way of indexes alone."""

from typing import Final, LiteralString

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from ledger.recorders.postgres_connections import LedgerConnection

__all__ = ["index_defects"]

_INDEXED: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "stored_events_pkey": ("stored_events", ("originator_id", "originator_version")),
    "stored_events_notification_id_key": ("stored_events", ("notification_id",)),
    "stored_folds_pkey": ("stored_folds", ("stream", "version")),
}
_COUNTED: Final = (
    "SELECT count(*) AS rows, sum(hashtextextended(concat_ws(' ', {columns}), 0)::numeric) AS content "
    "FROM (SELECT {columns} FROM {schema}.{table} ORDER BY {columns}) AS ordered"
)
_BY_TABLE: Final = (
    "SET LOCAL enable_bitmapscan = off; SET LOCAL enable_indexscan = off; SET LOCAL enable_indexonlyscan = off"
)
_BY_INDEX: Final = "SET LOCAL enable_bitmapscan = off; SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off"


def index_defects(connection: LedgerConnection, schema: str) -> list[str]:
    """Where an index and its table disagree, or one of them cannot be read; one sentence each.

    Args:
        connection: Outside of a transaction.
        schema: The ledger's, with all its tables and columns.
    """
    defects: list[str] = []
    for index, (table, columns) in _INDEXED.items():
        query = SQL(_COUNTED).format(
            columns=SQL(", ").join(map(Identifier, columns)), schema=Identifier(schema), table=Identifier(table)
        )
        try:
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            held, indexed = _counted(connection, query, _BY_TABLE), _counted(connection, query, _BY_INDEX)
        except psycopg.Error as error:
            if connection.closed:
                raise
            defects.append(f"the table {table} or its index {index} cannot be read: {error.diag.message_primary}")
        else:
            if held != indexed:
                defects.append(
                    f"the index {index} does not hold what its table {table} does ({indexed['rows']} rows instead of "
                    f"{held['rows']}): answers miss events or invent them; have the owner run REINDEX"
                )
        finally:
            if not connection.closed:
                connection.execute("ROLLBACK")
    return defects


def _counted(connection: LedgerConnection, query: Composed, by: LiteralString) -> dict[str, object]:
    connection.execute("SAVEPOINT so_planned")
    connection.execute(by)
    rows: list[dict[str, object]] = connection.execute(query, prepare=False).fetchall()
    connection.execute("ROLLBACK TO so_planned")
    return rows[0]
