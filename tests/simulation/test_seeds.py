"""Thousands of worlds, each drawn from a seed: many agents on many machines, and faults at every step."""

import os

import pytest
from simulation.simulate import SeedFailed, simulate

SEEDS = int(os.environ.get("LEASE_LEDGER_SIMULATED_SEEDS", "10000"))
SHARDS = 20


@pytest.mark.parametrize("shard", range(SHARDS))
def test_no_seed_breaks_a_rule(shard: int) -> None:
    """Nobody is logged out by a race or a crash that could have been survived."""
    sent = recorded = excused = 0
    for seed in range(shard, SEEDS, SHARDS):
        outcome = simulate(seed)
        sent += outcome.sent
        recorded += outcome.recorded
        excused += outcome.excuses
    seeds = len(range(shard, SEEDS, SHARDS))
    assert sent > 2 * seeds, "hardly a refresh token is sent in these worlds: they show nothing"
    assert recorded > 6 * seeds
    assert excused > seeds // 4, "hardly anything goes wrong in these worlds: they show nothing"


def test_a_seed_replays_exactly(capsys: pytest.CaptureFixture[str]) -> None:
    """The same seed gives the same trace, line by line."""
    traces = []
    for _ in range(2):
        simulate(11, trace=True)
        traces.append(capsys.readouterr().out)
    assert traces[0] == traces[1]
    assert traces[0].count("\n") > 20


def test_a_failing_seed_says_how_to_see_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message holds the command that replays it."""
    monkeypatch.setattr("simulation.rules.Rules.settled", lambda rules, *_: rules.expect(False, "the moon is full"))
    with pytest.raises(SeedFailed, match=r"seed 7: the moon is full\nreplay it: scripts/simulate --seed 7 --trace"):
        simulate(7)
