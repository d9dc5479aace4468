"""The refresh attempts of a report: who, from when to when, and what came of it."""

import msgspec

from ledger.events import LeaseRefreshed, LeaseRefreshFailed, LeaseRefreshStarted
from ledger.reading import RecordedEvent

__all__ = ["Attempt", "AttemptTracker"]


class Attempt(msgspec.Struct):
    """One attempt.

    Attributes:
        key: Index of the lease.
        actor: Index of who began it.
        start: Index of the event that began it.
        end: Index of the event that ended it; ``None`` while open, or when that is not shown.
        outcome: ``open``, ``refreshed``, ``recovered``, ``failed``, ``refused`` (for good), ``abandoned``, or
            ``overtaken`` by a login, a logout, a restore or a demand to log in again.
        duration_ms: By the clocks of those who recorded the two; ``None`` while open, or where a clock went back.
    """

    key: int
    actor: int
    start: int
    end: int | None = None
    outcome: str = "open"
    duration_ms: int | None = None


class AttemptTracker:
    """Finds the attempts in the events, one by one.

    Attributes:
        found: The attempts, in the order they began.
    """

    def __init__(self) -> None:
        self.found: list[Attempt] = []
        self._open: dict[int, tuple[Attempt, int]] = {}

    def take(self, index: int | None, key: int, actor: int, recorded: RecordedEvent) -> None:
        """One more event: its index if it is shown, and those of its lease and actor."""
        event = recorded.event
        if isinstance(event, LeaseRefreshStarted):
            if index is not None:
                attempt = Attempt(key, actor, index)
                self.found.append(attempt)
                self._open[key] = attempt, event.at
        elif key in self._open:
            attempt, began_at = self._open.pop(key)
            attempt.end, attempt.outcome = index, _outcome(recorded)
            attempt.duration_ms = event.at - began_at if event.at >= began_at else None


def _outcome(recorded: RecordedEvent) -> str:
    match recorded.event:
        case LeaseRefreshed(recovered=recovered):
            return "recovered" if recovered else "refreshed"
        case LeaseRefreshFailed(abandoned=True):
            return "abandoned"
        case LeaseRefreshFailed(permanent=permanent):
            return "refused" if permanent else "failed"
        case _:
            return "overtaken"
