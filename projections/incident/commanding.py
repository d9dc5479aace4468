"""From an event back to the command that led to it, so that a changed history can be decided anew."""

from typing import assert_never

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
)
from ledger.snapshot import MAX_U64
from ledger.state import LeaseState

__all__ = ["attempt_of", "command_of"]


def attempt_of(event: LeaseEvent) -> str | None:
    """The refresh attempt an event belongs to."""
    match event:
        case LeaseRefreshStarted() | LeaseRefreshed() | LeaseRefreshFailed() | LeaseAcquired():
            return event.attempt
        case LeaseExpiring() | LeaseReauthRequired() | LeaseReleased() | LeaseCredentialReleased() | LeaseRestored():
            return None
        case _:
            assert_never(event)


def command_of(event: LeaseEvent, state: LeaseState, compensates: int | None) -> Command:
    """The command that an event records.

    A publication is planned on the state it meets, as those who publish do: in a changed history it has another
    generation, and that alone is no reason to refuse it.

    Args:
        event: The event.
        state: The state the command is to meet.
        compensates: For a restore, the version that the event it undoes has in this history.
    """
    match event:
        case LeaseAcquired():
            return Acquire(event.expires_at, _publication(event, state), event.attempt, event.store)
        case LeaseExpiring():
            return MarkExpiring()
        case LeaseRefreshStarted():
            return BeginRefresh(event.duration_ms, event.holder, event.fingerprint)
        case LeaseRefreshed():
            publication = _publication(event, state)
            # An attempt that nobody knows may be completed by anybody, so that the holder's name does not matter.
            return CompleteRefresh(
                event.expires_at, event.refreshed_at, "", event.attempt, publication, event.recovered
            )
        case LeaseRefreshFailed():
            return FailRefresh(
                event.permanent,
                "",
                event.attempt,
                event.error,
                event.status,
                event.retry_after,
                event.abandoned,
                ended=event.ended,
            )
        case LeaseReauthRequired():
            return MarkReauthRequired(event.reason)
        case LeaseReleased():
            return Release()
        case LeaseCredentialReleased():
            return ReleaseCredentialLifecycle()
        case LeaseRestored():
            return _restore(event, compensates)
        case _:
            assert_never(event)


def _publication(event: LeaseAcquired | LeaseRefreshed, state: LeaseState) -> Publication:
    generation = min(state.generation + 1, MAX_U64)
    return Publication(event.id, generation, min(max(event.published_at, state.latest_published_at + 1), MAX_U64))


def _restore(event: LeaseRestored, compensates: int | None) -> Restore:
    lease = event.snapshot
    return Restore(
        phase=lease.phase,
        expires_at=lease.expires_at,
        credential_present=lease.credential_present,
        generation=lease.generation,
        published_at=lease.published_at,
        published_by=event.published_by,
        attempt=event.attempt,
        captured_at_version=event.captured_at_version,
        compensates=compensates,
    )
