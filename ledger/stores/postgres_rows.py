"""The table of tokens in PostgreSQL: its statements, and what names and binds a row."""

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, LiteralString

from ledger.keys import LeaseKey
from ledger.store_errors import TokenStoreUnavailable

if TYPE_CHECKING:
    from ledger.recorders.postgres_connections import PostgresConnections

__all__ = [
    "DELETE",
    "INSERT",
    "LIST",
    "NEXT_PAGE",
    "PLACE",
    "SELECT",
    "TABLE",
    "UPDATE",
    "belonging_of",
    "make_table",
    "row_id",
]

TABLE: Final = """
    CREATE TABLE IF NOT EXISTS {schema}.lease_tokens (
        id text PRIMARY KEY, -- SHA-256 of the lease key, which may be longer than an index takes
        lease_key text NOT NULL,
        event text, -- id of the event that published these tokens
        sealed bytea NOT NULL, -- the tokens, encrypted
        changed_at timestamptz NOT NULL DEFAULT now()
    )"""
SELECT: Final = "SELECT event, sealed FROM {schema}.lease_tokens WHERE id = %s"
INSERT: Final = (
    "INSERT INTO {schema}.lease_tokens (event, sealed, id, lease_key) VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING"
)
UPDATE: Final = (
    "UPDATE {schema}.lease_tokens SET event = %s, sealed = %s, changed_at = now() WHERE id = %s AND sealed = %s"
)
DELETE: Final = "DELETE FROM {schema}.lease_tokens WHERE id = %s AND sealed = %s"
LIST: Final = "SELECT lease_key FROM {schema}.lease_tokens"
NEXT_PAGE: Final = "SELECT id, lease_key, event, sealed FROM {schema}.lease_tokens WHERE id > %s ORDER BY id LIMIT %s"
PLACE: Final = """
    SELECT system_identifier::text || '/' || (SELECT oid::text FROM pg_database WHERE datname = current_database())
        AS place FROM pg_control_system()"""


def make_table(connections: "PostgresConnections", composed: Callable[[LiteralString], bytes]) -> None:
    """Make the table, and its schema, unless they are there. Many may do so at once.

    Args:
        connections: The database.
        composed: Puts the schema into a statement.

    Raises:
        TokenStoreUnavailable: The table is missing, and the URL leaves making it to others.
        LedgerStorageError: As connections do.
    """
    from ledger.recorders.postgres_schema import make_schema, migration_lock  # noqa: PLC0415  # an extra brings it

    address = connections.address
    there = "SELECT to_regclass(%s) IS NOT NULL AS found"
    with connections.borrow() as connection:
        (row,) = connection.execute(there, [f'"{address.schema}".lease_tokens']).fetchall()
    if row["found"]:
        return
    if not address.create:
        raise TokenStoreUnavailable(f"{address.shown} holds no token table yet; open it once without create=no")
    with connections.transaction() as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [migration_lock(address.schema)])
        make_schema(connection, address.schema)
        connection.execute(composed(TABLE))


def row_id(key: LeaseKey) -> str:
    """The primary key of a lease's row."""
    return hashlib.sha256(str(key).encode()).hexdigest()


def belonging_of(key: LeaseKey, event: str | None) -> bytes:
    """What a row's sealed bytes are bound to. A lease key holds no line break."""
    return f"lease-ledger tokens\n{key}\n{'' if event is None else 'event ' + event}".encode()
