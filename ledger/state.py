"""The fold: one lease's state, replayed event by event. Pure; it never refuses and never guesses.

An event that the table does not allow in the phase before it is corrupt history.
"""

from collections.abc import Iterable
from typing import Final, assert_never

import msgspec

from ledger.errors import CorruptHistory
from ledger.events import (
    AttemptEnd,
    LeaseAcquired,
    LeaseCredentialReleased,
    LeaseEvent,
    LeaseExpiring,
    LeaseReauthRequired,
    LeaseRefreshed,
    LeaseRefreshFailed,
    LeaseRefreshStarted,
    LeaseReleased,
    LeaseRestored,
    OpenAttempt,
)
from ledger.phases import BY_EVENT, TRANSITIONS, Transition
from ledger.snapshot import AuthLeasePhase, AuthLeaseSnapshot

__all__ = [
    "EMPTY_STATE",
    "FOLD_VERSION",
    "LastFailure",
    "LeaseState",
    "evolve",
    "fold",
    "snapshot_of",
    "transition_of",
]

FOLD_VERSION: Final = 2
"""Raised whenever the fold computes something else from the same events: stored folds of another version are void."""


class LastFailure(msgspec.Struct, frozen=True, omit_defaults=True):
    """The latest refresh failure since the credential in force was published, as its event told it.

    Attributes:
        version: Stream version of that event.
        at: When, epoch milliseconds on the clock of whoever recorded it.
        retry_after: Seconds the server asked to wait.
        consecutive: How many failures in a row, abandonments not counted.
        ended: How the attempt ended, where its event says.
    """

    version: int
    at: int
    permanent: bool
    error: str | None = None
    status: int | None = None
    retry_after: float | None = None
    attempt: str | None = None
    abandoned: bool = False
    consecutive: int = 0
    ended: AttemptEnd | None = None


