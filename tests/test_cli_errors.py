"""What a command that failed says: one line for people, one JSON object for programs, and never a password."""

import importlib
import json
import os
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

import ledger
import projections
from ledger.credentials import Credentials
from ledger.errors import CorruptHistory, LeaseLedgerError
from ledger.guard import GuardTimeout
from ledger.keys import LeaseKey
from ledger.refresh_errors import TokensNotSaved
from ledger.store_errors import TokensChanged
from ledger.tokens import PersistedTokens
from projections.cli.app import lease_ledger
from projections.cli.error_codes import ERRORS, kind_of
from projections.cli.exit_codes import Exit

KEY = LeaseKey.parse("dev:openai:work")
TOKENS = '{"auth_mode": "api_key", "primary_secret": "canary-10fd"}'
SECRET = "s3cr-4711"

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in a folder with a ledger and a token."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LEASE_LEDGER_DB", "auth.db")
    monkeypatch.setenv("LEASE_LEDGER_STORE", "tokens")

    def command(*words: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(lease_ledger, words, input=stdin)

    assert command("login", str(KEY), stdin=TOKENS).exit_code == 0
    return command


def _line(result: Result) -> str:
    assert result.stdout == ""
    assert result.stderr.startswith("lease-ledger: ")
    assert len(result.stderr.splitlines()) == 1
    assert "Traceback" not in result.stderr and "please report it" not in result.stderr
    return result.stderr


def _error(result: Result) -> Any:
    (line,) = result.stderr.splitlines()
    answer = json.loads(line)
    assert set(answer) == {"error"}
    assert answer["error"]["exit_code"] == result.exit_code
    return answer["error"]


WRONG = [
    (["login", str(KEY), "--cause", "x" * 1001], "at most 1000 characters"),
    (["login", str(KEY), "--cause", "caf\udce9"], "no UTF-8 text"),
    (["--actor", "caf\udce9", "history", str(KEY)], "no UTF-8 text"),
    (["--actor", "x" * 1001, "history", str(KEY)], "at most 1000 characters"),
    (["login", str(KEY), "--tokens-file", "none.json"], "does not exist"),
    (["login", str(KEY), "--tokens-file", "."], "is a folder"),
    (["login", str(KEY), "--tokens-file", "/dev/zero"], "no regular file"),
    (["history", "dev:\udcff"], "invalid character"),
    (["history", ""], "not of the form"),
    (["history", ":"], "empty"),
    (["history", "a:b:c:d"], "not of the form"),
    (["history", "x" * 100_000], "not of the form"),
    (["history", str(KEY), "--last", "9" * 25], "--last"),
    (["history", str(KEY), "--last", "9" * 5000], "--last"),
    (["history", str(KEY), "--last", "-1"], "--last"),
    (["history", str(KEY), "--last", "0"], "--last"),
    (["history", str(KEY), "--last", ""], "--last"),
    (["timeline", "--after", str(2**63)], "--after"),
    (["timeline", "--limit", "9" * 25], "--limit"),
    (["timeline", "--limit", "-5"], "--limit"),
    (["timeline", "--tag", "refresh"], "the tags are lease.acquired"),
    (["export", "--tag", ""], "the tags are lease.acquired"),
    (["export", "-o", "no/such/folder/file"], "its folder does not exist"),
    (["export", "-o", ""], "no file name"),
    (["export", "-o", "tokens"], "token folder"),
    (["report", "tokens/page.html"], "token folder"),
    (["replay", "--insert", "9" * 5000, str(KEY), "login"], "--insert takes"),
    (["replay", "--insert", "²", str(KEY), "login"], "--insert takes"),
    (["replay", "--where", "phase"], "phase"),
    (["verify", "--against", "auth.db"], "is no checkpoint"),
    (["verify", "--against", "/dev/zero"], "no regular file"),
    (["verify", "--against", "tokens"], "is a folder"),
    (["verify", "--against", "deep.json"], "is no checkpoint"),
    (["incident"], "Commands"),
    (["incident", "verify", "/dev/zero"], "no regular file"),
    (["incident", "show", "huge"], "longer than"),
    (["incident", "show", "fifo"], "no regular file"),
    (["replay", "--incident", "none.json"], "does not exist"),
    (["import", "none.jsonl", "--into", "new.db"], "does not exist"),
    (["import", "/dev/zero", "--into", "new.db"], "no regular file"),
    (["copy", "memory://"], "copied to"),
    (["copy", "sqlite://host/new.db"], "sqlite"),
    (["sql", ""], "asks nothing"),
    (["sql", "SELECT '\udcff'"], "no Unicode text"),
    (["sql", "SELECT ?", "\udcff"], "no Unicode text"),
    (["sql", "SELECT 1", "--timeout", "0"], "--timeout"),
    (["sql", "SELECT 1", "--timeout", "-1"], "--timeout"),
    (["sql", "SELECT 1", "--timeout", "nan"], "--timeout"),
    (["--db", "", "status"], "which ledger?"),
    (["--db", "memory://", "status"], "in memory"),
    (["--db", ":memory:", "login", str(KEY)], "in memory"),
    (["--db", "carrier-pigeon://coop", "status"], "unknown ledger URL"),
    (["--db", "sqlite:///auth.db?colour=red", "status"], "unknown option 'colour'"),
    (["--db", "a\0b", "status"], "NUL"),
    (["--store", "", "stale"], "where are the tokens?"),
    (["--store", "mysql://h/d", "stale"], "unknown token store"),
    (["--frobnicate"], "No such option"),
    (["status", str(KEY), "more"], "unexpected extra argument"),
]


def _odd_files(folder: Path) -> None:
    (folder / "deep.json").write_text("[" * 100_000)
    with (folder / "huge").open("wb") as huge:
        huge.truncate(1 << 40)
    if not (folder / "fifo").exists():
        os.mkfifo(folder / "fifo")


@pytest.mark.parametrize(("words", "told"), WRONG, ids=lambda value: repr(value)[:40])
def test_wrong_usage_is_one_line_that_says_what_and_exit_code_two(
    words: list[str], told: str, run: Run, tmp_path: Path
) -> None:
    _odd_files(tmp_path)
    result = run(*words, stdin=TOKENS)
    assert result.exit_code == 2, result.output
    if words != ["incident"]:
        assert told in _line(result)


@pytest.mark.parametrize(("words", "told"), WRONG, ids=lambda value: repr(value)[:40])
def test_wrong_usage_is_one_json_object_where_json_was_asked_for(
    words: list[str], told: str, run: Run, tmp_path: Path
) -> None:
    _odd_files(tmp_path)
    result = run(*words, "--json", stdin=TOKENS)
    assert (result.exit_code, result.stdout) == (2, "")
    error = _error(result)
    assert ERRORS_BY_CODE[error["code"]] is Exit.USAGE
    assert error["message"] and "\n" not in error["message"]
    del told


ERRORS_BY_CODE = {kind.code: kind.exit for kind in ERRORS.values()}


def _modules(package: Any) -> Iterator[Any]:
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if "postgres" not in found.name:
            yield importlib.import_module(found.name)


def _public_errors() -> list[type[BaseException]]:
    """Every exception class that a package or a module of this project names as public."""
    homes = [ledger, projections, *_modules(ledger), *_modules(projections)]
    named = [getattr(home, name) for home in homes for name in getattr(home, "__all__", ())]
    return sorted({thing for thing in named if isinstance(thing, type) and issubclass(thing, BaseException)}, key=repr)


INTERNAL = {"UnusableLine", "IntegrityError", "Stopped", "LinkRefused", "UnusableCheckpoint", "UnusableRows"}
"""Raised between two modules, and met by no caller."""


@pytest.mark.parametrize("error", [error for error in _public_errors() if error.__name__ not in INTERNAL])
def test_every_public_error_has_a_code_of_its_own(error: type[BaseException]) -> None:
    assert error in ERRORS


def test_no_two_errors_share_a_code_and_none_looks_like_prose() -> None:
    codes = [kind.code for kind in ERRORS.values()]
    assert len(set(codes)) == len(codes)
    assert all(code.replace("_", "").isalpha() and code.islower() for code in codes)
    assert {kind.exit for kind in ERRORS.values()} <= {1, 2, 3, 130}


def test_an_error_without_a_row_has_that_of_what_it_is_made_from() -> None:
    class Mine(CorruptHistory):
        pass

    assert kind_of(Mine("k", 1, "x")) == ERRORS[CorruptHistory]
    assert kind_of(ZeroDivisionError()).code == "internal"
    assert kind_of(PermissionError()).code == "io"


@pytest.mark.parametrize(
    ("error", "code", "exit_code"),
    [
        (GuardTimeout(KEY, 5, "agent two"), "guard_timeout", 1),
        (TokensChanged(KEY, None, "e"), "tokens_changed", 1),
        (TokensNotSaved(KEY, PersistedTokens.api_key("canary-10fd")), "tokens_not_saved", 3),
        (CorruptHistory(str(KEY), 1, "x\ny"), "corrupt_history", 3),
        (LeaseLedgerError("no"), "refused", 1),
        (OSError(28, "No space left on device"), "io", 3),
        (MemoryError(), "out_of_memory", 3),
        (RuntimeError("canary-10fd"), "internal", 3),
        (KeyboardInterrupt(), "interrupted", 130),
        (click.UsageError("no"), "usage", 2),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_under_json_is_one_object_with_its_code(
    error: BaseException, code: str, exit_code: int, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Credentials, "logout", fail)
    result = run("logout", str(KEY), "--json")
    assert (result.exit_code, result.stdout) == (exit_code, "")
    told = _error(result)
    assert told["code"] == code
    assert told.get("key") == (str(KEY) if hasattr(error, "key") else None)
    assert "canary" not in result.output
    people = run("logout", str(KEY))
    assert (people.exit_code, len(people.stderr.splitlines())) == (exit_code, 0 if exit_code == 130 else 1)


def test_json_after_two_dashes_is_no_option(run: Run) -> None:
    assert _line(run("sql", "SELEC 1", "--", "--json"))


ADDRESSES = [
    f"postgresql://u:{SECRET}@[::1/d",
    f"postgresql://u:x/{SECRET}@h/d",
    f"postgresql://u:12/{SECRET}@h/d",
    f"postgresql://u:x?{SECRET}@h/d",
    f"postgresql://u:x#{SECRET}@h/d",
    f"postgresql://u:{SECRET}@h:port/d",
    f"postgresql://u:{SECRET}@h\u2100/d",
    f"postgresql://u:{SECRET}%00@h/d",
    f"postgresql://u:%zz{SECRET}@h/d",
    f"postgresql://h/d?password={SECRET}&colour=red",
    f"postgresql://h/d?password=x@{SECRET}",
    f"postgresql://u:{SECRET}@h/d?schema=Bad",
    f"postgresql://u:{SECRET}@h/d?reconnect=soon",
    f"postgresql:/u:{SECRET}@h/d",
    f"postgres:u:{SECRET}@h/d",
    f"u:{SECRET}@h/d",
    f" postgresql://u:{SECRET}@h/d",
    f"mysql://u:{SECRET}@h/d",
    f"sqlite://u:{SECRET}@h/d",
    f"http://[u:{SECRET}@h/d",
]


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("as_json", [(), ("--json",)], ids=["words", "json"])
def test_no_error_about_an_address_quotes_its_password(
    address: str, as_json: tuple[str, ...], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEASE_LEDGER_TOKEN_KEY", run("new-token-key").stdout.strip())
    before = {found.name for found in tmp_path.iterdir()}
    for words in (
        ("--db", address, "status"),
        ("--db", address, "login", str(KEY)),
        ("--store", address, "stale"),
        ("copy", address),
        ("explain", str(KEY), "--peer", address),
        ("history", address),
        ("status", str(KEY), address),
        (address, "status"),
    ):
        result = run(*words, *as_json, stdin=TOKENS)
        assert result.exit_code in (2, 3), (words, result.output)
        assert SECRET not in result.output, words
        assert len(result.stderr.splitlines()) == 1
        assert _error(result) if as_json else _line(result)
    assert {found.name for found in tmp_path.iterdir()} == before | {"auth.audit.db", "auth.audit.db.lock"} & {
        found.name for found in tmp_path.iterdir()
    }


def test_a_very_long_error_is_cut_in_the_middle(run: Run) -> None:
    line = _line(run("history", f"{'x' * 50_000}:{'y' * 50_000}:{'z' * 50_000}:end"))
    assert len(line) < 2_200
    assert "--help'" in line


def test_a_group_without_a_command_shows_its_help(run: Run) -> None:
    result = run("incident")
    assert result.exit_code == 2
    assert result.stderr.startswith("Usage: ")
    assert "Commands:\n" in result.stderr
