"""The simulation finds what it is meant to find: with a safeguard taken out of the protocol, rules are broken soon."""

import pytest
from simulation.broken import BREAKS, Break
from simulation.simulate import SeedFailed, simulate

FEW_SEEDS = 400


@pytest.mark.parametrize("break_it", BREAKS, ids=lambda break_it: break_it.__name__)
def test_a_protocol_that_lacks_a_safeguard_is_caught(break_it: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each safeguard of the protocol is there because something goes wrong without it."""
    break_it(monkeypatch)
    with pytest.raises(SeedFailed):
        for seed in range(FEW_SEEDS):
            simulate(seed)
