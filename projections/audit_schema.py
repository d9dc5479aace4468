"""The tables of an audit file.

A person with only ``sqlite3`` should find the way, so columns carry comments and readable times. Times named
``*_utc`` are computed when they are read. Columns without a type may hold integers up to 2^64-1
(see :mod:`projections.wide_integers`); all others have one.

Whatever a later version changes, ``checkpoint`` keeps its columns, and ``events`` keeps ``position``, ``key``,
``version`` and ``digest``: by these an audit file bears witness even to a version that cannot read the rest.
"""

from typing import Final

from sqlite_utils import Database

from projections.audit_views import VIEWS

__all__ = [
    "APPLICATION_ID",
    "CHECKPOINT",
    "EVENTS",
    "LEASES",
    "SCHEMA_VERSION",
    "SET_ASIDE",
    "SHADOW_EVENTS",
    "SHADOW_LEASES",
    "create_bookkeeping",
    "create_indexes",
    "create_read_model",
    "create_tables",
    "drop_indexes",
]

SCHEMA_VERSION: Final = 4
"""Raised whenever the rows made from the same events change: a file of another version is rebuilt."""

APPLICATION_ID: Final = 0x4C4C4155
"""``LLAU`` in the file's header, so that an audit file can be told from any other database."""

EVENTS: Final = "events"
LEASES: Final = "leases"
CHECKPOINT: Final = "checkpoint"
SET_ASIDE: Final = "set_aside"
SHADOW_EVENTS: Final = "events_being_rebuilt"
SHADOW_LEASES: Final = "leases_being_rebuilt"

_UTC: Final = "TEXT GENERATED ALWAYS AS (strftime('%Y-%m-%dT%H:%M:{seconds}Z', {column}, 'unixepoch')) VIRTUAL"
_AT_UTC: Final = _UTC.format(seconds="%f", column="at_ms / 1000.0")
_EXPIRES_UTC: Final = _UTC.format(seconds="%S", column="expires_at")

_EVENTS_SQL: Final = f"""
CREATE TABLE {{table}} ( -- one row per event, in the order they were recorded
    position INTEGER PRIMARY KEY, -- place in the whole log, from 1
    key TEXT NOT NULL, -- the lease
    version INTEGER NOT NULL, -- place in the lease's stream, from 1
    at_utc {_AT_UTC},
    tag TEXT NOT NULL, -- what kind of event
    summary TEXT NOT NULL, -- what happened, in words
    actor TEXT NOT NULL, -- who
    cause TEXT, -- why, in the caller's words
    correlation_id TEXT, -- what the caller files it under
    phase TEXT, -- of the lease after the event; null: it holds no lease
    generation NOT NULL, -- of the lease after the event
    expires_at, -- of the lease after the event, epoch seconds; null: never
    expires_utc {_EXPIRES_UTC},
    credential_present INTEGER NOT NULL, -- after the event
    published_at, -- of the credential in force after the event, epoch milliseconds
    published_by TEXT, -- id of the event that published it
    attempt TEXT, -- the refresh attempt the event is about
    store TEXT, -- acquired: digest of the place the tokens were to be saved in
    recovered INTEGER, -- refreshed: recorded after a crash, from the stored tokens
    permanent INTEGER, -- refresh_failed: only a person can go on
    abandoned INTEGER, -- refresh_failed: somebody other than its holder closed it
    ended TEXT, -- refresh_failed: not_sent, unanswered, answered, unusable, other_account, not_saved, interrupted
        -- or abandoned; null: not recorded
    error TEXT, -- refresh_failed: OAuth code, or class of the exception
    status, -- refresh_failed: HTTP status
    retry_after REAL, -- refresh_failed: seconds the server asked to wait
    reason TEXT, -- reauth_required
    refreshed_at, -- refreshed: epoch seconds
    duration_ms, -- refresh_started: how long the attempt may take
    holder TEXT, -- refresh_started: host and process
    fingerprint TEXT, -- refresh_started: keyed fingerprint of the refresh token
    compensates, -- restored: version of the event it undoes
    captured_at_version, -- restored: version whose state came back
    realm TEXT NOT NULL,
    binding TEXT NOT NULL,
    profile TEXT,
    at_ms NOT NULL, -- epoch milliseconds on the writer's clock; advisory
    running_at_ms NOT NULL, -- the greatest at_ms of the lease up to here; beyond at_ms where a clock went back
    event_id TEXT NOT NULL,
    digest TEXT NOT NULL -- SHA-256 over the event as the ledger stores it
)"""

