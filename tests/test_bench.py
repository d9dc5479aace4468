"""The benchmark runs and says what it measured; how fast anything is, is no business of a test."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from bench_parts.__main__ import main
from click.testing import CliRunner

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, object]]:
    """One run with tiny numbers: what it printed, and the file it wrote."""
    folder = tmp_path_factory.mktemp("bench")
    path = os.pathsep.join([str(PROJECT / "scripts"), str(PROJECT / "tests"), *filter(None, sys.path)])
    result = folder / "result.json"
    options = ["--quick", "--large", "--json", str(result), "--folder", str(folder / "files"), "--date", "2030-01-02"]
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
        ("history", 1.5, True),
        ("as_of a time", 1.5, True),
        ("explain", 1.5, True),
        ("diff over 50 events", 1.5, True),
        ("diff of two times", 1.5, True),
        ("rebuild of 300 events", 0.6, False),
        ("rebuild of 900 events", 0.6, False),
        ("catch-up of 150 events onto 150", 0.6, False),
        ("catch-up of 450 events onto 450", 0.6, False),
        ("PostgreSQL appends", 1.5, False),
    }
    assert all(ratio["ours"] > 0 and ratio["theirs"] > 0 and ratio["ratio"] > 0 for ratio in ratios)
    assert printed.count("at least") + printed.count("at most") == sum(
        one["target"] is not None for one in _all(report)
    ) + len(re.findall("medians of at most", printed))
    assert printed.count("MISSED") == sum(_missed(one) for one in _all(report))


def test_every_promised_figure_by_itself_is_there_with_its_target(run: tuple[str, dict[str, object]]) -> None:
    printed, report = run
    figures = report["figures"]
    assert isinstance(figures, list)
    targets = {(re.split("[,:]", figure["what"])[0], figure["target"], figure["at_most"]) for figure in figures}
    assert {target for target in targets if target[1] is not None} == {
        ("fresh with valid tokens", 100.0, True),
        ("waiter returns after the winner", 50.0, True),
        ("history", 2.0, True),
        ("as_of a time", 2.0, True),
        ("explain", 2.0, True),
        ("diff over 50 events", 2.0, True),
        ("diff of two times", 2.0, True),
        ("leases(at=)", 1_000.0, True),
        *([("rebuild of 300 events", 200.0, True)] if sys.platform == "linux" else []),
        *([("rebuild of 900 events", 200.0, True)] if sys.platform == "linux" else []),
        ("worst wait", 500.0, True),
        ("least served over most", 0.5, False),
    }
    assert {"ledger file of 900 events", "audit file of 900 events"} <= {target[0] for target in targets}
    assert all(figure["what"] in printed for figure in figures)


def test_many_processes_write_to_both_kinds_of_ledger(run: tuple[str, dict[str, object]]) -> None:
    printed, report = run
    contentions = report["contentions"]
    assert isinstance(contentions, list)
    assert [(one["where"], one["leases"]) for one in contentions] == [
        ("SQLite, FULL", "own leases"),
        ("SQLite, FULL", "one lease"),
        ("PostgreSQL", "own leases"),
        ("PostgreSQL", "one lease"),
    ]
    assert all(one["p50_ms"] <= one["p99_ms"] <= one["p999_ms"] <= one["worst_ms"] for one in contentions)
    assert "p99.9" in printed
    assert report["left_out"] == []


def _all(report: dict[str, object]) -> list[dict[str, float]]:
    ratios, figures = report["ratios"], report["figures"]
    assert isinstance(ratios, list)
    assert isinstance(figures, list)
    return [*ratios, *figures]


def _missed(one: dict[str, float]) -> bool:
    if one["target"] is None:
        return False
    value = one["ratio"] if "ratio" in one else one["value"]
    return value > one["target"] if one["at_most"] else value < one["target"]


def test_parts_are_chosen_by_name(tmp_path: Path) -> None:
    options = ["--quick", "--only", "replay", "--folder", str(tmp_path), "--json", str(tmp_path / "result.json")]
    done = CliRunner().invoke(main, options, catch_exceptions=False)
    assert done.exit_code == 0
    assert [ratio["what"] for ratio in json.loads((tmp_path / "result.json").read_text())["ratios"]] == [
        "replay of 50 events"
    ]
    wrong = CliRunner().invoke(main, ["--only", "replay,weather"])
    assert wrong.exit_code == 2
    assert "no part 'weather'" in wrong.output


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
