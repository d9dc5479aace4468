"""What a terminal, a pipe or a narrow window gets to see of texts that somebody else wrote."""

import csv
import fcntl
import io
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from projections.cli.app import lease_ledger

ROOT = Path(__file__).parents[1]
KEY = "dev:openai:work"
OTHER = "prod:anthropic:the-night-shift"
ACTOR = "агент 日本"
CAUSE = "\x1b[2J\x1b]0;owned\x07gone\r\nall is well\x7f\x9b31m\x85\u202etxt.exe\u2066\u200b\u3164✓"
TRICKS = "\x00\x07\x1b\r\x7f\x9b\x85\u202e\u2066\u200b\u3164"


@pytest.fixture
def database(tmp_path: Path) -> str:
    """A ledger whose texts try everything."""
    with LeaseLedger.open(f"sqlite:///{tmp_path}/auth.db", actor=ACTOR) as ledger:
        ledger.acquire_lease(LeaseKey.parse(KEY), 4_000_000_000, cause=CAUSE)
        ledger.acquire_lease(LeaseKey.parse(OTHER), 4_000_000_000)
        ledger.mark_reauth_required(LeaseKey.parse(KEY), reason=CAUSE)
    return str(tmp_path / "auth.db")


def _environment(**given: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "PYTHONIOENCODING")}
    return {**kept, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "NO_COLOR": "1", **given}


def _command(database: str, words: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-P", "-c", "from projections.cli import main; main()", "--db", database, *words]


def _on_terminal(database: str, *words: str, columns: int, errors: int | None, **environment: str) -> tuple[int, bytes]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        _command(database, words), stdout=theirs, stderr=errors or theirs, stdin=theirs, env=_environment(**environment)
    )
    os.close(theirs)
    shown = b""
    with suppress(OSError):
        while chunk := os.read(ours, 65_536):
            shown += chunk
    os.close(ours)
    return process.wait(timeout=60), shown


def _in_pipe(database: str, *words: str, **environment: str) -> tuple[int, bytes, bytes]:
    done = subprocess.run(
        _command(database, words), env=_environment(**environment), capture_output=True, check=False, timeout=60
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(("columns", "setting"), [(1, None), (20, None), (0, "0"), (200, "²")])
def test_a_real_terminal_of_any_width_shows_whole_keys(database: str, columns: int, setting: str | None) -> None:
    environment = {} if setting is None else {"COLUMNS": setting}
    code, shown = _on_terminal(database, "leases", columns=columns, errors=None, **environment)
    assert code == 0
    assert KEY.encode() in shown and OTHER.encode() in shown


@pytest.mark.parametrize(
    "words", [("history", KEY), ("timeline", "--json"), ("sql", "SELECT cause AS 'a\x1b[31m' FROM events")]
)
def test_a_real_terminal_obeys_nothing_that_was_recorded(database: str, words: tuple[str, ...]) -> None:
    code, shown = _on_terminal(database, *words, columns=250, errors=subprocess.DEVNULL, TERM="dumb")
    assert code == 0
    text = shown.decode().replace("\r\n", "\n")
    assert [trick for trick in TRICKS if trick in text] == []
    assert "gone" in text and "✓" in text


@pytest.mark.parametrize("words", [("incident", "save", "-", KEY), ("report", "-", "--title", "\x1b[2J✓")])
def test_a_file_that_is_shown_on_a_terminal_does_nothing_there(database: str, words: tuple[str, ...]) -> None:
    code, shown = _on_terminal(database, *words, columns=80, errors=subprocess.DEVNULL)
    assert code == 0
    assert _harmless(shown.decode().replace("\r\n", "\n")) and "✓" in shown.decode()


@pytest.mark.parametrize("words", [("timeline", "--json"), ("export", "--format", "csv")])
def test_a_terminal_in_another_encoding_gets_escapes_in_it(database: str, words: tuple[str, ...]) -> None:
    environment = {"PYTHONIOENCODING": "latin-1"}
    code, shown = _on_terminal(database, *words, columns=300, errors=subprocess.DEVNULL, **environment)
    assert code == 0
    assert shown.isascii() and b"\\u0430" in shown


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "koi8-r", "utf-8"])
def test_no_encoding_ends_a_listing_half_way(database: str, encoding: str) -> None:
    runner = CliRunner(charset=encoding)
    result = runner.invoke(lease_ledger, ["--db", database, "timeline"])
    assert (result.exit_code, result.stderr, len(result.stdout.splitlines())) == (0, "", 4)
    assert ("✓" if encoding == "utf-8" else "\\u2713") in result.stdout
    result = runner.invoke(lease_ledger, ["--db", database, "history", KEY, "--json"])
    entries = [json.loads(line) for line in result.stdout.splitlines()]
    assert [entry["actor"] for entry in entries] == [ACTOR, ACTOR]
    assert (result.exit_code, result.stderr, entries[0]["cause"]) == (0, "", CAUSE)
    assert encoding == "utf-8" or result.stdout.isascii()
    result = runner.invoke(lease_ledger, ["--db", database, "history", "日本"])
    assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (2, "", 1)
    assert ("日本" if encoding == "utf-8" else "\\u65e5\\u672c") in result.stderr


