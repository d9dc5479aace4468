"""The command line as a real process: its entry point, signals, pipes and terminals."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger

ROOT = Path(__file__).parents[1]
KEY = "dev:openai:work"
CANARY = "canary-77d0"
TOKENS = json.dumps(
    {"auth_mode": "external_tokens", "primary_secret": CANARY, "refresh_token": CANARY, "expires_at": 4_000_000_000}
)

Start = Callable[..., subprocess.Popen[str]]


def _entry_point() -> list[str]:
    """What the installed script does."""
    module, function = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["lease-ledger"].split(
        ":"
    )
    return [sys.executable, "-P", "-c", f"import sys; from {module} import {function}; sys.exit({function}())"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts commands on a ledger and a store of the test's own; none outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def command(*words: str, **options: Any) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "LEASE_LEDGER_DB": str(tmp_path / "auth.db"),
            "LEASE_LEDGER_STORE": str(tmp_path / "tokens"),
            "TERM": "xterm-256color",
            "COLUMNS": "200",
        }
        environment.pop("NO_COLOR", None)
        pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        process = subprocess.Popen(
            [*_entry_point(), *words], env=environment, text=True, cwd=tmp_path, **(pipes | options)
        )
        started.append(process)
        return process

    yield command
    for process in started:
        process.kill()
        with process, suppress(ValueError):
            process.communicate()


@pytest.fixture
def run(start: Start) -> Callable[..., tuple[int, str, str]]:
    """Runs a command to its end: exit code, output, errors."""

    def command(*words: str, stdin: str = "") -> tuple[int, str, str]:
        process = start(*words)
        output, errors = process.communicate(stdin, timeout=60)
        return process.returncode, output, errors

    return command


Run = Callable[..., tuple[int, str, str]]


def test_a_whole_life_on_the_command_line(run: Run, tmp_path: Path) -> None:
    everything = ""
    for words, stdin, code in (
        (("login", KEY), TOKENS, 0),
        (("status", KEY, "--json"), "", 0),
        (("history", KEY, "--json"), "", 0),
        (("leases",), "", 0),
        (("stale",), "", 0),
        (("verify",), "", 0),
        (("checkpoint",), "", 0),
        (("rebuild",), "", 0),
        (("logout", KEY), "", 0),
        (("history", KEY), "", 0),
        (("history", "nonsense"), "", 2),
        (("login", KEY), "nonsense", 2),
    ):
        exit_code, output, errors = run(*words, stdin=stdin)
        assert exit_code == code, (words, errors)
        assert "Traceback" not in errors
        assert errors.count("\n") == (1 if code else 0), (words, errors)
        everything += output + errors
    assert CANARY not in everything
    assert "\x1b" not in everything
    assert not [file for file in tmp_path.glob("auth*") if file.is_file() and CANARY.encode() in file.read_bytes()]


def test_an_actor_may_be_named_for_the_history(run: Run) -> None:
    assert run("--actor", "night shift", "login", KEY, stdin=TOKENS)[0] == 0
    assert json.loads(run("history", KEY, "--json")[1])["actor"] == "night shift"


def _wait_until_it_reads(process: subprocess.Popen[str]) -> None:
    """Until the process has loaded everything and waits for its standard input."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with suppress(OSError):
            syscall = Path(f"/proc/{process.pid}/wchan").read_text()
            if "pipe_read" in syscall or "pipe_wait" in syscall:
                return
        time.sleep(0.05)


def test_an_interrupt_ends_it_quietly(start: Start, tmp_path: Path) -> None:
    process = start("login", KEY)
    _wait_until_it_reads(process)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output, errors) == (130, "", "")
    assert not (tmp_path / "auth.db").exists()


ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"


def _wait_until_it_computes(process: subprocess.Popen[str]) -> None:
    """Until the process has used more time than loading takes, and so is in the middle of its question."""
    deadline = time.monotonic() + 60
    used = 0
    while used < 2.5 * os.sysconf("SC_CLK_TCK") and time.monotonic() < deadline:
        with suppress(OSError, IndexError):
            used = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11])
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM), (signal.SIGHUP, -signal.SIGHUP)]
)
def test_a_running_question_ends_at_once_when_told(number: signal.Signals, code: int, start: Start, run: Run) -> None:
    run("login", KEY, stdin=TOKENS)
    run("leases")
    process = start("sql", ENDLESS, "--timeout", "500")
    _wait_until_it_computes(process)
    process.send_signal(number)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output, errors) == (code, "", "")
    assert run("sql", "SELECT count(*) FROM events")[0] == 0