_INDEXES: Final = {
    "events_by_lease": f"CREATE UNIQUE INDEX events_by_lease ON {EVENTS} (key, version)",
    # Within a lease both order by version, so the event in force at a time is one seek away.
    "events_by_moment": f"CREATE INDEX events_by_moment ON {EVENTS} (key, running_at_ms)",
    "events_by_attempt": (
        f"CREATE INDEX events_by_attempt ON {EVENTS} (key, attempt, version) WHERE attempt IS NOT NULL"
    ),
    "events_by_fingerprint": (
        f"CREATE INDEX events_by_fingerprint ON {EVENTS} (fingerprint, position) WHERE fingerprint IS NOT NULL"
    ),
    "events_set_back": f"CREATE INDEX events_set_back ON {EVENTS} (key, version) WHERE at_ms < running_at_ms",
}

_LEASES_SQL: Final = f"""
CREATE TABLE {{table}} ( -- every key that ever had an event, as it is now
    key TEXT PRIMARY KEY,
    phase TEXT, -- null: it holds no lease
    generation NOT NULL,
    expires_at, -- epoch seconds; null: never
    expires_utc {_EXPIRES_UTC},
    credential_present INTEGER NOT NULL,
    published_at, -- epoch milliseconds
    published_by TEXT, -- id of the event that published the credential in force
    attempt TEXT, -- the refresh attempt that is open
    version INTEGER NOT NULL, -- of its last event
    position INTEGER NOT NULL, -- of its last event
    tag TEXT NOT NULL, -- of its last event
    actor TEXT NOT NULL, -- of its last event
    at_utc {_AT_UTC},
    realm TEXT NOT NULL,
    binding TEXT NOT NULL,
    profile TEXT,
    at_ms NOT NULL, -- of its last event, epoch milliseconds
    running_at_ms NOT NULL, -- the greatest at_ms of its events
    state TEXT NOT NULL -- the whole fold as JSON, from which the next catch-up goes on
) WITHOUT ROWID"""

# The storage library can track positions too (its TrackingRecorder), but only a position: here the rolling digest
# that makes the position a witness must be in the same row, and the read of it in the same immediate transaction
# as the write, which the library's deferred transactions cannot give.
_CHECKPOINT_SQL: Final = f"""
CREATE TABLE {CHECKPOINT} ( -- one row: how far this file has come
    id INTEGER PRIMARY KEY CHECK (id = 1),
    ledger_id TEXT NOT NULL,
    position INTEGER NOT NULL, -- the last event taken in
    digest TEXT NOT NULL, -- rolling digest over all events up to there
    last_digest TEXT NOT NULL, -- digest of the event at that position
    schema INTEGER NOT NULL, -- version of these tables
    fold INTEGER NOT NULL -- version of the fold
)"""

_SET_ASIDE_SQL: Final = f"""
CREATE TABLE {SET_ASIDE} ( -- earlier contents of this file that the ledger contradicts, kept as evidence
    id INTEGER PRIMARY KEY,
    reason TEXT NOT NULL,
    ledger_id TEXT NOT NULL,
    position INTEGER NOT NULL,
    digest TEXT NOT NULL,
    events_table TEXT NOT NULL, -- where its events are now
    UNIQUE (ledger_id, position, digest)
)"""


def create_tables(db: Database) -> None:
    """Make an empty audit file's tables."""
    create_bookkeeping(db)
    create_read_model(db, EVENTS, LEASES)
    create_indexes(db)


def create_bookkeeping(db: Database) -> None:
    """Make the tables that outlive a rebuild, where they are not there."""
    there = db.table_names()
    for name, statement in ((CHECKPOINT, _CHECKPOINT_SQL), (SET_ASIDE, _SET_ASIDE_SQL)):
        if name not in there:
            db.execute(statement)


def create_read_model(db: Database, events: str, leases: str) -> None:
    """Make the tables that a rebuild fills, under the given names."""
    db.execute(_EVENTS_SQL.format(table=events))
    db.execute(_LEASES_SQL.format(table=leases))


def create_indexes(db: Database) -> None:
    """Index the tables in use, and lay the views over them.

    Much cheaper over a full table than kept up while it is filled.
    """
    for statement in (*_INDEXES.values(), *VIEWS.values()):
        db.execute(statement)


def drop_indexes(db: Database) -> None:
    """Free the names of the indexes and views, for the tables that come into use."""
    for name in VIEWS:
        db.execute(f"DROP VIEW IF EXISTS {name}")
    for name in _INDEXES:
        db.execute(f"DROP INDEX IF EXISTS {name}")
