"""The statements of the recorder in PostgreSQL, and how their rows become the recorder's."""

from collections.abc import Sequence
from typing import Final, LiteralString

from psycopg.sql import SQL, Composed, Identifier

from ledger.recorders.base import NewEvent, StoredFold, StreamRow

__all__ = ["fold_of", "insert_values", "is_stored", "statements", "stored_bytes"]

_INSERT: Final = (
    "INSERT INTO {schema}.stored_events (originator_id, originator_version, topic, state) "
    "VALUES (%(stream)s, %(version)s, %(tag)s, %(body)s)"
)
# A trigger or rule that is not ours may store something else, somewhere else, or nothing at all; where there is another
# trigger, it may act only once this statement is through.
_AS_GIVEN: Final = (
    "RETURNING notification_id, (originator_id, originator_version, topic, state) = "
    "(%(stream)s, %(version)s, %(tag)s, %(body)s) AND tableoid = '{schema}.stored_events'::regclass AS as_given, "
    "(SELECT count(*) FROM pg_trigger WHERE tgrelid = '{schema}.stored_events'::regclass AND NOT tgisinternal) = 2 "
    "AS alone"
)
_FOLD: Final = (
    "fold AS (INSERT INTO {schema}.stored_folds (stream, version, fold, digest, state) "
    "VALUES (%(stream)s, %(fold_version)s, %(fold)s, %(digest)s, %(fold_state)s) "
    "ON CONFLICT (stream, version) DO UPDATE "
    "SET fold = excluded.fold, digest = excluded.digest, state = excluded.state)"
)
_STATEMENTS: Final[dict[str, LiteralString]] = {
    "insert": f"{_INSERT} {_AS_GIVEN}",
    "insert with fold": (
        f"WITH event AS ({_INSERT} {_AS_GIVEN}), {_FOLD} SELECT notification_id, as_given, alone FROM event"  # noqa: S608
    ),
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


def insert_values(event: NewEvent) -> tuple[str, dict[str, object]]:
    """The name of the statement that inserts an event, and its values."""
    values: dict[str, object] = {
        "stream": event.stream,
        "version": event.version,
        "tag": event.tag,
        "body": event.body.decode(),
    }
    fold = event.fold
    if fold is None:
        return "insert", values
    more = {"fold_version": fold.version, "fold": fold.fold, "digest": fold.digest, "fold_state": fold.state.decode()}
    return "insert with fold", {**values, **more}


def fold_of(version: int, fold: int, digest: str, state: str) -> StoredFold:
    """A stored fold from its columns."""
    return StoredFold(version, fold, digest, stored_bytes(state))


def stored_bytes(text: object) -> bytes:
    """A stored body as bytes. Whatever else a damaged table holds is passed on, for whoever reads to judge."""
    return text.encode() if isinstance(text, str) else text  # type: ignore[return-value]


def is_stored(event: NewEvent, rows: Sequence[StreamRow]) -> bool:
    """Whether the rows begin with this very event, told by its bytes: they hold its random id."""
    return bool(rows) and (rows[0].tag, rows[0].body) == (event.tag, event.body)
