"""Every interleaving and every crash point of two agents on one lease, one refreshing and the other doing anything."""

import os

import pytest
from simulation.agents import CallKind
from simulation.walk import walk

from ledger import refresh

long_walk = pytest.mark.skipif(
    "LEASE_LEDGER_LONG_WALK" not in os.environ, reason="takes two minutes; set LEASE_LEDGER_LONG_WALK to have it walked"
)


@pytest.mark.parametrize(
    ("kinds", "machines", "splits_steps", "crashes", "at_least"),
    [
        (("fresh", "login"), 1, True, 1, 1000),
        (("fresh", "login"), 2, True, 1, 1000),
        (("fresh", "logout"), 1, True, 1, 1000),
        (("fresh", "logout"), 2, True, 1, 1000),
        (("fresh", "fresh"), 1, False, 1, 10_000),
        pytest.param(("fresh", "fresh"), 2, False, 1, 50_000, marks=long_walk),
        (("fresh", "fresh"), 2, False, 0, 5_000),
    ],
)
def test_every_interleaving_and_every_crash_keeps_the_rules(
    kinds: tuple[CallKind, CallKind],
    machines: int,
    splits_steps: bool,
    crashes: int,
    at_least: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No path breaks a rule, and after every one of them the key can be used as it should."""
    # Enough for one take-over each; more of them only repeat each other.
    monkeypatch.setattr(refresh, "PATIENCE_IN_DEADLINES", 1.2)
    walked = walk(kinds, machines=machines, splits_steps=splits_steps, crashes=crashes)
    print(f"{' and '.join(kinds)} on {machines} machine(s): {walked.states} states, {walked.ends} ends")
    assert walked.states >= at_least
