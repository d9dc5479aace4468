"""Interrupts and cancellation at the library's opcodes, each scenario in a process of its own that must also end."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from interrupts.broken import BREAKS
from interrupts.harness import Report
from interrupts.scenarios import SCENARIOS

ROOT = Path(__file__).parents[2]
LONGEST_S = 240

POINTS = "60"
"""So many opcodes of each scenario here; ``scripts/interrupts`` strikes them all."""

SEEN_IN = {
    "without_workers": "thread: fresh, with a refresh",
    "without_waiting": "thread: login",
    "without_closing_what_was_begun": "thread: begin_refresh",
    "without_giving_back": "thread: guard",
    "with_connections_that_go_on": "thread: release, with a stored fold",
    "with_tasks_that_go_away": "asyncio cancelled: fresh, with a refresh",
    "with_exchanges_that_are_cancelled": "trio cancelled: fresh, with a refresh",
}


def struck(tmp_path: Path, scenario: str, *options: str) -> Sequence[Report]:
    """The reports of a process that struck a scenario; it has ended by itself."""
    command = [sys.executable, "-P", "-m", "interrupts", "--json", "--scenario", scenario, "--folder", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    ended = subprocess.run(
        [*command, *options], capture_output=True, text=True, timeout=LONGEST_S, env=environment, check=False
    )
    assert ended.stdout, ended.stderr
    return msgspec.json.decode(ended.stdout, type=list[Report])


@pytest.mark.parametrize("scenario", [scenario.name for scenario in SCENARIOS])
def test_nothing_is_lost_or_left_locked_wherever_it_is_struck(tmp_path: Path, scenario: str) -> None:
    (report,) = struck(tmp_path, scenario, "--points", POINTS)
    assert report.broken == [] and report.points > int(POINTS) // 2


@pytest.mark.parametrize("broken", BREAKS)
def test_the_harness_notices_a_safeguard_taken_out(tmp_path: Path, broken: str) -> None:
    (report,) = struck(tmp_path, SEEN_IN[broken], "--broken", broken)
    assert report.broken
