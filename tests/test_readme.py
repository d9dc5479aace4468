"""The README's examples are run, and their output is what the README shows."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

VARYING = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "TIME"),
    (re.compile(r"\S+@\S+ pid \d+"), "ACTOR"),
    (re.compile(r" +"), " "),
    (re.compile(r" $", re.MULTILINE), ""),
)


def comparable(output: str) -> str:
    """The output without what differs from run to run: times, the actor, and the columns' widths."""
    for pattern, constant in VARYING:
        output = pattern.sub(constant, output)
    return output.strip()


def run(command: list[str], folder: Path) -> str:
    bin_folder = str(Path(sys.executable).parent)
    environment = {
        **os.environ,
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "200",
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def first_screen() -> tuple[str, str, str]:
    (_, code), (_, printed), (_, session) = BLOCK.findall(README)[:3]
    return code, printed, session


def test_the_first_example_has_ten_lines() -> None:
    code, _, _ = first_screen()
    assert len([line for line in code.splitlines() if line.strip()]) == 10


def test_the_first_screen_does_what_it_shows(tmp_path: Path) -> None:
    code, printed, session = first_screen()
    assert run([sys.executable, "-c", code], tmp_path) == printed
    for shown in session.split("$ ")[1:]:
        command, _, output = shown.partition("\n")
        assert comparable(run(["sh", "-c", command], tmp_path)) == comparable(output), command
