"""How far an audit file has come, and whether the ledger before us is still the one it followed."""

import sqlite3
from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from sqlite_utils import Database

from ledger.chain import EMPTY_ROLL, event_digest
from ledger.recorders.base import LogRow
from ledger.state import FOLD_VERSION
from projections.audit_schema import CHECKPOINT, EVENTS, SCHEMA_VERSION

__all__ = [
    "RELEASED",
    "AuditCheckpoint",
    "RebuildReason",
    "UnusableCheckpoint",
    "first_checkpoint",
    "made_by_this_version",
    "read_checkpoint",
    "write_checkpoint",
]

RELEASED: Final = frozenset({(3, 1)})
"""Versions of tables and fold of every release so far: what an audit file may say that this version did not make."""

_TYPES: Final[Mapping[str, type]] = {
    "ledger_id": str, "position": int, "digest": str, "last_digest": str, "schema": int, "fold": int
}  # fmt: skip
_COLUMNS: Final = ", ".join(_TYPES)


class UnusableCheckpoint(Exception):
    """The one row that says how far the file has come is not one, or holds what no such row does."""


class RebuildReason(StrEnum):
    """Why an audit file cannot go on from where it is and has to be rebuilt."""

    NOTHING_YET = "it held nothing yet"
    OTHER_LEDGER = "it followed another ledger"
    LEDGER_BEHIND = "it had seen events that the ledger does not hold"
    OTHER_EVENT = "it had seen another last event"
    OTHER_PAST = "it had seen another past"
    OTHER_VERSION = "another version of lease-ledger made it"
    UNUSABLE = "its own rows contradict each other"


class AuditCheckpoint(NamedTuple):
    """The one row that says how far an audit file has come.

    Attributes:
        ledger_id: The ledger it follows.
        position: The last event taken in.
        digest: Rolling digest over all events up to there.
        last_digest: Digest of the event there; empty at position 0.
        schema: Version of the tables.
        fold: Version of the fold.
    """

    ledger_id: str
    position: int
    digest: str
    last_digest: str
    schema: int = SCHEMA_VERSION
    fold: int = FOLD_VERSION

    def reason_to_rebuild(self, ledger_id: str, row: LogRow | None) -> RebuildReason | None:
        """Why this file cannot follow this ledger any further; ``None`` when it can.

        Args:
            ledger_id: Id of the ledger.
            row: Its first event after the one before ``position``; ``None`` when there is none.
        """
        if self.ledger_id != ledger_id:
            return RebuildReason.OTHER_LEDGER
        if (self.schema, self.fold) != (SCHEMA_VERSION, FOLD_VERSION):
            return RebuildReason.OTHER_VERSION
        if self.position == 0:
            return None
        if row is None:
            return RebuildReason.LEDGER_BEHIND
        digest = event_digest(ledger_id, row.stream, row.version, row.tag, row.body)
        if (row.position, digest) != (self.position, self.last_digest):
            return RebuildReason.OTHER_EVENT
        return None


def first_checkpoint(ledger_id: str) -> AuditCheckpoint:
    """Where an audit of a ledger begins."""
    return AuditCheckpoint(ledger_id, 0, EMPTY_ROLL, "")


def read_checkpoint(db: Database) -> AuditCheckpoint | None:
    """How far the file has come; ``None`` for a new one.

    Raises:
        UnusableCheckpoint: It does not say so in one row.
    """
    found = db.execute(f"SELECT {_COLUMNS}, id FROM {CHECKPOINT}").fetchmany(2)  # noqa: S608  # constants only
    if not found:
        if db.execute(f"SELECT 1 FROM {EVENTS} LIMIT 1").fetchone():  # noqa: S608
            raise UnusableCheckpoint("it is missing")
        return None
    (*row, number), *more = found
    if more or number != 1:
        raise UnusableCheckpoint("there is more than one row")
    wrong = [name for (name, kind), value in zip(_TYPES.items(), row, strict=True) if type(value) is not kind]
    if wrong:
        raise UnusableCheckpoint(f"{wrong[0]} holds what it never does")
    return AuditCheckpoint._make(row)


def made_by_this_version(connection: sqlite3.Connection) -> bool:
    """Whether the file's tables are to be what this version makes; ``False`` only where it says that they are not."""
    try:
        found = connection.execute(f"SELECT schema FROM {CHECKPOINT}").fetchmany(2)  # noqa: S608
    except sqlite3.Error:
        return True
    return len(found) != 1 or type(found[0][0]) is not int or found[0][0] == SCHEMA_VERSION


def write_checkpoint(db: Database, checkpoint: AuditCheckpoint) -> None:
    """Record how far the file has come, in the transaction that writes the rows."""
    db.execute(f"REPLACE INTO {CHECKPOINT} (id, {_COLUMNS}) VALUES (1, ?, ?, ?, ?, ?, ?)", checkpoint)  # noqa: S608
