"""The tables of a ledger in PostgreSQL, the triggers that keep it append-only, and the migration that makes them."""

import hashlib
from typing import Final, LiteralString

from psycopg.sql import SQL, Identifier, Literal

from ledger.recorders.postgres_address import PostgresAddress
from ledger.recorders.postgres_connections import LedgerConnection, PostgresConnections
from ledger.recorders.postgres_identity import FORMAT, identity
from ledger.recorders.postgres_views import create_views, renew_views

__all__ = [
    "TRIGGERS",
    "create_tables",
    "function_bodies",
    "initialise",
    "make_schema",
    "migration_lock",
    "writer_lock",
]

WRITER_LOCK: Final = 0x4C4C4544
"""First half of the advisory lock that all appends take; the second half is the table's oid."""

# The lock comes before the look: each statement of a trigger sees what was committed until then, so what waited for
# the lock sees the event it waited for. It is given up after the commit is visible, so nobody ever sees a position
# before a smaller one.
_NEXT_EVENT: Final = """
DECLARE
    last_position bigint;
    last_version bigint;
BEGIN
    PERFORM pg_catalog.pg_advisory_xact_lock({lock}, TG_RELID::int4);
    SELECT (SELECT max(e.notification_id) FROM {schema}.stored_events e),
        (SELECT max(e.originator_version) FROM {schema}.stored_events e WHERE e.originator_id = NEW.originator_id)
        INTO last_position, last_version;
    IF NEW.originator_version IS DISTINCT FROM coalesce(last_version, 0) + 1 THEN
        RAISE EXCEPTION 'the ledger is append-only: not the next version of its stream' USING ERRCODE = '23000';
    END IF;
    IF NEW.notification_id <> coalesce(last_position, 0) + 1 THEN
        RAISE EXCEPTION 'the ledger is append-only: not the next position' USING ERRCODE = '23000';
    END IF;
    NEW.notification_id := coalesce(last_position, 0) + 1;
    PERFORM pg_catalog.pg_notify({channel}, '');
    RETURN NEW;
END"""

_REFUSE: Final = """
BEGIN
    RAISE EXCEPTION 'the ledger is append-only: % of % refused', lower(TG_OP), TG_TABLE_NAME USING ERRCODE = '23001';
END"""

TRIGGERS: Final[dict[str, tuple[LiteralString, str]]] = {
    "stored_events_next": ("BEFORE INSERT ON {schema}.stored_events FOR EACH ROW", "next_event"),
    "stored_events_keep": (
        "BEFORE UPDATE OR DELETE OR TRUNCATE ON {schema}.stored_events FOR EACH STATEMENT",
        "refuse_change",
    ),
    "ledger_meta_keep": (
        "BEFORE UPDATE OR DELETE OR TRUNCATE ON {schema}.ledger_meta FOR EACH STATEMENT",
        "refuse_change",
    ),
}

_TABLES: Final[tuple[LiteralString, ...]] = (
    """
    CREATE TABLE {schema}.ledger_meta (
        only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
        ledger_id text NOT NULL, -- part of every digest
        format integer NOT NULL, -- format of the version that created the tables
        lowest_reader integer NOT NULL -- lowest format a reader must know to open them
    )""",
    """
    CREATE TABLE {schema}.stored_events (
        originator_id text COLLATE "C" NOT NULL, -- the lease key
        originator_version bigint NOT NULL, -- counts from 1 in each stream, without gaps
        topic text NOT NULL, -- the event's tag
        state text NOT NULL, -- JSON, byte for byte as digested
        notification_id bigint NOT NULL UNIQUE, -- position in the log, from 1 without gaps
        PRIMARY KEY (originator_id, originator_version)
    )""",
    """
    CREATE TABLE {schema}.stored_folds ( -- an aid to readers; may be emptied at any time
        stream text COLLATE "C" NOT NULL,
        version bigint NOT NULL, -- folded up to this event
        fold integer NOT NULL, -- version of the fold code
        digest text NOT NULL,
        state text NOT NULL,
        PRIMARY KEY (stream, version)
    )""",
)


def function_bodies(connection: LedgerConnection, address: PostgresAddress) -> dict[str, str]:
    """The text of each trigger function."""
    names = {"schema": Identifier(address.schema), "channel": Literal(address.channel), "lock": Literal(WRITER_LOCK)}
    bodies = {"next_event": SQL(_NEXT_EVENT).format(**names), "refuse_change": SQL(_REFUSE).format()}
    return {name: body.as_string(connection) for name, body in bodies.items()}


