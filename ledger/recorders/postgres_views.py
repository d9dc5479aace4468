"""The views of a ledger in PostgreSQL: one for people, one for the storage library's own tools."""

from typing import Final, LiteralString

from psycopg.sql import SQL, Identifier, Literal

from ledger.recorders.postgres_connections import LedgerConnection

__all__ = ["EVENT_FIELDS", "FIRST_EVENTS_VIEW", "VIEWS", "create_views", "renew_views"]

BYTES_VIEW: Final[LiteralString] = """
    SELECT originator_id, originator_version, topic, convert_to(state, 'UTF8') AS state, notification_id
    FROM {schema}.stored_events"""
"""What the storage library's own tools read: it keeps states as bytes."""

EVENTS_VIEW: Final[LiteralString] = """
    SELECT e.notification_id AS position, e.originator_id AS lease_key, e.originator_version AS version,
        e.topic AS tag, (f.fields).at_ms, (f.fields).actor, (f.fields).cause, e.state AS body
    FROM {schema}.stored_events e CROSS JOIN LATERAL (SELECT {schema}.event_fields(e.state) AS fields OFFSET 0) f"""

FIRST_EVENTS_VIEW: Final[LiteralString] = """
    SELECT notification_id AS position, originator_id AS lease_key, originator_version AS version, topic AS tag,
        (state::json ->> 'at')::numeric AS at_ms, state::json ->> 'actor' AS actor, state::json ->> 'cause' AS cause,
        state AS body
    FROM {schema}.stored_events"""
"""What version 0.1.0 made: one event whose JSON is beyond it, and it shows none."""

VIEWS: Final[dict[str, LiteralString]] = {"stored_events_as_bytes": BYTES_VIEW, "lease_events": EVENTS_VIEW}

# An event is shown whatever it holds: a NUL, which no text of SQL can, as U+FFFD, and what cannot be read not at all.
EVENT_FIELDS: Final = r"""
DECLARE
    body json;
BEGIN
    body := CASE WHEN strpos(state, E'\\u0000') = 0 THEN state
        ELSE regexp_replace(state, E'(?<!\\\\)((?:\\\\\\\\)*)\\\\u0000', E'\\1\\\\ufffd', 'g') END;
    actor := body ->> 'actor';
    cause := body ->> 'cause';
    at_ms := (body ->> 'at')::numeric;
EXCEPTION WHEN OTHERS THEN
    NULL;
END"""

_CREATE_FIELDS: Final = """
    CREATE FUNCTION {}.event_fields(state text, OUT at_ms numeric, OUT actor text, OUT cause text)
    LANGUAGE plpgsql IMMUTABLE AS {}"""

_OWN_AND_OLD: Final = """
    SELECT FROM pg_class WHERE oid = to_regclass(%s) AND pg_has_role(relowner, 'USAGE')
        AND NOT EXISTS (SELECT FROM pg_proc WHERE pronamespace = to_regnamespace(%s) AND proname = 'event_fields')"""


def create_views(connection: LedgerConnection, schema: str) -> None:
    """Make the views and the function that one of them calls."""
    into = Identifier(schema)
    connection.execute(SQL(_CREATE_FIELDS).format(into, Literal(EVENT_FIELDS)))
    for name, query in VIEWS.items():
        connection.execute(
            SQL("CREATE VIEW {}.{} AS {}").format(into, Identifier(name), SQL(query).format(schema=into))
        )


def renew_views(connection: LedgerConnection, schema: str) -> None:
    """Replace the view that version 0.1.0 made, where this role owns it; do nothing with that of today."""
    if connection.execute(_OWN_AND_OLD, [f'"{schema}".lease_events', f'"{schema}"']).fetchone() is None:
        return
    into = Identifier(schema)
    connection.execute(SQL(_CREATE_FIELDS).format(into, Literal(EVENT_FIELDS)))
    query = SQL(EVENTS_VIEW).format(schema=into)
    connection.execute(SQL("CREATE OR REPLACE VIEW {}.lease_events AS {}").format(into, query))
