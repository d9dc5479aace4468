"""The promise, checked against the server's counters and the ledger's events."""

from collections.abc import Sequence
from dataclasses import dataclass

from demo_parts.plan import Moment
from demo_parts.results import Result
from ledger import LeaseEvent, LeaseKey, LeaseLedger, LeaseRefreshed, LeaseRefreshFailed, LeaseRefreshStarted

__all__ = ["Check", "checks", "events_of", "generations_by_refresh"]


@dataclass(frozen=True)
class Check:
    """A sentence that must be true, and whether it is."""

    sentence: str
    holds: bool


def events_of(url: str, key: LeaseKey) -> list[LeaseEvent]:
    """The events of one lease, in order."""
    with LeaseLedger.open(url, actor="demo") as ledger:
        return [recorded.event for recorded in ledger.read(key)]


def generations_by_refresh(events: Sequence[LeaseEvent]) -> int:
    """How many credentials were published by a refresh."""
    return sum(isinstance(event, LeaseRefreshed) for event in events)


def checks(result: Result, events: Sequence[LeaseEvent], killed: dict[Moment, str]) -> list[Check]:
    """All that the demonstration promises of the half with the ledger."""
    unsent, saved = killed.get("unsent"), killed.get("saved")
    return [
        Check("requests were answered", result.requests_ok > 0),
        Check(f"{result.invalid_grant} invalid_grant answers", result.invalid_grant == 0),
        Check(f"{result.forced_logins} forced logins", result.forced_logins == 0),
        Check(
            f"{result.exchanges} exchanges for {result.generations} generations published by a refresh",
            result.exchanges == result.generations and result.exchanges > 0,
        ),
        Check("no refresh token was sent twice", result.most_presentations == 1),
        Check(
            f"{unsent or 'nobody'} died before it sent its refresh; its attempt shows as abandoned",
            unsent is not None and _abandoned(_last_attempt(unsent, events), events),
        ),
        Check(
            f"{saved or 'nobody'} died between its save and its event; its attempt shows as recovered",
            saved is not None and _recovered(_last_attempt(saved, events), events),
        ),
    ]


def _last_attempt(agent: str, events: Sequence[LeaseEvent]) -> str | None:
    attempts = [event.attempt for event in events if isinstance(event, LeaseRefreshStarted) and event.actor == agent]
    return attempts[-1] if attempts else None


def _abandoned(attempt: str | None, events: Sequence[LeaseEvent]) -> bool:
    return attempt is not None and any(
        isinstance(event, LeaseRefreshFailed) and event.attempt == attempt and event.abandoned for event in events
    )


def _recovered(attempt: str | None, events: Sequence[LeaseEvent]) -> bool:
    return attempt is not None and any(
        isinstance(event, LeaseRefreshed) and event.attempt == attempt and event.recovered for event in events
    )
