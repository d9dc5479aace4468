"""The effects that the boundaries of ``Credentials`` are made of.

A boundary is a procedure: a generator that yields what is to be done and is sent the outcome. So the same code runs
in a thread, for an event loop, and under a simulator that may crash it between any two steps. A procedure takes each
step by ``yield from`` one of the functions here, which give back what that very step gives.

A caller who was interrupted may ask a procedure to stop. ``Stopped`` is then thrown into it instead of an effect's
outcome, but only where nothing is lost by it: in a pause, before an exchange, while it waits for a guard.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from ledger.keys import LeaseKey
from ledger.tokens import PersistedTokens

__all__ = [
    "Effect",
    "Exchange",
    "Guarded",
    "Pause",
    "Procedure",
    "Revoke",
    "Step",
    "exchange",
    "guarded",
    "pause",
    "revoke",
    "step",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Step:
    """Read or write the ledger or the store: one call that takes no long time."""

    call: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait so many seconds before looking again.

    ``since``: the change token taken before the last look; the wait may end as soon as anything was committed after it.
    """

    seconds: float
    since: int | None = None


@dataclass(frozen=True, slots=True)
class Exchange:
    """Have the caller's refresh function spend these tokens."""

    tokens: PersistedTokens


@dataclass(frozen=True, slots=True)
class Guarded:
    """Run a part under the lease's login guard, to its end even when the caller is interrupted meanwhile.

    ``holds_new_tokens``: the part must run even when the caller is interrupted while it still waits for the guard.
    """

    key: LeaseKey
    part: "Callable[[], Procedure[Any]]"
    holds_new_tokens: bool = False


@dataclass(frozen=True, slots=True)
class Revoke:
    """Tell the server that these tokens are not wanted, if anybody here can; nothing depends on it."""

    tokens: PersistedTokens


Effect = Step | Pause | Exchange | Guarded | Revoke
Procedure = Generator[Effect, Any, T]


def step(call: Callable[[], T]) -> Procedure[T]:
    """Make a call that takes no long time, and give back what it returns."""
    outcome: T = yield Step(call)
    return outcome


def pause(seconds: float, since: int | None = None) -> Procedure[None]:
    """Wait; see :class:`Pause`."""
    yield Pause(seconds, since)


def exchange(tokens: PersistedTokens) -> Procedure[PersistedTokens]:
    """Have the caller's refresh function spend these tokens, and give back the new ones."""
    response: PersistedTokens = yield Exchange(tokens)
    return response


def guarded(key: LeaseKey, part: Callable[[], Procedure[T]], *, holds_new_tokens: bool = False) -> Procedure[T]:
    """Run a part under the lease's login guard and give back its outcome; see :class:`Guarded`."""
    outcome: T = yield Guarded(key, part, holds_new_tokens)
    return outcome


def revoke(tokens: PersistedTokens) -> Procedure[None]:
    """Tell the server that these tokens are not wanted; see :class:`Revoke`."""
    yield Revoke(tokens)
