"""The benchmark runs and says what it measured; how fast anything is, is no business of a test."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, object]]:
    """One run with tiny numbers: what it printed, and the file it wrote."""
    folder = tmp_path_factory.mktemp("bench")
    path = os.pathsep.join([str(PROJECT / "scripts"), *filter(None, sys.path)])
    result = folder / "result.json"
    options = ["--quick", "--json", str(result), "--folder", str(folder / "files"), "--date", "2030-01-02"]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "bench_parts", *options],
        env={**os.environ, "PYTHONPATH": path},
        check=True,
        capture_output=True,
        text=True,
    )
    assert list((folder / "files").iterdir()) == []
    return done.stdout, json.loads(result.read_text())


def test_every_promised_figure_is_in_the_table_with_its_target(run: tuple[str, dict[str, object]]) -> None:
    printed, report = run
    ratios = report["ratios"]
    assert isinstance(ratios, list)
    targets = {(ratio["what"].split(",")[0], ratio["target"], ratio["at_most"]) for ratio in ratios if ratio["target"]}
    assert targets == {
        ("transition", 0.8, False),
        ("transition", 0.45, False),
        ("transition", 8.0, False),
        ("replay of 50 events", 0.75, False),
        ("first snapshot in a new process", 3.0, True),
        ("repeated snapshot", 3.0, True),
    }
    assert all(ratio["ours"] > 0 and ratio["theirs"] > 0 and ratio["ratio"] > 0 for ratio in ratios)
    assert printed.count("at least") + printed.count("at most") == 6
    assert printed.count("MISSED") == sum(_missed(ratio) for ratio in ratios)


def _missed(ratio: dict[str, float]) -> bool:
    if ratio["target"] is None:
        return False
    return ratio["ratio"] > ratio["target"] if ratio["at_most"] else ratio["ratio"] < ratio["target"]


def test_the_machine_is_described(run: tuple[str, dict[str, object]]) -> None:
    printed, report = run
    machine = report["machine"]
    assert isinstance(machine, dict)
    assert machine["date"] == "2030-01-02"
    assert machine["cores"] == os.cpu_count()
    assert all(str(value) in printed for value in machine.values())


def test_the_size_of_an_event_is_told_for_every_kind_of_file(run: tuple[str, dict[str, object]]) -> None:
    printed, report = run
    sizes = report["bytes_per_event"]
    assert isinstance(sizes, dict)
    assert len(sizes) == 4
    assert all(size > 100 for size in sizes.values())
    assert printed.count("bytes of file per event") == 4
