"""From an event and the state after it to the readable rows of the audit file. Pure: no clock, no random ids."""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

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
)
from ledger.keys import LeaseKey
from ledger.recorders.base import LogRow
from ledger.snapshot import AuthLeasePhase
from ledger.state import LeaseState
from projections.wide_integers import GREATEST, to_column

__all__ = [
    "EVENT_COLUMNS",
    "EVENT_KINDS",
    "LEASE_COLUMNS",
    "ROW_COLUMNS",
    "LastEvent",
    "RowKind",
    "encoded_state",
    "event_row",
    "lease_row",
    "summary",
]

Row = tuple[Any, ...]

RowKind = tuple[type[LeaseEvent], bool]
"""Which columns a row fills: by the kind of event, and whether it has a cause or a correlation id."""


class EventKind(NamedTuple):
    """What one kind of event carries beyond what all do.

    Rows have a column for whatever any kind carries, most of them empty in any one row. Python's SQLite module takes
    longer to bind a null than a text, so each kind names the columns it fills.

    Attributes:
        columns: The columns it fills.
        values: Their values.
    """

    columns: tuple[str, ...]
    values: Callable[[Any], Row]


class LastEvent(NamedTuple):
    """What a row of current leases says about the lease's last event."""

    position: int
    tag: str
    actor: str
    at_ms: int
    running_at_ms: int


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
    "running_at_ms",
    "actor",
    "phase",
    "generation",
    "expires_at",
    "credential_present",
    "published_at",
    "published_by",
)
"""The columns that every event fills."""

REMARK_COLUMNS: Final = ("cause", "correlation_id")
"""What most events go without."""

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
    "running_at_ms",
    "state",
)
"""What :func:`lease_row` gives, in its order."""

_encode_state = msgspec.json.Encoder().encode

# SQLite's module binds plain texts and integers far faster than their subclasses.
_PHASES: Final[Mapping[str | None, str | None]] = {None: None, **{phase: phase.value for phase in AuthLeasePhase}}


def event_row(
    row: LogRow, key: LeaseKey, event: LeaseEvent, state: LeaseState, digest: str, running_at_ms: int
) -> tuple[RowKind, Row]:
    """The values of one event's row, of the columns that ``ROW_COLUMNS`` names for its kind of row.

    Args:
        row: The event as stored.
        key: Its lease.
        event: The event.
        state: The lease after it.
        digest: Its digest.
        running_at_ms: The greatest time of the lease's events up to it, epoch milliseconds.
    """
    position, stream, version, tag, _ = row
    # Nearly always so, and one look at all four is far cheaper than four calls.
    fit = (
        event.at >= 0
        and max(running_at_ms, state.generation, state.expires_at or 0, state.published_at or 0) <= GREATEST
    )
    kind = type(event)
    values = (
        position,
        stream,
        version,
        key.realm,
        key.binding,
        key.profile,
        tag,
        digest,
        event.id,
        event.at if fit else to_column(event.at),
        running_at_ms if fit else to_column(running_at_ms),
        event.actor,
        _PHASES[state.phase],
        state.generation if fit else to_column(state.generation),
        state.expires_at if fit else to_column(state.expires_at),
        1 if state.credential_present else 0,
        state.published_at if fit else to_column(state.published_at),
        state.published_by,
        *EVENT_KINDS[kind].values(event),
    )
    if event.cause is None and event.correlation_id is None:
        return (kind, False), values
    return (kind, True), (*values, event.cause, event.correlation_id)


def encoded_state(state: LeaseState) -> str:
    """The whole fold as a row of current leases keeps it."""
    return _encode_state(state).decode()


def lease_row(stream: str, key: LeaseKey, state: LeaseState, last: LastEvent) -> Row:
    """The row of one lease as it is now."""
    return (
        stream,
        key.realm,
        key.binding,
        key.profile,
        _PHASES[state.phase],
        to_column(state.generation),
        to_column(state.expires_at),
        1 if state.credential_present else 0,
        to_column(state.published_at),
        state.published_by,
        None if state.attempt is None else state.attempt.id,
        state.version,
        last.position,
        last.tag,
        last.actor,
        to_column(last.at_ms),
        to_column(last.running_at_ms),
        encoded_state(state),
    )


def _acquired(event: LeaseAcquired) -> Row:
    if event.attempt is None:
        return f"logged in: generation {event.generation}", None, event.store
    return f"late response of a superseded refresh: generation {event.generation}", event.attempt, event.store


def _expiring(event: LeaseExpiring) -> Row:
    return ("about to expire",)


