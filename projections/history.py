"""The question "what happened to this lease?"."""

from typing import Final

import msgspec
from sqlite_utils import Database

from ledger.events import AttemptEnd
from ledger.keys import LeaseKey
from ledger.snapshot import AuthLeasePhase
from projections.audit_schema import EVENTS
from projections.typed_rows import TypedRows

__all__ = ["WIDE_FIELDS", "HistoryEntry", "last_version", "select_entries", "select_history"]


class HistoryEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One event, the lease after it, and what that kind of event carries. As JSON, what it does not carry is left out.

    Attributes:
        position: Place in the whole log, from 1.
        key: The lease key as text; ``LeaseKey.parse`` reads it.
        version: Place in the lease's stream, from 1.
        event_id: Id of the event.
        at_ms: When, epoch milliseconds on the writer's clock. Advisory: order is by version and position.
        at_utc: The same for people; ``None`` when no calendar reaches that far.
        tag: What kind of event.
        summary: What happened, in words.
        actor: Who.
        phase: Of the lease after the event; ``None`` when it holds none.
        generation: After the event.
        expires_at: After the event, epoch seconds; ``None`` means never.
        expires_utc: The same for people.
        credential_present: After the event.
        published_at: Epoch milliseconds of the publication in force after the event.
        published_by: Id of the event that published it, when known.
        digest: SHA-256 over the event as the ledger stored it.
        cause: Why, in the caller's words.
        correlation_id: What the caller files it under.
        attempt: The refresh attempt the event is about.
        store: Digest of the place that a login's tokens were to be saved in.
        recovered: A refresh that was recorded after a crash, from the stored tokens.
        permanent: A refresh failure after which only a person can go on.
        abandoned: A refresh that somebody other than its holder closed.
        ended: How a failed refresh ended, where its event says: a value of :class:`ledger.AttemptEnd`.
        error: OAuth code of a failure, or class of the exception.
        status: HTTP status of a failure.
        retry_after: Seconds the server asked to wait.
        reason: Why a new login is needed.
        refreshed_at: When a refresh succeeded, epoch seconds.
        duration_ms: How long an attempt may take.
        holder: Host and process that hold an attempt.
        fingerprint: Keyed fingerprint of the refresh token an attempt is about to spend.
        compensates: Version of the event that a restore undoes.
        captured_at_version: Version whose state a restore brought back.
    """

    position: int
    key: str
    version: int
    event_id: str
    at_ms: int
    at_utc: str | None
    tag: str
    summary: str
    actor: str
    phase: AuthLeasePhase | None
    generation: int
    expires_at: int | None
    expires_utc: str | None
    credential_present: bool
    published_at: int | None
    published_by: str | None
    digest: str
    cause: str | None = None
    correlation_id: str | None = None
    attempt: str | None = None
    store: str | None = None
    recovered: bool | None = None
    permanent: bool | None = None
    abandoned: bool | None = None
    ended: AttemptEnd | None = None
    error: str | None = None
    status: int | None = None
    retry_after: float | None = None
    reason: str | None = None
    refreshed_at: int | None = None
    duration_ms: int | None = None
    holder: str | None = None
    fingerprint: str | None = None
    compensates: int | None = None
    captured_at_version: int | None = None


WIDE_FIELDS: Final = (
    "at_ms",
    "generation",
    "expires_at",
    "published_at",
    "status",
    "refreshed_at",
    "duration_ms",
    "compensates",
    "captured_at_version",
)
"""The fields that may hold integers up to 2^64-1."""

_ROWS: Final = TypedRows(HistoryEntry, wide=WIDE_FIELDS)


def select_entries(db: Database, key: LeaseKey, after: int, limit: int) -> list[HistoryEntry]:
    """The events of a lease with a version greater than ``after``, oldest first, at most ``limit``."""
    query = f"SELECT {_ROWS.columns} FROM {EVENTS} WHERE key = ? AND version > ? ORDER BY version LIMIT ?"  # noqa: S608
    return _ROWS.read(db.execute(query, (str(key), after, limit)).fetchall())


def last_version(db: Database, key: LeaseKey) -> int:
    """The version of a lease's last event; 0 for none."""
    ((version,),) = db.execute(f"SELECT MAX(version) FROM {EVENTS} WHERE key = ?", (str(key),)).fetchall()  # noqa: S608
    return version or 0


def select_history(db: Database, key: LeaseKey, last: int | None) -> list[HistoryEntry]:
    """The events of a lease, oldest first; with ``last`` only so many of the newest."""
    query = f"SELECT {_ROWS.columns} FROM {EVENTS} WHERE key = ? ORDER BY version DESC LIMIT ?"  # noqa: S608
    found = db.execute(query, (str(key), -1 if last is None else last)).fetchall()
    return _ROWS.read(reversed(found))
