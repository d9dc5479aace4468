"""The tables of a SQLite ledger, and the triggers that keep it append-only."""

from typing import Final

__all__ = ["APPLICATION_ID", "EVENTS_INDEX", "EVENTS_TABLE", "FORMAT", "SCHEMA", "TRIGGERS"]

FORMAT: Final = 1
"""The format this version writes. A file names the lowest format its readers must know."""

APPLICATION_ID: Final = 0x4C4C4544
"""``LLED`` in the file's header, so that ``file`` and backup tools can tell a ledger."""

TRIGGERS: Final = {
    "stored_events_no_update": """
        CREATE TRIGGER stored_events_no_update BEFORE UPDATE ON stored_events
        BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: update refused'); END""",
    "stored_events_no_delete": """
        CREATE TRIGGER stored_events_no_delete BEFORE DELETE ON stored_events
        BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: delete refused'); END""",
    # INSERT OR REPLACE fires no delete trigger unless the connection asks for it, so a taken version or position is
    # refused here. An automatic position shows as -1 before the insert.
    "stored_events_next_version": """
        CREATE TRIGGER stored_events_next_version BEFORE INSERT ON stored_events
        WHEN NEW.originator_version IS NOT (
            SELECT COALESCE(MAX(originator_version), 0) + 1 FROM stored_events
            WHERE originator_id = NEW.originator_id
        ) OR EXISTS (SELECT 1 FROM stored_events WHERE rowid = NEW.rowid)
        BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: not the next version of its stream'); END""",
    "stored_events_next_position": """
        CREATE TRIGGER stored_events_next_position AFTER INSERT ON stored_events
        WHEN NEW.rowid <> 1 AND NOT EXISTS (SELECT 1 FROM stored_events WHERE rowid = NEW.rowid - 1)
        BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: not the next position'); END""",
    "ledger_meta_no_update": """
        CREATE TRIGGER ledger_meta_no_update BEFORE UPDATE ON ledger_meta
        BEGIN SELECT RAISE(ABORT, 'the ledger keeps its identity: update refused'); END""",
    "ledger_meta_no_delete": """
        CREATE TRIGGER ledger_meta_no_delete BEFORE DELETE ON ledger_meta
        BEGIN SELECT RAISE(ABORT, 'the ledger keeps its identity: delete refused'); END""",
}

EVENTS_TABLE: Final = (
    "CREATE TABLE stored_events (originator_id TEXT, originator_version INTEGER, topic TEXT, state BLOB, "
    "PRIMARY KEY (originator_id, originator_version))"
)
"""The storage library's own table, to the letter: the stored text is part of what a verification compares, and must
not change with the version of the library that made the file."""

EVENTS_INDEX: Final = "sqlite_autoindex_stored_events_1"
"""The index that SQLite makes for the table's primary key: through it every question about one lease is answered."""

SCHEMA: Final = (
    EVENTS_TABLE,
    """
    CREATE TABLE ledger_meta (
        ledger_id TEXT NOT NULL, -- part of every digest
        format INTEGER NOT NULL, -- format of the version that created the file
        lowest_reader INTEGER NOT NULL -- lowest format a reader must know to open it
    )""",
    """
    CREATE TABLE stored_folds (
        stream TEXT NOT NULL,
        version INTEGER NOT NULL, -- folded up to this event
        fold INTEGER NOT NULL, -- version of the fold code
        digest TEXT NOT NULL, -- of the event at that version
        state TEXT NOT NULL,
        PRIMARY KEY (stream, version)
    ) WITHOUT ROWID -- an aid to readers; may be emptied at any time""",
    """
    CREATE VIEW lease_events AS
    SELECT
        rowid AS position,
        originator_id AS lease_key,
        originator_version AS version,
        topic AS tag,
        json_extract(state, '$.at') AS at_ms,
        json_extract(state, '$.actor') AS actor,
        json_extract(state, '$.cause') AS cause,
        state AS body
    FROM stored_events""",
)
