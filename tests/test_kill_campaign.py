"""The kill campaign itself, briefly: agents killed at random moments break no promise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("ledger", ["sqlite", "postgresql"])
def test_agents_killed_at_random_moments_break_no_promise(ledger: str) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "kill_parts", "--kills", "40", "--seed", "4711", "--ledger", ledger],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "scripts"), str(ROOT), str(ROOT / "tests")])},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "40 kills in" in done.stdout and "0 invariants broken" in done.stdout
