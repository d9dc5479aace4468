"""From an event and the state after it to the readable rows of the audit file. Pure: no clock, no random ids."""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

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
from ledger.keys import LeaseKey
from ledger.recorders.base import LogRow
from ledger.state import LeaseState
from projections.wide_integers import GREATEST, to_column

__all__ = ["EVENT_COLUMNS", "LEASE_COLUMNS", "LastEvent", "event_row", "lease_row", "summary_of"]

Row = tuple[Any, ...]


class _Details(NamedTuple):
    """What only some kinds of event carry, and the event in words."""

    summary: str
    attempt: str | None = None
    recovered: bool | None = None
    permanent: bool | None = None
    abandoned: bool | None = None
    error: str | None = None
    status: int | str | None = None
    retry_after: float | None = None
    reason: str | None = None
    refreshed_at: int | str | None = None
    duration_ms: int | str | None = None
    holder: str | None = None
    fingerprint: str | None = None
    compensates: int | str | None = None
    captured_at_version: int | str | None = None


class LastEvent(NamedTuple):
    """What a row of current leases says about the lease's last event."""

    position: int
    tag: str
    actor: str
    at_ms: int


EVENT_COLUMNS: Final = (
    "position",
    "key",
    "version",
    "realm",
    "binding",
    "profile",
    "tag",
    "digest",
    "event_id",
    "at_ms",
    "actor",
    "cause",
    "correlation_id",
    "phase",
    "generation",
    "expires_at",
    "credential_present",
    "published_at",
    "published_by",
    *_Details._fields,
)
"""What :func:`event_row` gives, in its order."""

LEASE_COLUMNS: Final = (
    "key",
    "realm",
    "binding",
    "profile",
    "phase",
    "generation",
    "expires_at",
    "credential_present",
    "published_at",
    "published_by",
    "attempt",
    "version",
    "position",
    "tag",
    "actor",
    "at_ms",
    "state",
)
"""What :func:`lease_row` gives, in its order."""

_encode_state = msgspec.json.Encoder().encode


def event_row(row: LogRow, key: LeaseKey, event: LeaseEvent, state: LeaseState, digest: str) -> Row:
    """The row of one event.

    Args:
        row: The event as stored.
        key: Its lease.
        event: The event.
        state: The lease after it.
        digest: Its digest.
    """
    position, stream, version, tag, _ = row
    numbers = (event.at, state.generation, state.expires_at or 0, state.published_at or 0)
    # Nearly always so, and one look at all four is far cheaper than four calls.
    all_fit = max(numbers) <= GREATEST and event.at >= 0
    return (
        position,
        stream,
        version,
        key.realm,
        key.binding,
        key.profile,
        tag,
        digest,
        event.id,
        event.at if all_fit else to_column(event.at),
        event.actor,
        event.cause,
        event.correlation_id,
        state.phase,
        state.generation if all_fit else to_column(state.generation),
        state.expires_at if all_fit else to_column(state.expires_at),
        state.credential_present,
        state.published_at if all_fit else to_column(state.published_at),
        state.published_by,
        *_DETAILS[type(event)](event),
    )


def lease_row(stream: str, key: LeaseKey, state: LeaseState, last: LastEvent) -> Row:
    """The row of one lease as it is now."""
    return (
        stream,
        key.realm,
        key.binding,
        key.profile,
        state.phase,
        to_column(state.generation),
        to_column(state.expires_at),
        state.credential_present,
        to_column(state.published_at),
        state.published_by,
        None if state.attempt is None else state.attempt.id,
        state.version,
        last.position,
        last.tag,
        last.actor,
        to_column(last.at_ms),
        _encode_state(state).decode(),
    )


def summary_of(event: LeaseEvent) -> str:
    """The event in one line of words."""
    return _DETAILS[type(event)](event).summary


def _acquired(event: LeaseAcquired) -> _Details:
    if event.attempt is None:
        return _Details(f"logged in: generation {event.generation}")
    return _Details(f"late response of a superseded refresh: generation {event.generation}", event.attempt)


def _expiring(event: LeaseExpiring) -> _Details:
    return _Details("about to expire")


def _refresh_started(event: LeaseRefreshStarted) -> _Details:
    return _Details(
        f"refresh started, may take {event.duration_ms / 1000:g} s",
        event.attempt,
        duration_ms=to_column(event.duration_ms),
        holder=f"{event.holder.host} pid {event.holder.pid}",
        fingerprint=event.fingerprint,
    )


def _refreshed(event: LeaseRefreshed) -> _Details:
    how = ", recovered after a crash" if event.recovered else ""
    return _Details(
        f"refreshed: generation {event.generation}{how}",
        event.attempt,
        event.recovered,
        refreshed_at=to_column(event.refreshed_at),
    )


def _refresh_failed(event: LeaseRefreshFailed) -> _Details:
    if event.abandoned:
        what = "refresh abandoned by its holder"
    elif event.permanent:
        what = "refresh refused for good"
    else:
        what = "refresh failed, may be tried again"
    status = None if event.status is None else f"HTTP {event.status}"
    why = ", ".join(part for part in (event.error, status) if part)
    return _Details(
        f"{what}: {why}" if why else what,
        event.attempt,
        None,
        event.permanent,
        event.abandoned,
        event.error,
        to_column(event.status),
        event.retry_after,
    )


def _reauth_required(event: LeaseReauthRequired) -> _Details:
    what = "a person has to log in again"
    return _Details(f"{what}: {event.reason}" if event.reason else what, reason=event.reason)


def _released(event: LeaseReleased) -> _Details:
    return _Details("logged out: lease released")


def _credential_released(event: LeaseCredentialReleased) -> _Details:
    return _Details("credential released")


def _restored(event: LeaseRestored) -> _Details:
    lease = event.snapshot
    if lease.phase is None:
        what = f"restored: no lease, generation {lease.generation}"
    else:
        what = f"restored: {lease.phase}, generation {lease.generation}"
    undone = "" if event.compensates is None else f", undoing event {event.compensates}"
    return _Details(
        what + undone,
        None if event.attempt is None else event.attempt.id,
        compensates=to_column(event.compensates),
        captured_at_version=to_column(event.captured_at_version),
    )


_DETAILS: Final[Mapping[type[LeaseEvent], Callable[[Any], _Details]]] = {
    LeaseAcquired: _acquired,
    LeaseExpiring: _expiring,
    LeaseRefreshStarted: _refresh_started,
    LeaseRefreshed: _refreshed,
    LeaseRefreshFailed: _refresh_failed,
    LeaseReauthRequired: _reauth_required,
    LeaseReleased: _released,
    LeaseCredentialReleased: _credential_released,
    LeaseRestored: _restored,
}
