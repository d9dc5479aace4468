"""The events of a lease, each with its stable tag. Past tense; immutable; never a secret in them.

A tag's shape may gain a field with a default and nothing else: names are never changed or removed. Times named
``at`` and ``*_at`` of a publication are epoch milliseconds; ``expires_at`` and ``refreshed_at`` are epoch seconds.
"""

from enum import StrEnum
from typing import ClassVar, Final, Self

import msgspec

from ledger.snapshot import AuthLeasePhase

__all__ = [
    "EVENT_TYPES",
    "AttemptEnd",
    "Holder",
    "LeaseAcquired",
    "LeaseCredentialReleased",
    "LeaseEvent",
    "LeaseExpiring",
    "LeaseReauthRequired",
    "LeaseRefreshFailed",
    "LeaseRefreshStarted",
    "LeaseRefreshed",
    "LeaseReleased",
    "LeaseRestored",
    "OpenAttempt",
    "RestoredLease",
]


class AttemptEnd(StrEnum):
    """How a refresh attempt that brought no stored credential ended, told by whoever knew.

    A value that a newer version wrote is kept as it stands and equals none of these.

    Attributes:
        NOT_SENT: No request left, so the refresh token is unspent.
        UNANSWERED: It was or may have been sent, and its outcome is unknown.
        ANSWERED: The server answered that it refuses.
        UNUSABLE: The server answered with something that holds no tokens to publish.
        OTHER_ACCOUNT: The server answered with the tokens of another account than the lease's.
        NOT_SAVED: The server gave new tokens, and they are in the caller's hands only.
        INTERRUPTED: An interrupt or a cancellation ended it before anything was sent.
        ABANDONED: Somebody other than its holder closed it, to take over.
    """

    NOT_SENT = "not_sent"
    UNANSWERED = "unanswered"
    ANSWERED = "answered"
    UNUSABLE = "unusable"
    OTHER_ACCOUNT = "other_account"
    NOT_SAVED = "not_saved"
    INTERRUPTED = "interrupted"
    ABANDONED = "abandoned"

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        # Called for a value that this version does not know: refusing it would make the whole event unreadable.
        if not isinstance(value, str):
            return None
        unknown = str.__new__(cls, value)
        unknown._name_ = value
        unknown._value_ = value
        return unknown


class Holder(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who holds an attempt, told exactly enough that another process on the host can prove it gone.

    Attributes:
        host: Host name.
        boot: Identity of this boot of the host, and of the process namespace where hosts have several.
        pid: Process id within that boot and namespace.
        started: The process's start time as the host tells it (text, compared for equality only): a process id
            is used again, a process id with its start time is not.
        instance: Random id of the ledger object that began the attempt.
    """

    host: str
    boot: str
    pid: int
    started: str = ""
    instance: str = ""


class OpenAttempt(msgspec.Struct, frozen=True, omit_defaults=True):
    """A refresh attempt that is open.

    Attributes:
        id: Id of the ``lease.refresh_started`` event that began it.
        duration_ms: How long it may take before others may take over, on each observer's own clock.
        holder: Who holds it.
        fingerprint: Keyed fingerprint of the refresh token it is about to spend, when one was given.
    """

    id: str
    duration_ms: int
    holder: Holder
    fingerprint: str | None = None


class RestoredLease(msgspec.Struct, frozen=True, omit_defaults=True):
    """The lease a restore put in force. No phase: the restore cleared the lease."""

    generation: int
    phase: AuthLeasePhase | None = None
    expires_at: int | None = None
    credential_present: bool = False
    published_at: int | None = None


class _Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Common to all events.

    Attributes:
        id: Random; tells your own committed event from a rival's equal one.
        at: When it was decided, epoch milliseconds on the writer's clock. Advisory: order is by version and position.
        actor: Who: agent name, host and process as one short text.
        prev: Digest of the previous event of the stream, as :mod:`ledger.chain` defines it.
        cause: Why, in the caller's words.
        correlation_id: What the caller files it under.
    """

    tag: ClassVar[str]

    id: str
    at: int
    actor: str
    prev: str
    cause: str | None = None
    correlation_id: str | None = None


class LeaseAcquired(_Event, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A login published a credential.

    Attributes:
        attempt: The superseded attempt whose late response this records.
        store: Digest of the place the tokens were about to be saved in, for a login that saves after its event: tokens
            that are not there were never saved.
    """

    tag: ClassVar[str] = "lease.acquired"

    generation: int
    expires_at: int | None = None
    published_at: int
    attempt: str | None = None
    store: str | None = None


class LeaseExpiring(_Event, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The credential is about to expire."""

    tag: ClassVar[str] = "lease.expiring"


class LeaseRefreshStarted(_Event, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One process won the right to spend the refresh token. ``attempt`` is this event's own id."""

    tag: ClassVar[str] = "lease.refresh_started"

    attempt: str
    duration_ms: int
    holder: Holder
    fingerprint: str | None = None


class LeaseRefreshed(_Event, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A refresh published a credential. ``recovered``: recorded after a crash, from the stored tokens' marker."""

    tag: ClassVar[str] = "lease.refreshed"

    generation: int
    expires_at: int | None = None
    published_at: int
    refreshed_at: int
    attempt: str | None = None
    recovered: bool = False


class LeaseRefreshFailed(_Event, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A refresh failed, or was abandoned by its holder and taken over.

    Attributes:
        permanent: Whether only a person can go on.
        error: OAuth error code, or an exception's class name.
        status: HTTP status.
        retry_after: Seconds the server asked to wait.
        attempt: The attempt it closes.
        abandoned: Whether somebody other than the holder closed it.
        ended: How it ended; ``None`` where whoever wrote the event did not say.
    """

    tag: ClassVar[str] = "lease.refresh_failed"

    permanent: bool
    error: str | None = None
    status: int | None = None
    retry_after: float | None = None
    attempt: str | None = None
    abandoned: bool = False
    ended: AttemptEnd | None = None


class LeaseReauthRequired(_Event, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Only a person can go on from here."""

    tag: ClassVar[str] = "lease.reauth_required"

    reason: str | None = None


class LeaseReleased(_Event, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The lease was given up."""

    tag: ClassVar[str] = "lease.released"


class LeaseCredentialReleased(_Event, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The credential was given up; login flows on the key would stay."""

    tag: ClassVar[str] = "lease.credential_released"


class LeaseRestored(_Event, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """An earlier state was put back in force: the compensation of a step that could not be finished.

    Attributes:
        snapshot: The lease now in force.
        published_by: Id of the event that had published it, when known.
        attempt: The attempt that is open again, when there is one.
        captured_at_version: The stream version the restored state was captured at.
        compensates: The version of the event this one undoes.
    """

    tag: ClassVar[str] = "lease.restored"

    snapshot: RestoredLease
    published_by: str | None = None
    attempt: OpenAttempt | None = None
    captured_at_version: int | None = None
    compensates: int | None = None


LeaseEvent = (
    LeaseAcquired
    | LeaseExpiring
    | LeaseRefreshStarted
    | LeaseRefreshed
    | LeaseRefreshFailed
    | LeaseReauthRequired
    | LeaseReleased
    | LeaseCredentialReleased
    | LeaseRestored
)

EVENT_TYPES: Final[tuple[type[LeaseEvent], ...]] = (
    LeaseAcquired,
    LeaseExpiring,
    LeaseRefreshStarted,
    LeaseRefreshed,
    LeaseRefreshFailed,
    LeaseReauthRequired,
    LeaseReleased,
    LeaseCredentialReleased,
    LeaseRestored,
)
