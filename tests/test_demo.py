"""The demo, briefly: it keeps its promise and says so."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_demo_keeps_its_promise_and_shows_both_killed_agents(tmp_path: Path) -> None:
    search_path = os.pathsep.join([str(ROOT / "scripts"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-P", "-m", "demo_parts", "--seconds", "5", "--output", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": search_path},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "BROKEN" not in done.stdout
    assert "abandoned" in done.stdout and "recovered" in done.stdout
