"""How verdicts speak of times, people and attempts."""

from ledger.events import LeaseRefreshFailed
from ledger.reading import RecordedEvent
from projections.times import utc_text

__all__ = ["attempt", "cause", "failure", "failure_details", "seconds", "time", "who_when"]


def who_when(recorded: RecordedEvent) -> str:
    """Who made an event, and when by their own clock."""
    return f"{recorded.event.actor} at {time(recorded.event.at)}"


def time(at_ms: int) -> str:
    """A time, to the second where nothing is lost by it."""
    shown = utc_text(at_ms)
    if shown is None:
        return f"{at_ms} ms"
    return shown.replace(".000Z", "Z")


def attempt(started: RecordedEvent) -> str:
    """A refresh attempt: its id, whose, and when it began."""
    return f"attempt {started.event.id[:8]} of {who_when(started)}"


def cause(recorded: RecordedEvent) -> str:
    """The recorded cause as a clause of its own, or nothing."""
    return f" ({recorded.event.cause})" if recorded.event.cause else ""


def failure(event: LeaseRefreshFailed) -> str:
    """What a failure said: its code and HTTP status."""
    status = None if event.status is None else f"HTTP {event.status}"
    return ", ".join(part for part in (event.error, status) if part) or "no details"


def failure_details(event: LeaseRefreshFailed) -> str:
    """The same in brackets, or nothing."""
    return "" if event.error is None and event.status is None else f" ({failure(event)})"


def seconds(duration_s: float) -> str:
    """A duration."""
    return f"{duration_s:g} s"
