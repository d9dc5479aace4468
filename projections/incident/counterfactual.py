"""What if? An incident replayed with events left out, moved or added, or an attempt refused.

The changed history goes through the same decision and the same fold as the real one did. What the decision refuses is
no part of the outcome, and the first such refusal is where the histories part.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, Literal

import msgspec

from ledger.commands import Command
from ledger.decide import Stamp, decide
from ledger.errors import LeaseTransitionError
from ledger.events import LeaseEvent
from ledger.keys import LeaseKey
from ledger.state import LeaseState, evolve
from projections.incident.commanding import attempt_of, command_of
from projections.incident.steps import NoSuchStep
from projections.incident.streams import BundleStreams
from projections.time_travel.changes import changed_fields

__all__ = ["Change", "Counterfactual", "FieldDifference", "Insertion", "Outcome", "replay_changed"]


class Insertion(msgspec.Struct, frozen=True):
    """A command that nobody gave.

    Attributes:
        after: The log position it comes after; 0 for the start.
        key: Its lease.
        command: What is asked.
        at_ms: When, epoch milliseconds; at the time of the event before it by default.
        actor: Who asks.
    """

    after: int
    key: LeaseKey
    command: Command
    at_ms: int | None = None
    actor: str = "nobody (counterfactual)"


class Change(msgspec.Struct, frozen=True):
    """How a history is changed. Events are named by their log position.

    Attributes:
        without: Events to leave out.
        moved: Events to move: each a position, and the position it is to come right after (0: the start).
        insertions: Commands to add.
        refused_attempts: Refresh attempts to refuse: neither they nor what they led to happens. The beginning of an id
            will do.
    """

    without: Collection[int] = ()
    moved: Sequence[tuple[int, int]] = ()
    insertions: Sequence[Insertion] = ()
    refused_attempts: Collection[str] = ()


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one event or command in the changed history.

    Attributes:
        result: ``accepted``, ``refused`` by the decision, or ``left out`` by the change itself.
        key: The lease as text.
        tag: What kind of event it was, or would have been.
        position: Its log position in the real history; ``None`` for one added.
        version: Its stream version in the changed history, if it was accepted.
        reason: Why it was refused or left out.
    """

    result: Literal["accepted", "refused", "left out"]
    key: str
    tag: str
    position: int | None = None
    version: int | None = None
    reason: str | None = None


class FieldDifference(msgspec.Struct, frozen=True):
    """A field of a lease that ends differently.

    Attributes:
        key: The lease as text.
        field: The field.
        real: How it really ended.
        changed: How it ends in the changed history.
    """

    key: str
    field: str
    real: Any
    changed: Any


class Counterfactual(msgspec.Struct, frozen=True):
    """A changed history.

    Attributes:
        outcomes: What became of each event and command, in the order they were replayed.
        first_refusal: The first that the decision refused; ``None`` when it accepted all.
        differences: Where the leases end differently.
        states: How each lease ends, by key.
    """

    outcomes: tuple[Outcome, ...]
    first_refusal: Outcome | None
    differences: tuple[FieldDifference, ...]
    states: dict[str, LeaseState]


def replay_changed(streams: BundleStreams, change: Change) -> Counterfactual:
    """Replay an incident as it was not.

    Raises:
        NoSuchStep: The change names an event, attempt or lease that the incident does not hold.
        CorruptHistory: The fold refuses what the decision accepted, which would be a mistake in one of them.
    """
    history = _History(streams, change)
    outcomes = tuple(history.run())
    differences = tuple(
        FieldDifference(str(key), field, getattr(real, field), getattr(changed, field))
        for key, changed in history.states.items()
        for real in (streams.state(key, streams.last_version(key)),)
        for field in changed_fields(_unnumbered(real), _unnumbered(changed))
    )
    refusals = (outcome for outcome in outcomes if outcome.result == "refused")
    states = {str(key): state for key, state in history.states.items()}
    return Counterfactual(outcomes, next(refusals, None), differences, states)


def _unnumbered(state: LeaseState) -> LeaseState:
    """A state without the version numbers in it: one event less shifts them all, which is no difference."""
    failure = state.last_failure
    return msgspec.structs.replace(
        state,
        refreshing_since=None,
        last_failure=None if failure is None else msgspec.structs.replace(failure, version=0),
    )


