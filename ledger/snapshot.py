"""What a lease looks like from outside: its phase, its snapshot, and what a publishing command returns."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

import msgspec

__all__ = [
    "MAX_U64",
    "NEVER_EXPIRES",
    "AuthLeasePhase",
    "AuthLeaseSnapshot",
    "AuthLeaseTransition",
    "LeasePhaseName",
]

MAX_U64 = 2**64 - 1
NEVER_EXPIRES = MAX_U64
"""The expiry argument that means "never expires"; shown as ``expires_at=None`` in a snapshot."""


class AuthLeasePhase(StrEnum):
    """Where a lease is in its life. A key that holds no lease has no phase (``None``)."""

    VALID = "valid"
    EXPIRING = "expiring"
    REFRESHING = "refreshing"
    REAUTH_REQUIRED = "reauth_required"
    RELEASED = "released"


LeasePhaseName = Literal["valid", "expiring", "refreshing", "reauth_required", "released"]
"""The plain name of a phase, accepted wherever a caller names one."""


@dataclass(frozen=True, slots=True)
class AuthLeaseSnapshot:
    """The state of one lease, replayed from its events.

    Attributes:
        phase: Where the lease is in its life; ``None`` when the key holds no lease.
        expires_at: Epoch seconds; ``None`` means never.
        credential_present: Whether the lease holds a credential.
        generation: How many credentials this key has published; 0 means none. Never goes down.
        credential_published_at_millis: Epoch milliseconds of the publication in force, while a credential is present.
        version: The stream version the snapshot was taken at, when a ledger took it. No part of equality; a
            restore records it.
        published_by: Id of the event that published the credential in force, when a ledger took the snapshot.
            No part of equality.
        undoes: Stream version of the event that restoring this snapshot is to undo, when it is a compensation; the
            restore is then refused if anything came after that event. No part of equality.
    """

    phase: AuthLeasePhase | None = None
    expires_at: int | None = None
    credential_present: bool = False
    generation: int = 0
    credential_published_at_millis: int | None = None
    version: int | None = field(default=None, compare=False, kw_only=True)
    published_by: str | None = field(default=None, compare=False, kw_only=True)
    undoes: int | None = field(default=None, compare=False, kw_only=True, repr=False)

    if TYPE_CHECKING:
        # What may be passed is more than what is held: a plain name becomes a phase.
        def __init__(
            self,
            phase: AuthLeasePhase | LeasePhaseName | None = None,
            expires_at: int | None = None,
            credential_present: bool = False,
            generation: int = 0,
            credential_published_at_millis: int | None = None,
            *,
            version: int | None = None,
            published_by: str | None = None,
            undoes: int | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        if self.phase is not None and type(self.phase) is not AuthLeasePhase:
            object.__setattr__(self, "phase", AuthLeasePhase(self.phase))

    @property
    def is_live(self) -> bool:
        """Whether the lease holds a credential in a phase that a restore would bring back."""
        return self.credential_present and self.phase not in (None, AuthLeasePhase.RELEASED)


class AuthLeaseTransition(msgspec.Struct, frozen=True):
    """What a command that published a credential returns.

    Attributes:
        generation: The generation just published.
        credential_published_at_millis: Epoch milliseconds of the publication; strictly greater than every earlier
            one of the same lease.
        event_id: Id of the event that published, when a ledger recorded one.
        attempt: Id of the refresh attempt that led to it, if one did.
        version: Stream version of that event.
    """

    generation: int
    credential_published_at_millis: int
    event_id: str | None = None
    attempt: str | None = None
    version: int | None = None