def test_a_real_process_lists_everything_in_a_plain_locale(database: str, tmp_path: Path) -> None:
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    code, output, errors = _in_pipe(database, "timeline", **plain)
    assert (code, errors, len(output.splitlines()), output.isascii()) == (0, b"", 4, True)
    page = tmp_path / "page.html"
    code, output, errors = _in_pipe(database, "report", str(page), "--title", "Übersicht ✓", **plain)
    assert (code, errors) == (0, b"")
    assert "bersicht" in page.read_text()


def _run(database: str, *words: str) -> Result:
    return CliRunner().invoke(lease_ledger, ["--db", database, *words])


def _harmless(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize(
    "words",
    [
        ("timeline", "--json"),
        ("history", KEY, "--json"),
        ("explain", KEY, "--json"),
        ("as-of", KEY, "--json"),
        ("diff", KEY, "0", "2", "--json"),
        ("replay", "--json"),
        ("sql", "SELECT cause, reason FROM events", "--json"),
        ("export",),
        ("export", "--format", "ocsf"),
        ("export", "--format", "cloudevents"),
    ],
)
def test_json_in_a_pipe_is_the_true_text_in_harmless_characters(database: str, words: tuple[str, ...]) -> None:
    result = _run(database, *words)
    assert result.exit_code == 0, result.stderr
    assert _harmless(result.stdout)
    documents = [json.loads(line) for line in result.stdout.splitlines()]
    assert CAUSE in _texts(documents)


def _texts(value: object) -> list[str]:
    match value:
        case str():
            return [value]
        case dict():
            return [text for item in value.values() for text in _texts(item)]
        case list():
            return [text for item in value for text in _texts(item)]
        case _:
            return []


@pytest.mark.parametrize(
    "words",
    [
        ("history", KEY),
        ("timeline",),
        ("leases",),
        ("explain", KEY),
        ("as-of", KEY),
        ("diff", KEY, "0", "2"),
        ("replay",),
        ("replay", "--without", "1"),
        ("sql", "SELECT cause, reason AS '\x1b[31m\u202e' FROM events"),
    ],
)
def test_tables_in_a_pipe_are_harmless(database: str, words: tuple[str, ...]) -> None:
    result = _run(database, *words)
    assert result.exit_code == 0, result.stderr
    assert _harmless(result.stdout) and _harmless(result.stderr)


@pytest.mark.parametrize(
    "words",
    [
        ("history", f"dev:{CAUSE}"),
        ("timeline", "--since", CAUSE),
        ("diff", KEY, "1", CAUSE),
        ("replay", "--where", CAUSE),
        ("incident", "show", f"/no\x1b[31m\u202e\x9b/{CAUSE[:5]}.json"),
        ("verify", "--against", "/no/\x1b[31m\u202e"),
        (f"--{CAUSE}",),
        (CAUSE,),
    ],
)
def test_errors_quote_nothing_that_a_terminal_obeys(database: str, words: tuple[str, ...]) -> None:
    result = _run(database, *words)
    assert result.exit_code in (1, 2, 3)
    assert len(result.stderr.splitlines()) == 1
    assert _harmless(result.stderr)


def test_a_ledger_of_a_hostile_name_is_missing_without_effect(tmp_path: Path) -> None:
    result = _run(str(tmp_path / "\x1b]0;x\x07\u202e.db"), "leases")
    assert result.exit_code == 3
    assert _harmless(result.stderr) and "\\x1b]0;x\\x07\\u202e" in result.stderr


def test_csv_in_a_pipe_holds_the_true_text_and_on_a_terminal_none_that_acts(database: str) -> None:
    code, output, _ = _in_pipe(database, "export", "--format", "csv")
    assert code == 0
    assert CAUSE in [row["cause"] for row in csv.DictReader(io.StringIO(output.decode(), newline=""))]
    code, shown = _on_terminal(database, "export", "--format", "csv", columns=80, errors=None)
    assert code == 0
    lines = shown.decode().splitlines()
    assert len(lines) == 4
    assert all(line.isprintable() for line in lines)


def test_a_warning_that_is_logged_names_a_hostile_folder_harmlessly(database: str, tmp_path: Path) -> None:
    store = tmp_path / "\x1b[31mtokens\u202e"
    tokens = json.dumps({"auth_mode": "api_key", "primary_secret": "k"})
    words = ["--db", database, "--store", str(store)]
    assert CliRunner().invoke(lease_ledger, [*words, "login", KEY], input=tokens).exit_code == 0
    (file,) = [path for path in store.iterdir() if path.is_file() and b"primary_secret" in path.read_bytes()]
    file.chmod(0o644)
    code, _, errors = _in_pipe(database, "status", LEASE_LEDGER_STORE=str(store))
    assert (code, errors.count(b"\n")) == (0, 1)
    assert b"open to other users" in errors and _harmless(errors.decode())
