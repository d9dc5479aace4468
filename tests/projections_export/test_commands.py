"""``export``, ``import`` and ``report`` on the command line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from projections_export.sample import CI, WORK, Clock
from projections_export.test_import import WHOLE_LIFE

from ledger import LeaseLedger
from projections.cli.app import lease_ledger
from projections.export import export_lines

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command on a ledger of two leases and four events."""
    monkeypatch.chdir(tmp_path)
    with LeaseLedger.open("sqlite:///auth.db", clock=Clock()) as ledger:
        ledger.acquire_lease(WORK, 4_000_000_000, cause="=1+1")
        ledger.acquire_lease(CI, 4_000_000_000)
        ledger.mark_expiring(WORK)
        ledger.release_lease(CI)
    return lambda *arguments: CliRunner().invoke(lease_ledger, ["--db", "auth.db", *arguments])


def test_export_writes_json_lines_to_standard_output(run: Run) -> None:
    result = run("export")
    with LeaseLedger.open("sqlite:///auth.db") as ledger:
        assert (result.exit_code, result.stdout) == (0, "".join(export_lines(ledger)))


@pytest.mark.parametrize(
    ("options", "positions"),
    [
        ((str(WORK),), [1, 3]),
        ((str(WORK), str(CI), "--tag", "lease.acquired"), [1, 2]),
        (("--tag", "released", "--tag", "expiring"), [3, 4]),
        (("--since", "2026-09-21T14:13:23Z"), [3, 4]),
        (("--since", "2026-09-21 16:13:23+02:00"), [3, 4]),
        (("--until", "1790000002000"), [1, 2]),
        (("--until", "2026-09-21"), []),
    ],
)
def test_export_takes_the_events_that_the_options_choose(
    run: Run, options: tuple[str, ...], positions: list[int]
) -> None:
    result = run("export", *options)
    assert result.exit_code == 0, result.stderr
    assert [json.loads(line)["position"] for line in result.stdout.splitlines()] == positions


def test_export_makes_a_new_file_and_says_how_much_is_in_it(run: Run, tmp_path: Path) -> None:
    result = run("export", "--format", "csv", "-o", "events.csv", "--json")
    assert json.loads(result.stdout) == {"path": "events.csv", "format": "csv", "events": 4}
    assert (tmp_path / "events.csv").read_bytes().count(b"\r\n") == 5
    again = run("export", "-o", "events.csv")
    assert (again.exit_code, again.stdout) == (2, "")
    assert "events.csv: it is there already; name a new file" in again.stderr


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("export", "--since", "yesterday"), "'yesterday' is no time"),
        (("export", "--since", "2026-02-30"), "is no time"),
        (("export", "work"), "is not of the form realm:binding"),
        (("export", "--tag", "gone"), "lease.acquired"),
        (("report", "auth.db"), "call it auth.html"),
        (("report", "page.html", "--limit", "3"), "more than 3 events"),
        (("import", "none.jsonl", "--into", "new.db"), "none.jsonl"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(run: Run, options: tuple[str, ...], complaint: str) -> None:
    result = run(*options)
    assert result.exit_code in (1, 2)
    assert complaint in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_import_makes_a_ledger_and_tells_the_lines_kept_out(run: Run, tmp_path: Path) -> None:
    (tmp_path / "trail.jsonl").write_text("\n".join([*WHOLE_LIFE, "nonsense", ""]))
    result = run("import", "trail.jsonl", "--into", "runtime.db")
    assert result.exit_code == 4
    assert result.stdout.startswith("12 of 13 lines imported into ")
    assert result.stderr.startswith("line 13 kept out: it is no JSON")
    history = CliRunner().invoke(lease_ledger, ["--db", "runtime.db", "history", str(WORK)])
    assert (history.exit_code, len(history.stdout.splitlines())) == (0, 13)
    again = run("import", "trail.jsonl", "--into", "runtime.db", "--json")
    assert (again.exit_code, again.stdout) == (1, "")
    assert "may hold this trail; an import makes a new ledger: name another file" in again.stderr


def test_import_answers_in_json(run: Run, tmp_path: Path) -> None:
    (tmp_path / "trail.jsonl").write_text("\n".join(WHOLE_LIFE))
    result = run("import", "trail.jsonl", "--into", "runtime.db", "--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["imported"], report["kept_out"]) == (0, 12, 0)


def test_report_writes_a_page(run: Run, tmp_path: Path) -> None:
    result = run("report", "page.html", str(WORK), "--title", "What happened to work", "--json")
    page = (tmp_path / "page.html").read_text()
    assert json.loads(result.stdout) == {"path": str(tmp_path / "page.html"), "bytes": len(page.encode())}
    assert "<title>What happened to work</title>" in page
    assert str(CI) not in page
    assert (
        run("report", "page.html").stdout
        == f"{tmp_path / 'page.html'}: {(tmp_path / 'page.html').stat().st_size:,} bytes; open it in a browser\n"
    )
