"""How things are timed here: contenders take turns, round by round, so that noise hits all of them alike."""

import gc
import time
from collections.abc import Callable, Mapping
from statistics import median

import msgspec

__all__ = ["Figure", "Ratio", "Timed", "compare", "seconds_of", "speed_ratio", "time_ratio"]

Timed = Callable[[int], float]
"""Does one round's work, given the round's number, and returns the seconds each unit of it took."""


class Ratio(msgspec.Struct, frozen=True):
    """One line of the result.

    Attributes:
        what: What was measured.
        ours: The ledger's median, in ``unit``.
        against: What it was measured against.
        theirs: That one's median, in ``unit``.
        unit: What both medians are counted in.
        ratio: The median over the rounds of both measured in the same round.
        target: The ratio to reach; ``None`` for a figure without one.
        at_most: Whether the target is an upper limit.
    """

    what: str
    ours: float
    against: str
    theirs: float
    unit: str
    ratio: float
    target: float | None = None
    at_most: bool = False

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; ``None`` without one."""
        if self.target is None:
            return None
        return self.ratio <= self.target if self.at_most else self.ratio >= self.target


class Figure(msgspec.Struct, frozen=True):
    """A figure by itself.

    Attributes:
        what: What was measured.
        value: How much, in ``unit``.
        unit: What it is counted in.
        target: The value to reach; ``None`` for a figure without one.
        at_most: Whether the target is an upper limit.
    """

    what: str
    value: float
    unit: str
    target: float | None = None
    at_most: bool = True

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; ``None`` without one."""
        if self.target is None:
            return None
        return self.value <= self.target if self.at_most else self.value >= self.target


def seconds_of(work: Callable[[], object]) -> float:
    """How long a piece of work takes, without garbage left over from the one before."""
    gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(contenders: Mapping[str, Timed], rounds: int) -> dict[str, list[float]]:
    """Let every contender do every round, the order turning from round to round; seconds per unit, by contender."""
    names = list(contenders)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            taken[name].append(contenders[name](number))
    return taken


def speed_ratio(what: str, ours: list[float], against: str, theirs: list[float], target: float | None) -> Ratio:
    """How much of another's speed the ledger reaches, from the seconds per unit of both."""
    return Ratio(
        what,
        1 / median(ours),
        against,
        1 / median(theirs),
        "per second",
        median(their / our for our, their in zip(ours, theirs, strict=True)),
        target,
    )


def time_ratio(what: str, ours: list[float], against: str, theirs: list[float], target: float | None) -> Ratio:
    """How many times another's time the ledger takes, from the seconds of both."""
    return Ratio(
        what,
        median(ours) * 1e6,
        against,
        median(theirs) * 1e6,
        "microseconds",
        median(our / their for our, their in zip(ours, theirs, strict=True)),
        target,
        at_most=True,
    )