def test_an_interrupt_under_json_is_one_object(start: Start, tmp_path: Path) -> None:
    process = start("login", KEY, "--json")
    _wait_until_it_reads(process)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (130, "")
    assert json.loads(errors)["error"]["code"] == "interrupted"
    assert not (tmp_path / "auth.db").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "words",
    [
        ("export", "-o", "out"),
        ("incident", "save", "out"),
        ("copy", "sqlite:///out"),
        ("import", "trail.jsonl", "--into", "out"),
    ],
    ids=" ".join,
)
def test_an_output_that_is_interrupted_leaves_nothing(
    words: tuple[str, ...], number: signal.Signals, start: Start, tmp_path: Path
) -> None:
    """Whenever it comes: while it loads, reads, writes, or when all is done."""
    with LeaseLedger.open(f"sqlite:///{tmp_path}/auth.db?synchronous=normal") as ledger:
        for _ in range(1_500):
            ledger.acquire_lease(LeaseKey.parse(KEY), 5)
    (tmp_path / "trail.jsonl").write_text('{"no": "audit record"}\n' * 20_000)
    # Its log and shared memory are parts of the ledger, and lie there while somebody has it open, or had.
    before = {found.name for found in tmp_path.iterdir()} | {"auth.db-wal", "auth.db-shm"}
    for delay_s in (0.5, 0.8, 1.2):
        process = start(*words)
        with suppress(subprocess.TimeoutExpired):
            process.wait(delay_s)
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
        assert "Traceback" not in errors and len(errors.splitlines()) <= 1
        assert process.returncode in (0, 130, -number), (output, errors)
        made = {found.name for found in tmp_path.iterdir()} - before
        if process.returncode == 0:
            return
        assert not made - {"out", "out.html"}
        for name in made:
            assert (tmp_path / name).stat().st_size > 0
            (tmp_path / name).unlink()


def test_a_standard_output_that_is_closed_is_told_and_nothing_is_done(tmp_path: Path) -> None:
    command = [*_entry_point(), "--db", str(tmp_path / "auth.db"), "--store", str(tmp_path / "tokens"), "login", KEY]
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" >&-', "sh", *command],
        input=TOKENS,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "standard output" in done.stderr
    assert not (tmp_path / "auth.db").exists()


def test_a_standard_error_that_is_closed_never_becomes_a_ledger(tmp_path: Path) -> None:
    command = [*_entry_point(), "--db", str(tmp_path / "auth.db"), "history", KEY]
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" 2>&- <&-', "sh", *command],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert not list(tmp_path.iterdir())


def test_an_interrupt_while_it_loads_is_quiet_too(tmp_path: Path) -> None:
    code = (
        "import os, signal, threading; from projections.cli import main; "
        "threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT)).start(); main()"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_a_reader_that_goes_away_is_no_error_to_speak_of(start: Start, run: Run, tmp_path: Path) -> None:
    with LeaseLedger.open(f"sqlite:///{tmp_path}/auth.db?synchronous=normal") as ledger:
        for _ in range(1_000):
            ledger.acquire_lease(LeaseKey.parse(KEY), 5)
    for words in (
        ("history", KEY),
        ("history", KEY, "--json"),
        ("export",),
        ("report", "-"),
        ("incident", "save", "-"),
    ):
        process = start(*words)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=60) == 141
        assert process.stderr.read() == ""


def test_an_output_that_cannot_be_written_is_a_storage_failure(start: Start, run: Run) -> None:
    run("login", KEY, stdin=TOKENS)
    if not Path("/dev/full").exists():
        pytest.skip("there is no full device here")
    with Path("/dev/full").open("w") as full:
        process = start("leases", stdout=full)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 3
    assert errors == "lease-ledger: No space left on device\n"


def _on_a_terminal(start: Start, *words: str) -> str:
    ours, theirs = pty.openpty()
    process = start(*words, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    with suppress(OSError):
        while chunk := os.read(ours, 65_536):
            shown += chunk
    os.close(ours)
    assert process.wait(timeout=60) == 0
    return shown.decode()


def test_people_at_a_terminal_get_colour_and_pipes_do_not(start: Start, run: Run) -> None:
    run("login", KEY, stdin=TOKENS)
    for command in ("leases", "status", "stale"):
        shown = _on_a_terminal(start, command)
        assert re.search(r"\x1b\[32m(valid|current)", shown)
        assert KEY in shown
        code, output, errors = run(command)
        assert (code, errors) == (0, "")
        assert "\x1b" not in output
        assert KEY in output


def test_tokens_are_not_typed_at_a_terminal_where_they_would_show(start: Start, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = start("login", KEY, stdin=theirs)
    _, errors = process.communicate(timeout=30)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 2
    assert "--tokens-file" in errors
    assert not (tmp_path / "auth.db").exists()


def test_it_tells_its_version(run: Run) -> None:
    code, output, _ = run("--version")
    assert code == 0
    assert output.startswith("lease-ledger, version ")