def create_tables(connection: LedgerConnection, address: PostgresAddress, ledger_id: str) -> str:
    """Make the schema with its tables unless they are there, within the caller's transaction.

    Many may do so at once: an advisory lock, held until the transaction ends, lets one of them create.

    Returns:
        The ledger's id: ``ledger_id``, or that of whoever was first.

    Raises:
        NotALedger: As :func:`identity`.
    """
    connection.execute("SELECT pg_advisory_xact_lock(%s)", [migration_lock(address.schema)])
    existing = identity(connection, address)
    if existing is not None:
        return existing
    schema = Identifier(address.schema)
    make_schema(connection, address.schema)
    for statement in _TABLES:
        connection.execute(SQL(statement).format(schema=schema))
    create_views(connection, address.schema)
    _create_guards(connection, address)
    meta = SQL("INSERT INTO {}.ledger_meta (ledger_id, format, lowest_reader) VALUES (%s, %s, %s)").format(schema)
    connection.execute(meta, [ledger_id, FORMAT, FORMAT])
    return ledger_id


def make_schema(connection: LedgerConnection, schema: str) -> None:
    """Make a schema unless it is there; the caller holds :func:`migration_lock`.

    Not with ``IF NOT EXISTS``, which asks for the right to create one even when there is nothing to create.
    """
    (there,) = connection.execute("SELECT to_regnamespace(%s) AS oid", [f'"{schema}"']).fetchall()
    if there["oid"] is None:
        connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(schema)))


def _create_guards(connection: LedgerConnection, address: PostgresAddress) -> None:
    schema = Identifier(address.schema)
    for name, body in function_bodies(connection, address).items():
        create = SQL("CREATE FUNCTION {}.{}() RETURNS trigger LANGUAGE plpgsql AS {}")
        connection.execute(create.format(schema, Identifier(name), Literal(body)))
    for name, (event, function) in TRIGGERS.items():
        on = SQL(event).format(schema=schema)
        create = SQL("CREATE TRIGGER {} {} EXECUTE FUNCTION {}.{}()")
        connection.execute(create.format(Identifier(name), on, schema, Identifier(function)))
        # "Always" holds in sessions too that switch ordinary triggers off, as replication does.
        table = Identifier(address.schema, name.rpartition("_")[0])
        connection.execute(SQL("ALTER TABLE {} ENABLE ALWAYS TRIGGER {}").format(table, Identifier(name)))


def initialise(url: str, new_ledger_id: str) -> str:
    """Make the schema with its tables and guard triggers, once; a second time changes nothing of an up-to-date one.

    Where version 0.1.0 made it and this role owns it, the view ``lease_events`` is replaced by one that an event with
    a NUL in a text does not break.

    The role that does so owns them. Others who work with the ledger need USAGE on the schema, SELECT on all its
    tables and views, INSERT on ``stored_events``, and INSERT, UPDATE and DELETE on ``stored_folds``.

    Args:
        url: The database, as for ``LeaseLedger.open``; ``create=no`` does not apply.
        new_ledger_id: The id the ledger gets if it is new.

    Returns:
        The ledger's id.

    Raises:
        ValueError: The URL is none.
        NotALedger: The schema holds something else, or a ledger that needs a newer version.
        LedgerStorageError: The server cannot be reached, or refuses.
    """
    address = PostgresAddress.parse(url)
    connections = PostgresConnections(address)

    def create() -> str:
        with connections.transaction() as connection:
            ledger_id = create_tables(connection, address, new_ledger_id)
            renew_views(connection, address.schema)
            return ledger_id

    try:
        return connections.patiently(create)
    finally:
        connections.close()


def writer_lock(connection: LedgerConnection, address: PostgresAddress) -> tuple[int, int]:
    """The advisory lock that every append takes, for who must decide while no other can append."""
    query = "SELECT %s::regclass::oid::int4 AS oid"
    (row,) = connection.execute(query, [f'"{address.schema}".stored_events']).fetchall()
    return WRITER_LOCK, int(row["oid"])


def migration_lock(schema: str) -> int:
    """The advisory lock under which a schema's tables are made."""
    digest = hashlib.sha256(b"lease-ledger init " + schema.encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
