"""The words the core's tests are written in: given these events, when this command, then this event or refusal.

Nothing is stored: it all happens in the pure decision and fold. Events are told without their stamp; the nth event of
a stream gets the id ``e<n>``, so that an expectation can name any of them.
"""

from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from ledger.commands import Command
from ledger.decide import Stamp, decide
from ledger.errors import LeaseTransitionError
from ledger.events import Holder, LeaseEvent, OpenAttempt
from ledger.keys import LeaseKey
from ledger.state import LeaseState, evolve, fold

KEY = LeaseKey.parse("dev:openai:work")
HERE = "this ledger object"
HOLDER = Holder("host", "boot", 7, "100", HERE)

E = TypeVar("E", bound=LeaseEvent)


def told(kind: type[E], **payload: Any) -> E:
    """An event without its stamp."""
    return kind(id="", at=0, actor="", prev="", **payload)


def open_attempt(event_id: str, duration_ms: int = 60_000, holder: Holder = HOLDER) -> OpenAttempt:
    """The attempt that the event with that id began."""
    return OpenAttempt(event_id, duration_ms, holder)


def stamp_for(version: int, at: int) -> Stamp:
    """The stamp of a stream's nth event."""
    return Stamp(
        id=f"e{version}",
        at=at,
        actor="tester",
        prev=f"digest of e{version - 1}",
        cause=None,
        correlation_id=None,
    )


def stamped(event: E, version: int, at: int) -> E:
    """An event told without its stamp, as the nth of its stream."""
    return msgspec.structs.replace(event, **stamp_for(version, at))


@dataclass(frozen=True)
class Refusal:
    """That a command is refused, and as what kind."""

    kind: str


NO_LEASE = Refusal("no_matching_transition")
GUARD = Refusal("guard_rejected")


@dataclass(frozen=True)
class Outcome:
    """What came of a command.

    Attributes:
        before: The state it met.
        result: The event it became, or its refusal.
        at: The time it was decided at.
    """

    before: LeaseState
    result: LeaseEvent | LeaseTransitionError
    at: int

    def then(self, expected: LeaseEvent | Refusal) -> LeaseState:
        """Check the outcome, to the last field; return the state after it."""
        if isinstance(expected, Refusal):
            assert isinstance(self.result, LeaseTransitionError), self.result
            assert self.result.kind == expected.kind
            return self.before
        assert self.result == stamped(expected, self.before.version + 1, self.at)
        return self.state

    @property
    def state(self) -> LeaseState:
        """The state after the command, unchanged by a refusal."""
        return self.before if isinstance(self.result, LeaseTransitionError) else evolve(self.before, self.result)


@dataclass(frozen=True)
class Given:
    """A stream as its events leave it."""

    state: LeaseState

    def when(self, command: Command, at: int = 0) -> Outcome:
        """Decide a command at a time in epoch milliseconds."""
        stamp = stamp_for(self.state.version + 1, at)
        try:
            return Outcome(self.state, decide(KEY, self.state, command, stamp), at)
        except LeaseTransitionError as refused:
            return Outcome(self.state, refused, at)


def given(*events: LeaseEvent) -> Given:
    """A stream with these events, told without their stamps."""
    return Given(fold(stamped(event, version, version) for version, event in enumerate(events, 1)))