class LeaseState(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything the events of one stream say about now.

    Attributes:
        version: Events folded so far.
        phase: ``None`` when the key holds no lease.
        expires_at: Epoch seconds; ``None`` means never.
        credential_present: Whether the lease holds a credential.
        generation: How many credentials were published; never goes down.
        published_at: Epoch milliseconds of the publication in force.
        latest_published_at: The greatest publication time this lease ever had, restored ones included.
        published_by: Id of the event that published the credential in force, when known.
        attempt: The open attempt; ``None`` while refreshing means a restore brought back one nobody knows.
        refreshing_since: Version of the event that opened or revived the attempt.
        last_failure: The latest refresh failure since the last publication.
    """

    version: int = 0
    phase: AuthLeasePhase | None = None
    expires_at: int | None = None
    credential_present: bool = False
    generation: int = 0
    published_at: int | None = None
    latest_published_at: int = 0
    published_by: str | None = None
    attempt: OpenAttempt | None = None
    refreshing_since: int | None = None
    last_failure: LastFailure | None = None


EMPTY_STATE: Final = LeaseState()


def transition_of(event: LeaseEvent) -> Transition:
    """The row of the table that an event belongs to."""
    match event:
        case LeaseAcquired():
            return Transition.ACQUIRE
        case LeaseExpiring():
            return Transition.MARK_EXPIRING
        case LeaseRefreshStarted():
            return Transition.BEGIN_REFRESH
        case LeaseRefreshed():
            return Transition.COMPLETE_REFRESH
        case LeaseRefreshFailed():
            if event.permanent:
                return Transition.REFRESH_FAILED_PERMANENT
            return Transition.REFRESH_FAILED_TRANSIENT
        case LeaseReauthRequired():
            return Transition.MARK_REAUTH_REQUIRED
        case LeaseReleased():
            return Transition.RELEASE
        case LeaseCredentialReleased():
            return Transition.RELEASE_CREDENTIAL
        case LeaseRestored():
            return Transition.RESTORE
        case _:
            assert_never(event)


def _published(
    state: LeaseState, version: int, phase: AuthLeasePhase | None, event: LeaseAcquired | LeaseRefreshed
) -> LeaseState:
    return LeaseState(
        version=version,
        phase=phase,
        expires_at=event.expires_at,
        credential_present=True,
        generation=event.generation,
        published_at=event.published_at,
        latest_published_at=max(state.latest_published_at, event.published_at),
        published_by=event.id,
    )


def _in_phase(
    state: LeaseState,
    version: int,
    phase: AuthLeasePhase | None,
    *,
    attempt: OpenAttempt | None = None,
    refreshing_since: int | None = None,
    last_failure: LastFailure | None = None,
) -> LeaseState:
    return LeaseState(
        version,
        phase,
        state.expires_at,
        state.credential_present,
        state.generation,
        state.published_at,
        state.latest_published_at,
        state.published_by,
        attempt,
        refreshing_since,
        last_failure,
    )


def _restored(state: LeaseState, version: int, phase: AuthLeasePhase | None, event: LeaseRestored) -> LeaseState:
    lease = event.snapshot
    return LeaseState(
        version=version,
        phase=phase,
        expires_at=lease.expires_at,
        credential_present=lease.credential_present,
        generation=lease.generation,
        published_at=lease.published_at,
        latest_published_at=max(state.latest_published_at, lease.published_at or 0),
        published_by=event.published_by,
        attempt=event.attempt,
        refreshing_since=version if phase is AuthLeasePhase.REFRESHING else None,
    )


def _failed(state: LeaseState, version: int, event: LeaseRefreshFailed) -> LastFailure:
    before = state.last_failure.consecutive if state.last_failure else 0
    return LastFailure(
        version=version,
        at=event.at,
        permanent=event.permanent,
        error=event.error,
        status=event.status,
        retry_after=event.retry_after,
        attempt=event.attempt,
        abandoned=event.abandoned,
        consecutive=before if event.abandoned else before + 1,
        ended=event.ended,
    )


def evolve(state: LeaseState, event: LeaseEvent, stream: str = "") -> LeaseState:
    """The state after one more event.

    Args:
        state: The state before it.
        event: The event at version ``state.version + 1``.
        stream: The lease key as text, for the error alone.

    Raises:
        CorruptHistory: The table does not allow the event in the phase before it.
    """
    version = state.version + 1
    rows = TRANSITIONS[transition_of(event)]
    if state.phase not in rows:
        raise CorruptHistory(stream, version, f"{event.tag} does not follow phase {state.phase or 'none'}")
    target = rows[state.phase]
    if target is BY_EVENT:
        assert isinstance(event, LeaseRestored)
        phase = event.snapshot.phase
    else:
        phase = target
    match event:
        case LeaseAcquired() | LeaseRefreshed():
            return _published(state, version, phase, event)
        case LeaseRefreshStarted():
            attempt = OpenAttempt(event.attempt, event.duration_ms, event.holder, event.fingerprint)
            return _in_phase(
                state, version, phase, attempt=attempt, refreshing_since=version, last_failure=state.last_failure
            )
        case LeaseRefreshFailed():
            return _in_phase(state, version, phase, last_failure=_failed(state, version, event))
        case LeaseExpiring() | LeaseReauthRequired():
            return _in_phase(state, version, phase, last_failure=state.last_failure)
        case LeaseReleased() | LeaseCredentialReleased():
            return LeaseState(
                version=version,
                phase=phase,
                generation=state.generation,
                latest_published_at=state.latest_published_at,
            )
        case LeaseRestored():
            return _restored(state, version, phase, event)
        case _:
            assert_never(event)


def fold(events: Iterable[LeaseEvent], state: LeaseState = EMPTY_STATE, stream: str = "") -> LeaseState:
    """Replay events onto a state.

    Raises:
        CorruptHistory: An event does not follow from those before it.
    """
    for event in events:
        state = evolve(state, event, stream)
    return state


def snapshot_of(state: LeaseState) -> AuthLeaseSnapshot:
    """The public view of a state."""
    return AuthLeaseSnapshot(
        state.phase,
        state.expires_at,
        state.credential_present,
        state.generation,
        state.published_at,
        version=state.version,
        published_by=state.published_by,
    )
