"""What can be asked of a lease. Imperative; each is decided on alone and, once accepted, becomes one event."""

import msgspec

from ledger.events import AttemptEnd, Holder, OpenAttempt
from ledger.snapshot import AuthLeasePhase

__all__ = [
    "Acquire",
    "BeginRefresh",
    "Command",
    "CompleteRefresh",
    "FailRefresh",
    "MarkExpiring",
    "MarkReauthRequired",
    "Publication",
    "Release",
    "ReleaseCredentialLifecycle",
    "Restore",
]


class Publication(msgspec.Struct, frozen=True):
    """A publication decided on before its event is appended, so that tokens can be marked with it first.

    Attributes:
        event_id: Id of the event to come.
        generation: The generation it publishes.
        published_at_ms: Its publication time, epoch milliseconds.
    """

    event_id: str
    generation: int
    published_at_ms: int


class Acquire(msgspec.Struct, frozen=True):
    """Publish a credential from a login, or from the late response of ``attempt``. ``expires_at=None``: never.

    ``store`` is the digest of the place the tokens are about to be saved in.
    """

    expires_at: int | None
    publication: Publication | None = None
    attempt: str | None = None
    store: str | None = None


class MarkExpiring(msgspec.Struct, frozen=True):
    """Say that the credential is about to expire."""


class BeginRefresh(msgspec.Struct, frozen=True):
    """Win the right to refresh, for ``duration_ms``; with ``at_version``, only if nothing came after that version."""

    duration_ms: int
    holder: Holder
    fingerprint: str | None = None
    at_version: int | None = None


class CompleteRefresh(msgspec.Struct, frozen=True):
    """Publish what a refresh brought.

    ``attempt=None`` means the attempt that the ledger object ``instance`` has open itself.
    """

    expires_at: int | None
    refreshed_at: int
    instance: str
    attempt: str | None = None
    publication: Publication | None = None
    recovered: bool = False


class FailRefresh(msgspec.Struct, frozen=True):
    """Close an attempt without a credential.

    ``abandoned``: somebody other than its holder closes it. With ``at_version``, only if nothing came after that.
    ``ended``: how it ended, where that is known.
    """

    permanent: bool
    instance: str
    attempt: str | None = None
    error: str | None = None
    status: int | None = None
    retry_after: float | None = None
    abandoned: bool = False
    at_version: int | None = None
    ended: AttemptEnd | None = None


class MarkReauthRequired(msgspec.Struct, frozen=True):
    """Say that only a person can go on."""

    reason: str | None = None


class Release(msgspec.Struct, frozen=True):
    """Give the lease up."""


class ReleaseCredentialLifecycle(msgspec.Struct, frozen=True):
    """Give the credential up."""


class Restore(msgspec.Struct, frozen=True):
    """Put an earlier state back in force.

    Attributes:
        phase: Phase to restore; ``None`` or ``released`` clears the lease, and so does an absent credential.
        expires_at: Epoch seconds; ``None`` means never.
        credential_present: Whether the state restored holds a credential.
        generation: Its generation; the lease never goes below its own.
        published_at: Its publication time.
        published_by: The event that had published it, when known.
        attempt: The attempt that was open then, when known.
        captured_at_version: The stream version it was captured at, when known.
        compensates: The version of the event to undo. Refused when anything came after that event.
    """

    phase: AuthLeasePhase | None
    expires_at: int | None
    credential_present: bool
    generation: int
    published_at: int | None
    published_by: str | None = None
    attempt: OpenAttempt | None = None
    captured_at_version: int | None = None
    compensates: int | None = None


Command = (
    Acquire
    | MarkExpiring
    | BeginRefresh
    | CompleteRefresh
    | FailRefresh
    | MarkReauthRequired
    | Release
    | ReleaseCredentialLifecycle
    | Restore
)