def _refresh_started(event: LeaseRefreshStarted) -> Row:
    return (
        f"refresh started, may take {event.duration_ms / 1000:g} s",
        event.attempt,
        to_column(event.duration_ms),
        f"{event.holder.host} pid {event.holder.pid}",
        event.fingerprint,
    )


def _refreshed(event: LeaseRefreshed) -> Row:
    how = ", recovered after a crash" if event.recovered else ""
    recovered = 1 if event.recovered else 0
    return f"refreshed: generation {event.generation}{how}", event.attempt, to_column(event.refreshed_at), recovered


_FAILURES: Final[Mapping[AttemptEnd, str]] = {
    AttemptEnd.NOT_SENT: "refresh not sent",
    AttemptEnd.UNANSWERED: "refresh failed, its outcome is unknown",
    AttemptEnd.UNUSABLE: "refresh answered with no tokens to publish",
    AttemptEnd.OTHER_ACCOUNT: "refresh answered with another account's tokens",
    AttemptEnd.NOT_SAVED: "refresh answered, but its tokens were not saved",
    AttemptEnd.INTERRUPTED: "refresh interrupted before anything was sent",
    AttemptEnd.ABANDONED: "refresh abandoned by its holder",
}


def _how_it_failed(event: LeaseRefreshFailed) -> str:
    if event.abandoned:
        return _FAILURES[AttemptEnd.ABANDONED]
    if event.ended is None or event.ended is AttemptEnd.ANSWERED:
        return "refresh refused for good" if event.permanent else "refresh failed, may be tried again"
    what = _FAILURES.get(event.ended, f"refresh ended {event.ended}")
    return f"{what}; a person has to log in again" if event.permanent else what


def _refresh_failed(event: LeaseRefreshFailed) -> Row:
    what = _how_it_failed(event)
    status = None if event.status is None else f"HTTP {event.status}"
    why = ", ".join(part for part in (event.error, status) if part)
    return (
        f"{what}: {why}" if why else what,
        event.attempt,
        1 if event.permanent else 0,
        1 if event.abandoned else 0,
        None if event.ended is None else event.ended.value,
        event.error,
        to_column(event.status),
        event.retry_after,
    )


def _reauth_required(event: LeaseReauthRequired) -> Row:
    what = "a person has to log in again"
    return (f"{what}: {event.reason}" if event.reason else what), event.reason


def _released(event: LeaseReleased) -> Row:
    return ("logged out: lease released",)


def _credential_released(event: LeaseCredentialReleased) -> Row:
    return ("credential released",)


def _restored(event: LeaseRestored) -> Row:
    lease = event.snapshot
    what = f"restored: {lease.phase or 'no lease'}, generation {lease.generation}"
    undone = "" if event.compensates is None else f", undoing event {event.compensates}"
    return (
        what + undone,
        None if event.attempt is None else event.attempt.id,
        to_column(event.compensates),
        to_column(event.captured_at_version),
    )


EVENT_KINDS: Final[Mapping[type[LeaseEvent], EventKind]] = {
    LeaseAcquired: EventKind(("summary", "attempt", "store"), _acquired),
    LeaseExpiring: EventKind(("summary",), _expiring),
    LeaseRefreshStarted: EventKind(("summary", "attempt", "duration_ms", "holder", "fingerprint"), _refresh_started),
    LeaseRefreshed: EventKind(("summary", "attempt", "refreshed_at", "recovered"), _refreshed),
    LeaseRefreshFailed: EventKind(
        ("summary", "attempt", "permanent", "abandoned", "ended", "error", "status", "retry_after"), _refresh_failed
    ),
    LeaseReauthRequired: EventKind(("summary", "reason"), _reauth_required),
    LeaseReleased: EventKind(("summary",), _released),
    LeaseCredentialReleased: EventKind(("summary",), _credential_released),
    LeaseRestored: EventKind(("summary", "attempt", "compensates", "captured_at_version"), _restored),
}
"""Every kind of event there is."""


def summary(event: LeaseEvent) -> str:
    """What happened, in words."""
    return str(EVENT_KINDS[type(event)].values(event)[0])


ROW_COLUMNS: Final[Mapping[RowKind, tuple[str, ...]]] = {
    (kind, remarked): (*EVENT_COLUMNS, *carries.columns, *(REMARK_COLUMNS if remarked else ()))
    for kind, carries in EVENT_KINDS.items()
    for remarked in (False, True)
}
"""The columns that each kind of row fills, in the order of its values."""
