"""Times on the command line: every option that takes one reads it by the same rules, and says what it assumed."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from projections.cli.app import lease_ledger

KEY = "dev:openai:work"
START_MS = 1_790_000_000_000
START_UTC = "2026-09-21T14:13:20Z"

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a command on a ledger whose one lease had an event at START_MS and one a minute later."""
    times = iter([START_MS, START_MS + 60_000])
    with LeaseLedger.open(f"sqlite:///{tmp_path}/auth.db", clock=lambda: next(times), actor="ada") as ledger:
        ledger.acquire_lease(LeaseKey.parse(KEY), 4_000_000_000)
        ledger.mark_expiring(LeaseKey.parse(KEY))
    return lambda *words: CliRunner().invoke(lease_ledger, ["--db", str(tmp_path / "auth.db"), *words])


def _events(command: str, result: Result) -> int:
    """How many events the answer of a command is about."""
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    match command:
        case "timeline":
            return len(lines[0]["entries"])
        case "as-of":
            return int(lines[0]["version"])
        case "explain":
            return int(lines[0]["verdict"]["version"])
        case "leases":
            return int(lines[0]["version"])
        case "diff":
            return int(lines[0]["after_version"])
        case _:
            return len(lines)


COMMANDS = {
    "timeline": ["timeline", "--json", "--until"],
    "as-of": ["as-of", KEY, "--json", "--at"],
    "explain": ["explain", KEY, "--json", "--at"],
    "leases": ["leases", "--json", "--at"],
    "export": ["export", "--until"],
    "replay": ["replay", "--json", "--until"],
    "diff": ["diff", KEY, "--json", "0"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "moment",
    [
        str(START_MS // 1000 + 1),
        str(START_MS + 1000),
        f"{START_MS // 1000 + 1}.5",
        "2026-09-21T14:13:21Z",
        "2026-09-21 16:13:21+02:00",
        "20260921T141321Z",
        "2026-09-21T14:13:21",
    ],
)
def test_one_moment_is_the_same_in_every_form_and_command(run: Run, command: str, moment: str) -> None:
    result = run(*COMMANDS[command], moment)
    assert _events(command, result) == 1
    assert ("taken as UTC" in result.stderr) == (moment == "2026-09-21T14:13:21")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_number_with_two_readings_is_refused_by_both_names(run: Run, command: str) -> None:
    result = run(*COMMANDS[command], "99999999999")
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert "5138-11-16T09:46:39.000Z in epoch seconds, 1973-03-03T09:46:39.999Z in epoch milliseconds" in line


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("text", ["yesterday", "-1", "", "9" * 5000, "２０２６-11-25", "9" * 20 + "d", "2026-02-30"])
def test_what_is_no_time_is_wrong_usage_in_one_line(run: Run, command: str, text: str) -> None:
    result = run(*COMMANDS[command], *(["--"] if command == "diff" else []), text)
    assert (result.exit_code, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1


def test_the_last_minute_is_not_everything(run: Run) -> None:
    assert _events("timeline", run("timeline", "--json", "--since", str(START_MS // 1000 + 30))) == 1
    assert _events("timeline", run("timeline", "--json", "--since", str(START_MS // 1000 + 90))) == 0
    assert _events("timeline", run("timeline", "--json", "--until", "now")) == 2
    assert _events("timeline", run("timeline", "--json", "--since", "2h ago", "--until", "1h ago")) == 0


def test_a_time_without_a_zone_is_said_once_each_and_after_the_answer(run: Run) -> None:
    result = run("timeline", "--since", "2026-09-21", "--until", "2026-09-22 12:00", "--json")
    assert _events("timeline", result) == 2
    assert result.stderr.splitlines() == [
        "lease-ledger: --since 2026-09-21 names no time zone; it was taken as UTC, 2026-09-21T00:00:00.000Z",
        "lease-ledger: --until 2026-09-22 12:00 names no time zone; it was taken as UTC, 2026-09-22T12:00:00.000Z",
    ]


def test_an_error_stays_one_line_where_a_time_has_no_zone(run: Run) -> None:
    result = run("replay", "dev:nobody", "--since", "2026-09-21")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1


def test_an_incident_says_what_it_took_as_utc(run: Run, tmp_path: Path) -> None:
    result = run("incident", "save", str(tmp_path / "saved.json"), "--until", "2026-09-21T14:13:30", "--json")
    assert json.loads(result.stdout)["events"] == 1
    assert "--until 2026-09-21T14:13:30 names no time zone" in result.stderr


@pytest.mark.parametrize(
    ("moments", "versions"),
    [
        (("0", "2"), (0, 2)),
        (("@0", str(START_MS)), (0, 1)),
        ((f"@{START_MS // 1000}", "now"), (1, 2)),
        (("2026-09-21T14:13:20", "2"), (1, 2)),
    ],
)
def test_a_difference_tells_versions_from_times(run: Run, moments: tuple[str, str], versions: tuple[int, int]) -> None:
    found = json.loads(run("diff", KEY, *moments, "--json").stdout)
    assert (found["before_version"], found["after_version"]) == versions


@pytest.mark.parametrize(
    ("condition", "steps"),
    [
        (f"at>{START_MS // 1000}", [2]),
        (f"at>={START_MS}", [1, 2]),
        (f"at={START_UTC}", [1]),
        (f"at!={START_UTC}", [2]),
        ("expires_at>=2096-10-02T07:06:40Z", [1, 2]),
        ("expires_at<4000000000", []),
        ("expires_at<4000000001000", [1, 2]),
        ("expires_at>5", [1, 2]),
    ],
)
def test_a_condition_of_a_replay_compares_with_times(run: Run, condition: str, steps: list[int]) -> None:
    result = run("replay", "--json", "--where", condition)
    assert [json.loads(line)["number"] for line in result.stdout.splitlines()] == steps


@pytest.mark.parametrize("condition", ["at>=2026-09-21", "at>=2h", "expires_at<2026-02-30T00:00Z", "generation>=٣"])
def test_a_condition_that_cannot_be_told_is_refused(run: Run, condition: str) -> None:
    result = run("replay", "--where", condition)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1


def _time_options(command: click.Command) -> Iterator[tuple[str | None, click.Option]]:
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            yield from _time_options(inner)
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.metavar == "TIME":
            yield command.name, parameter


def test_the_help_of_every_option_that_takes_a_time_says_what_none_means() -> None:
    options = list(_time_options(lease_ledger))
    assert {name for name, _ in options} >= {
        "timeline",
        "as-of",
        "explain",
        "leases",
        "export",
        "report",
        "replay",
        "save",
    }
    for name, option in options:
        assert "UTC when it names no zone" in (option.help or ""), name
    assert "a time without a zone is UTC" in " ".join((lease_ledger.commands["diff"].help or "").split())
