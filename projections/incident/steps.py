"""Stepping through an incident, forward and backward: the lease before an event, the event, the lease after it."""

from collections.abc import Callable, Sequence

import msgspec

from ledger.errors import LeaseLedgerError
from ledger.keys import LeaseKey
from ledger.reading import RecordedEvent
from ledger.state import LeaseState
from projections.incident.streams import BundleStreams
from projections.time_travel.changes import changed_fields

__all__ = ["NoSuchStep", "Replay", "Step", "steps_of"]


class Step(msgspec.Struct, frozen=True):
    """One event of an incident and what it did.

    Attributes:
        number: Its place in the incident, from 1.
        recorded: The event.
        before: Its lease before it.
        after: Its lease after it.
        changed: The fields of the lease that it changed.
        clock_back_ms: By how much it is dated before an event that its lease recorded earlier: a clock went back.
    """

    number: int
    recorded: RecordedEvent
    before: LeaseState
    after: LeaseState
    changed: tuple[str, ...]
    clock_back_ms: int = 0


class NoSuchStep(LeaseLedgerError, LookupError):
    """An incident has no such step, position or event; the message says which it has."""


def steps_of(streams: BundleStreams) -> tuple[Step, ...]:
    """Every step of an incident, in the order of the log."""
    steps: list[Step] = []
    latest_ms: dict[LeaseKey, int] = {}
    for number, recorded in enumerate(streams.recorded, 1):
        key, version, now_ms = recorded.key, recorded.version, recorded.event.at
        before, after = streams.state(key, version - 1), streams.state(key, version)
        latest_ms[key] = max(latest_ms.get(key, now_ms), now_ms)
        back_ms = latest_ms[key] - now_ms
        steps.append(Step(number, recorded, before, after, changed_fields(before, after), back_ms))
    return tuple(steps)


class Replay:
    """A place in an incident that can be moved: between its events, from before the first to after the last.

    Args:
        streams: The incident's streams.

    Attributes:
        steps: Every step there is.
        done: How many of them lie behind; 0 at the start.
    """

    def __init__(self, streams: BundleStreams) -> None:
        self._streams = streams
        self.steps: Sequence[Step] = steps_of(streams)
        self.done: int = 0

    @property
    def step(self) -> Step | None:
        """The step just made; ``None`` at the start."""
        return self.steps[self.done - 1] if self.done else None

    def states(self) -> dict[LeaseKey, LeaseState]:
        """Every lease of the incident as it is at this place."""
        versions = {key: self._streams.first_version(key) - 1 for key in self._streams.leases}
        versions |= {step.recorded.key: step.recorded.version for step in self.steps[: self.done]}
        return {key: self._streams.state(key, version) for key, version in versions.items()}

    def forward(self) -> Step | None:
        """Go on by one event; ``None`` at the end."""
        if self.done == len(self.steps):
            return None
        self.done += 1
        return self.step

    def back(self) -> Step | None:
        """Go back by one event and answer the step that is then the last; ``None`` at the start."""
        self.done = max(self.done - 1, 0)
        return self.step

    def go_to(self, number: int) -> Step | None:
        """Go to the place right after a step; 0 is the start.

        Raises:
            NoSuchStep: There is no such step.
        """
        if not 0 <= number <= len(self.steps):
            raise NoSuchStep(f"there is no step {number}; the incident has {len(self.steps)}")
        self.done = number
        return self.step

    def go_to_position(self, position: int) -> Step | None:
        """Go to the place right after the event at a log position.

        Raises:
            NoSuchStep: The incident does not hold it.
        """
        return self._go_where(lambda step: step.recorded.position == position, f"position {position}")

    def go_to_event(self, event_id: str) -> Step | None:
        """Go to the place right after an event; the beginning of its id will do.

        Raises:
            NoSuchStep: The incident does not hold it.
        """
        return self._go_where(lambda step: step.recorded.event.id.startswith(event_id), f"event {event_id}")

    def forward_until(self, holds: Callable[[Step], bool]) -> Step | None:
        """Go on to the next step at which a condition holds; ``None``, and no move, when there is none."""
        return self._until(range(self.done, len(self.steps)), holds)

    def back_until(self, holds: Callable[[Step], bool]) -> Step | None:
        """Go back to the last step before this one at which a condition holds; ``None``, and no move, for none."""
        return self._until(range(self.done - 2, -1, -1), holds)

    def _until(self, indexes: range, holds: Callable[[Step], bool]) -> Step | None:
        for index in indexes:
            if holds(self.steps[index]):
                self.done = index + 1
                return self.step
        return None

    def _go_where(self, holds: Callable[[Step], bool], what: str) -> Step | None:
        found = next((step for step in self.steps if holds(step)), None)
        if found is None:
            raise NoSuchStep(f"the incident does not hold {what}")
        return self.go_to(found.number)