class _History:
    def __init__(self, streams: BundleStreams, change: Change) -> None:
        self._streams = streams
        self._change = change
        self.states = {key: streams.state(key, streams.first_version(key) - 1) for key in streams.leases}
        self._versions: dict[tuple[LeaseKey, int], int] = {}
        self._at_ms = streams.recorded[0].event.at if streams.recorded else 0
        self._check()

    def _check(self) -> None:
        positions = {recorded.position for recorded in self._streams.recorded}
        named = {*self._change.without, *(position for position, _ in self._change.moved)}
        targets = {after for _, after in self._change.moved} | {added.after for added in self._change.insertions}
        missing = sorted((named - positions) | (targets - positions - {0}))
        if missing:
            raise NoSuchStep(f"the incident does not hold position {missing[0]}")
        for added in self._change.insertions:
            if added.key not in self.states:
                raise NoSuchStep(f"the incident is not about {added.key}")
        attempts = {attempt_of(recorded.event) or "" for recorded in self._streams.recorded}
        for refused in self._change.refused_attempts:
            if not refused or not any(attempt.startswith(refused) for attempt in attempts):
                raise NoSuchStep(f"the incident does not hold attempt {refused!r}")

    def run(self) -> Iterator[Outcome]:
        """Replay everything in its new order."""
        by_position = {recorded.position: recorded for recorded in self._streams.recorded}
        for place in self._order(list(by_position)):
            if isinstance(place, Insertion):
                yield self._insert(place)
                continue
            recorded = by_position[place]
            self._at_ms = recorded.event.at
            why = self._left_out(place, recorded.event)
            if why is not None:
                yield Outcome("left out", str(recorded.key), recorded.event.tag, place, reason=why)
            else:
                yield self._replay(place, recorded.key, recorded.version, recorded.event)

    def _order(self, positions: list[int]) -> Iterator[int | Insertion]:
        order = list(positions)
        for position, after in self._change.moved:
            order.remove(position)
            order.insert(order.index(after) + 1 if after else 0, position)
        for place in (0, *order):
            if place:
                yield place
            yield from (added for added in self._change.insertions if added.after == place)

    def _left_out(self, position: int, event: LeaseEvent) -> str | None:
        if position in self._change.without:
            return "left out"
        attempt = attempt_of(event)
        if attempt is not None and any(attempt.startswith(refused) for refused in self._change.refused_attempts):
            return f"attempt {attempt[:8]} was refused"
        return None

    def _replay(self, position: int, key: LeaseKey, version: int, event: LeaseEvent) -> Outcome:
        undone = getattr(event, "compensates", None)
        compensates = None if undone is None else self._versions.get((key, undone), undone)
        first = self._streams.first_version(key)
        if undone is not None and undone >= first and (key, undone) not in self._versions:
            return Outcome(
                "refused", str(key), event.tag, position, reason=f"event {undone}, which it undoes, did not happen"
            )
        command = command_of(event, self.states[key], compensates)
        stamp = Stamp(
            id=event.id, at=event.at, actor=event.actor, prev="", cause=event.cause, correlation_id=event.correlation_id
        )
        outcome = self._decided(key, command, stamp, event.tag, position)
        if outcome.version is not None:
            self._versions[key, version] = outcome.version
        return outcome

    def _insert(self, added: Insertion) -> Outcome:
        at_ms = self._at_ms if added.at_ms is None else added.at_ms
        number = len(self._versions) + sum(state.version for state in self.states.values())
        stamp = Stamp(
            id=f"inserted-{number}", at=at_ms, actor=added.actor, prev="", cause="counterfactual", correlation_id=None
        )
        return self._decided(added.key, added.command, stamp, type(added.command).__name__, None)

    def _decided(self, key: LeaseKey, command: Command, stamp: Stamp, tag: str, position: int | None) -> Outcome:
        state = self.states[key]
        try:
            event = decide(key, state, command, stamp)
        except LeaseTransitionError as refused:
            return Outcome("refused", str(key), tag, position, reason=refused.reason)
        self.states[key] = evolve(state, event, str(key))
        return Outcome("accepted", str(key), event.tag, position, self.states[key].version)
