"""The question "what does every lease look like now?"."""

from typing import Final

import msgspec
from sqlite_utils import Database

from ledger.snapshot import AuthLeasePhase
from projections.audit_schema import LEASES
from projections.typed_rows import TypedRows

__all__ = ["CurrentLease", "select_leases"]


class CurrentLease(msgspec.Struct, frozen=True):
    """One lease as it is now. Keys that were released stay in the list: they had events.

    Attributes:
        key: The lease key as text; ``LeaseKey.parse`` reads it.
        phase: ``None`` when the key holds no lease.
        generation: How many credentials were published.
        expires_at: Epoch seconds; ``None`` means never.
        expires_utc: The same for people; ``None`` also when no calendar reaches that far.
        credential_present: Whether the lease holds a credential.
        published_at: Epoch milliseconds of the publication in force.
        published_by: Id of the event that published it, when known.
        attempt: Id of the refresh attempt that is open.
        version: Stream version of the last event.
        position: Log position of the last event.
        tag: What kind of event the last one was.
        actor: Who made it.
        at_ms: When, epoch milliseconds on that actor's clock.
        at_utc: The same for people.
    """

    key: str
    phase: AuthLeasePhase | None
    generation: int
    expires_at: int | None
    expires_utc: str | None
    credential_present: bool
    published_at: int | None
    published_by: str | None
    attempt: str | None
    version: int
    position: int
    tag: str
    actor: str
    at_ms: int
    at_utc: str | None


_ROWS: Final = TypedRows(CurrentLease, wide=("generation", "expires_at", "published_at", "at_ms"))


def select_leases(db: Database, after: str = "", limit: int = -1) -> list[CurrentLease]:
    """The leases whose keys come after one, sorted by key; by default all."""
    query = f"SELECT {_ROWS.columns} FROM {LEASES} WHERE key > ? ORDER BY key LIMIT ?"  # noqa: S608  # constants only
    return _ROWS.read(db.execute(query, (after, limit)).fetchall())
