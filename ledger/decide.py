"""The decision: a state and a command give one event, or a refusal. Pure; time and ids come in with the stamp."""

from typing import Final, TypedDict, assert_never

from ledger.commands import (
    Acquire,
    BeginRefresh,
    Command,
    CompleteRefresh,
    FailRefresh,
    MarkExpiring,
    MarkReauthRequired,
    Publication,
    Release,
    ReleaseCredentialLifecycle,
    Restore,
)
from ledger.errors import LeaseTransitionError
from ledger.events import (
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
    RestoredLease,
)
from ledger.keys import LeaseKey
from ledger.phases import TRANSITIONS, Transition
from ledger.snapshot import MAX_U64, AuthLeasePhase
from ledger.state import LeaseState

__all__ = ["Stamp", "decide", "next_publication_at_ms"]


class Stamp(TypedDict):
    """What every event carries beside its payload; see :mod:`ledger.events`."""

    id: str
    at: int
    actor: str
    prev: str
    cause: str | None
    correlation_id: str | None


_PLAIN: Final[dict[type[Command], Transition]] = {
    Acquire: Transition.ACQUIRE,
    MarkExpiring: Transition.MARK_EXPIRING,
    BeginRefresh: Transition.BEGIN_REFRESH,
    CompleteRefresh: Transition.COMPLETE_REFRESH,
    MarkReauthRequired: Transition.MARK_REAUTH_REQUIRED,
    Release: Transition.RELEASE,
    ReleaseCredentialLifecycle: Transition.RELEASE_CREDENTIAL,
    Restore: Transition.RESTORE,
}


def _transition(command: Command) -> Transition:
    if isinstance(command, FailRefresh):
        if command.permanent:
            return Transition.REFRESH_FAILED_PERMANENT
        return Transition.REFRESH_FAILED_TRANSIENT
    return _PLAIN[type(command)]


def _guard(key: LeaseKey, transition: Transition, reason: str) -> LeaseTransitionError:
    return LeaseTransitionError(f"{transition}({key})", "guard_rejected", reason)


def _refusal(key: LeaseKey, transition: Transition, state: LeaseState) -> LeaseTransitionError:
    if state.phase is None:
        return LeaseTransitionError(
            f"{transition}({key})", "no_matching_transition", f"{key} holds no lease; log in first"
        )
    allowed = ", ".join(str(phase or "none") for phase in TRANSITIONS[transition])
    return _guard(key, transition, f"the lease is {state.phase} at version {state.version}; this needs phase {allowed}")


def next_publication_at_ms(state: LeaseState, now_ms: int) -> int:
    """A publication time strictly greater than every one the lease ever had, while 64 bits last.

    Clocks repeat and go back; an order that people read off publication times must not.
    """
    return min(max(now_ms, state.latest_published_at + 1), MAX_U64)


def _publication(
    key: LeaseKey, transition: Transition, state: LeaseState, planned: Publication | None, stamp: Stamp
) -> tuple[int, int]:
    generation = min(state.generation + 1, MAX_U64)
    if planned is None:
        return generation, next_publication_at_ms(state, stamp["at"])
    if planned.generation != generation:
        raise _guard(
            key,
            transition,
            f"the tokens were marked for generation {planned.generation}, but the next one is {generation}",
        )
    if planned.published_at_ms <= state.latest_published_at < MAX_U64:
        raise _guard(
            key,
            transition,
            f"publication time {planned.published_at_ms} ms is not after {state.latest_published_at} ms",
        )
    return generation, planned.published_at_ms


def _check_version(key: LeaseKey, state: LeaseState, command: BeginRefresh | FailRefresh) -> None:
    if command.at_version not in (None, state.version):
        raise _guard(
            key,
            _transition(command),
            f"the lease is at version {state.version}, and the caller decided on version {command.at_version}",
        )


