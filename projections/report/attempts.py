"""The refresh attempts of a report: who, from when to when, and what came of it."""

import msgspec

from ledger.events import AttemptEnd, LeaseRefreshStarted
from ledger.reading import RecordedEvent
from projections.attempts import AttemptOutcome, attempt_named, ended_as, outcome_said

__all__ = ["Attempt", "AttemptTracker"]


class Attempt(msgspec.Struct, omit_defaults=True):
    """One attempt.

    Attributes:
        key: Index of the lease.
        actor: Index of who began it.
        start: Index of the event that began it.
        end: Index of the event that ended it; ``None`` while open, or when that is not shown.
        outcome: What came of it.
        duration_ms: By the clocks of those who recorded the two; ``None`` while open, or where a clock went back.
        ended: How it ended, for one that failed; left out where its event does not say.
    """

    key: int
    actor: int
    start: int
    end: int | None
    outcome: AttemptOutcome
    duration_ms: int | None
    ended: AttemptEnd | None = None


class AttemptTracker:
    """Finds the attempts in the events, one by one.

    Attributes:
        found: The attempts, in the order they began.
    """

    def __init__(self) -> None:
        self.found: list[Attempt] = []
        self._known: dict[tuple[int, str], tuple[Attempt, int]] = {}
        self._open: dict[int, str] = {}

    def take(self, index: int | None, key: int, actor: int, recorded: RecordedEvent) -> None:
        """One more event: its index if it is shown, and those of its lease and actor."""
        event, named = recorded.event, attempt_named(recorded.event)
        overtaken = self._open.pop(key, None)
        if overtaken is not None and overtaken != named:
            self._end(index, key, overtaken, recorded, AttemptOutcome.OVERTAKEN)
        if isinstance(event, LeaseRefreshStarted) and index is not None:
            attempt = Attempt(key, actor, index, None, AttemptOutcome.OPEN, None)
            self.found.append(attempt)
            self._known[key, event.attempt] = attempt, event.at
        if named is not None and (key, named) in self._known:
            self._end(index, key, named, recorded, outcome_said(event))

    def _end(self, index: int | None, key: int, named: str, recorded: RecordedEvent, outcome: AttemptOutcome) -> None:
        attempt, began_at = self._known[key, named]
        attempt.outcome, attempt.ended = outcome, ended_as(recorded.event)
        if outcome is AttemptOutcome.OPEN:
            attempt.end = attempt.duration_ms = None
            self._open[key] = named
            return
        attempt.end = index
        took_ms = recorded.event.at - began_at
        attempt.duration_ms = took_ms if took_ms >= 0 else None
