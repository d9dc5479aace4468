"""The statements of the recorder in PostgreSQL, and how their rows become the recorder's."""

from collections.abc import Sequence
from typing import Final, LiteralString

from psycopg.sql import SQL, Composed, Identifier

from ledger.recorders.base import NewEvent, StoredFold, StreamRow

__all__ = ["fold_of", "insert_values", "is_stored", "statements"]

_STATEMENTS: Final[dict[str, LiteralString]] = {
    "insert": "INSERT INTO {schema}.stored_events (originator_id, originator_version, topic, state) "
    "VALUES (%s, %s, %s, %s) RETURNING notification_id",
    "insert with fold": "WITH event AS (INSERT INTO {schema}.stored_events "
    "(originator_id, originator_version, topic, state) VALUES (%s, %s, %s, %s) RETURNING notification_id), "
    "fold AS (INSERT INTO {schema}.stored_folds (stream, version, fold, digest, state) VALUES (%s, %s, %s, %s, %s) "
    "ON CONFLICT (stream, version) DO UPDATE "
    "SET fold = excluded.fold, digest = excluded.digest, state = excluded.state) "
    "SELECT notification_id FROM event",
    "rows": "SELECT notification_id, originator_version, topic, state FROM {schema}.stored_events "
    "WHERE originator_id = %s AND originator_version > %s AND originator_version <= %s ORDER BY originator_version",
    "log": "SELECT notification_id, originator_id, originator_version, topic, state FROM {schema}.stored_events "
    "WHERE notification_id > %s ORDER BY notification_id LIMIT %s",
    "last position": "SELECT coalesce(max(notification_id), 0) FROM {schema}.stored_events",
    "last version": "SELECT coalesce(max(originator_version), 0) FROM {schema}.stored_events WHERE originator_id = %s",
    "streams": "SELECT DISTINCT originator_id FROM {schema}.stored_events ORDER BY 1",
    "streams after": "SELECT DISTINCT originator_id FROM {schema}.stored_events WHERE originator_id > %s "
    "ORDER BY 1 LIMIT %s",
    "fold": "SELECT version, fold, digest, state FROM {schema}.stored_folds "
    "WHERE stream = %s AND version <= %s AND fold = %s ORDER BY version DESC LIMIT 1",
    "folds": "SELECT stream, version, fold, digest, state FROM {schema}.stored_folds ORDER BY stream, version",
}


def statements(schema: str) -> dict[str, Composed]:
    """Every statement by name, for the tables of one schema."""
    return {name: SQL(text).format(schema=Identifier(schema)) for name, text in _STATEMENTS.items()}


def insert_values(event: NewEvent) -> tuple[str, list[object]]:
    """The name of the statement that inserts an event, and its values."""
    values: list[object] = [event.stream, event.version, event.tag, event.body.decode()]
    fold = event.fold
    if fold is None:
        return "insert", values
    return "insert with fold", [*values, event.stream, fold.version, fold.fold, fold.digest, fold.state.decode()]


def fold_of(version: int, fold: int, digest: str, state: str) -> StoredFold:
    """A stored fold from its columns."""
    return StoredFold(version, fold, digest, state.encode())


def is_stored(event: NewEvent, rows: Sequence[StreamRow]) -> bool:
    """Whether the rows begin with this very event, told by its bytes: they hold its random id."""
    return bool(rows) and (rows[0].tag, rows[0].body) == (event.tag, event.body)