def _check_attempt(key: LeaseKey, state: LeaseState, command: CompleteRefresh | FailRefresh) -> None:
    open_attempt = state.attempt
    if open_attempt is None:
        return
    if command.attempt is not None:
        if command.attempt != open_attempt.id:
            raise _guard(
                key,
                _transition(command),
                f"attempt {command.attempt} was superseded; attempt {open_attempt.id} is open",
            )
    elif open_attempt.holder.instance != command.instance:
        holder = open_attempt.holder
        raise _guard(
            key,
            _transition(command),
            f"attempt {open_attempt.id} is held by process {holder.pid} on {holder.host}, not by this ledger object",
        )


def _decide_restore(key: LeaseKey, state: LeaseState, command: Restore, stamp: Stamp) -> LeaseRestored:
    if command.compensates is not None and command.compensates != state.version:
        raise _guard(
            key,
            Transition.RESTORE,
            f"event {command.compensates} cannot be undone: the lease is at version {state.version}, "
            "and the newer state wins",
        )
    generation = max(state.generation, command.generation)
    live = command.credential_present and command.phase not in (None, AuthLeasePhase.RELEASED)
    lease = (
        RestoredLease(generation, command.phase, command.expires_at, True, command.published_at)
        if live
        else RestoredLease(generation)
    )
    return LeaseRestored(
        **stamp,
        snapshot=lease,
        published_by=command.published_by if live else None,
        attempt=command.attempt if lease.phase is AuthLeasePhase.REFRESHING else None,
        captured_at_version=command.captured_at_version,
        compensates=command.compensates,
    )


def decide(key: LeaseKey, state: LeaseState, command: Command, stamp: Stamp) -> LeaseEvent:
    """Accept a command as one event, or refuse it.

    Args:
        key: The lease, for the words of a refusal.
        state: The lease as its events so far leave it.
        command: What is asked.
        stamp: Id, time, actor and chain digest of the event to come.

    Raises:
        LeaseTransitionError: The phase, the open attempt or a newer state forbids it.
    """
    transition = _transition(command)
    if state.phase not in TRANSITIONS[transition]:
        raise _refusal(key, transition, state)
    match command:
        case Acquire():
            generation, published_at = _publication(key, transition, state, command.publication, stamp)
            return LeaseAcquired(
                **stamp,
                generation=generation,
                expires_at=command.expires_at,
                published_at=published_at,
                attempt=command.attempt,
                store=command.store,
            )
        case MarkExpiring():
            return LeaseExpiring(**stamp)
        case BeginRefresh():
            _check_version(key, state, command)
            return LeaseRefreshStarted(
                **stamp,
                attempt=stamp["id"],
                duration_ms=command.duration_ms,
                holder=command.holder,
                fingerprint=command.fingerprint,
            )
        case CompleteRefresh():
            _check_attempt(key, state, command)
            generation, published_at = _publication(key, transition, state, command.publication, stamp)
            return LeaseRefreshed(
                **stamp,
                generation=generation,
                expires_at=command.expires_at,
                published_at=published_at,
                refreshed_at=command.refreshed_at,
                attempt=state.attempt.id if state.attempt else command.attempt,
                recovered=command.recovered,
            )
        case FailRefresh():
            _check_version(key, state, command)
            _check_attempt(key, state, command)
            return LeaseRefreshFailed(
                **stamp,
                permanent=command.permanent,
                error=command.error,
                status=command.status,
                retry_after=command.retry_after,
                attempt=state.attempt.id if state.attempt else command.attempt,
                abandoned=command.abandoned,
                ended=command.ended,
            )
        case MarkReauthRequired():
            return LeaseReauthRequired(**stamp, reason=command.reason)
        case Release():
            return LeaseReleased(**stamp)
        case ReleaseCredentialLifecycle():
            return LeaseCredentialReleased(**stamp)
        case Restore():
            return _decide_restore(key, state, command, stamp)
        case _:
            assert_never(command)
