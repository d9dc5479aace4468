"""What a seed decides before anything runs: how many machines, which faults, and how often."""

from dataclasses import dataclass
from random import Random
from typing import Literal

from ledger.keys import LeaseKey

KEYS = (LeaseKey.parse("dev:openai:work"), LeaseKey.parse("dev:openai:play"))

Fate = Literal["answered", "slow", "lost", "unsent", "busy", "refused", "cancelled"]
"""What becomes of a request to the server."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One simulated world. Chances are per effect or per operation."""

    machines: int
    processes: int
    calls: int
    keys: tuple[LeaseKey, ...]
    shares_store: bool
    stores_tell_place: bool
    swaps_atomically: bool
    reuse_revokes: bool
    restores_older_copy: bool
    kills_all_at_the_end: bool
    wall_offset_s: float
    deadline_s: float
    lifetime_s: int
    crash: float
    suspend: float
    sleep: float
    clock_jump: float
    interleave: float
    ledger_fault: float
    store_fault: float
    outage: float
    fates: tuple[tuple[float, Fate], ...]


def _chance(random: Random, most: float, never: float = 0.5) -> float:
    return 0.0 if random.random() < never else most * random.random() ** 2


def _fates(random: Random) -> tuple[tuple[float, Fate], ...]:
    faults: tuple[tuple[Fate, float], ...] = (
        ("slow", 0.4),
        ("lost", 0.3),
        ("unsent", 0.3),
        ("busy", 0.3),
        ("refused", 0.1),
        ("cancelled", 0.1),
    )
    fates: list[tuple[float, Fate]] = []
    upto = 0.0
    for fate, most in faults:
        upto += _chance(random, most, never=0.6)
        fates.append((upto, fate))
    return (*fates, (float("inf"), "answered"))


def plan_of(random: Random) -> Plan:
    """Draw a world."""
    return Plan(
        machines=random.choice((1, 1, 2, 2, 3)),
        processes=random.choice((2, 3, 3, 4, 5, 7)),
        calls=random.choice((1, 2, 3, 5)),
        keys=KEYS if random.random() < 0.15 else KEYS[:1],
        shares_store=random.random() < 0.8,
        stores_tell_place=random.random() < 0.7,
        swaps_atomically=random.random() < 0.8,
        reuse_revokes=random.random() < 0.6,
        restores_older_copy=random.random() < 0.08,
        kills_all_at_the_end=random.random() < 0.4,
        wall_offset_s=random.choice((0.0, 0.0, 0.05, 3.0, 3600.0)),
        deadline_s=random.choice((0.15, 0.3, 0.6)),
        lifetime_s=random.choice((1, 2, 4, 30)),
        crash=_chance(random, 0.04),
        suspend=_chance(random, 0.04),
        sleep=_chance(random, 0.02, never=0.8),
        clock_jump=_chance(random, 0.02, never=0.7),
        interleave=_chance(random, 0.3, never=0.3),
        ledger_fault=_chance(random, 0.05),
        store_fault=_chance(random, 0.08),
        outage=0.5 if random.random() < 0.15 else 0.0,
        fates=_fates(random),
    )
