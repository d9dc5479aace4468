"""Commands that only look make nothing; keys that never were are told from those that were; one bad file is one row."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result
from pgserver import fresh_schema

from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.stores.encryption import new_token_key
from ledger.stores.file import FileTokenStore
from ledger.tokens import PersistedTokens
from projections.cli.app import lease_ledger

KEY = "dev:openai:work"
TYPO = "dev:opnai:work"
TOKENS = '{"auth_mode": "api_key", "primary_secret": "canary-10fd"}'

Run = Callable[..., Result]

LOOKING: list[tuple[str, ...]] = [
    ("status",),
    ("status", KEY),
    ("history", KEY),
    ("leases",),
    ("as-of", KEY),
    ("diff", KEY, "0", "1"),
    ("timeline",),
    ("explain", KEY),
    ("stale",),
    ("doctor",),
    ("doctor", "--fix"),
    ("replay",),
    ("incident", "save", "i.json"),
    ("verify",),
    ("checkpoint",),
    ("checkpoint", "-o", "c.json"),
    ("rebuild",),
    ("sql", "SELECT 1"),
    ("datasette-metadata",),
    ("backup", "b.db"),
    ("copy", "sqlite:///c.db"),
    ("export",),
    ("export", "-o", "e.jsonl"),
    ("report", "r.html"),
    ("logout", KEY),
]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in a folder of the test's own; whatever it keeps for the user is kept there too."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("LEASE_LEDGER_TOKEN_KEY", new_token_key())

    def command(*words: str, db: str = "auth.db", store: str = "tokens", stdin: str = TOKENS) -> Result:
        return CliRunner().invoke(lease_ledger, ["--db", db, "--store", store, *words], input=stdin)

    return command


def _everything(folder: Path) -> set[str]:
    return {str(found.relative_to(folder)) for found in folder.rglob("*")}


@pytest.mark.parametrize("words", LOOKING, ids=" ".join)
@pytest.mark.parametrize("db", ["typo.db", "sqlite:///typo.db", "sqlite:///typo.db?synchronous=normal", "no/typo.db"])
def test_a_command_that_looks_makes_nothing_where_there_is_no_ledger(
    words: tuple[str, ...], db: str, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "work" / "tokens").mkdir()
    before = _everything(tmp_path)
    result = run(*words, db=db)
    assert (result.exit_code, result.stdout) == (3, ""), result.output
    assert "there is no ledger at" in result.stderr and len(result.stderr.splitlines()) == 1
    assert _everything(tmp_path) == before


def _schemas(url: str) -> set[str]:
    with psycopg.connect(url.partition("?")[0], autocommit=True) as sql:
        found = sql.execute(
            "SELECT schemaname || '.' || tablename FROM pg_tables UNION SELECT nspname FROM pg_namespace"
        )
        own = ("public", re.findall(r"schema=(\w+)", url)[0])
        return {name for (name,) in found if name.partition(".")[0] in own}


@pytest.mark.parametrize("words", LOOKING, ids=" ".join)
def test_a_command_that_looks_makes_nothing_in_a_wrong_database(
    words: tuple[str, ...], run: Run, tmp_path: Path
) -> None:
    url = fresh_schema(tmp_path)
    (tmp_path / "work" / "tokens").mkdir()
    before, tables = _everything(tmp_path), _schemas(url)
    for db in (url, f"{url}&create=yes"):
        result = run(*words, db=db)
        assert (result.exit_code, result.stdout) == (3, ""), result.output
        assert len(result.stderr.splitlines()) == 1 and "holds no ledger" in result.stderr
    assert (_everything(tmp_path), _schemas(url)) == (before, tables)


@pytest.mark.parametrize("words", [("stale",), ("doctor",), ("status",), ("logout", KEY), ("rotate-token-key",)])
def test_a_command_that_looks_makes_no_table_of_tokens(words: tuple[str, ...], run: Run, tmp_path: Path) -> None:
    assert run("login", KEY).exit_code == 0
    url = fresh_schema(tmp_path)
    tables = _schemas(url)
    result = run(*words, store=url)
    assert result.exit_code == 3, result.output
    assert "holds no token table yet" in result.stderr
    assert _schemas(url) == tables


def test_what_records_makes_its_ledger_and_its_store(run: Run, tmp_path: Path) -> None:
    url = fresh_schema(tmp_path)
    assert run("login", KEY, db=url, store=url).exit_code == 0
    assert run("status", KEY, db=url, store=url).exit_code == 0


ABOUT_KEYS: list[tuple[str, ...]] = [
    ("status", TYPO),
    ("history", TYPO),
    ("as-of", TYPO),
    ("diff", TYPO, "0", "0"),
    ("timeline", TYPO),
    ("timeline", KEY, TYPO),
    ("explain", TYPO),
    ("replay", TYPO),
    ("incident", "save", "i.json", TYPO),
    ("incident", "save", "i.json", KEY, TYPO),
    ("export", TYPO),
    ("export", "-o", "e.jsonl", TYPO),
    ("report", "r.html", TYPO),
    ("logout", TYPO),
]


@pytest.mark.parametrize("words", ABOUT_KEYS, ids=" ".join)
def test_a_key_that_never_was_is_unknown_and_nothing_is_recorded(
    words: tuple[str, ...], run: Run, tmp_path: Path
) -> None:
    assert run("login", KEY).exit_code == 0
    before = _everything(tmp_path)
    people, program = run(*words), run(*words, "--json")
    assert (people.exit_code, people.stdout) == (1, "")
    assert people.stderr == f"lease-ledger: unknown key {TYPO}; did you mean {KEY}?\n"
    error = json.loads(program.stderr)["error"]
    assert (program.exit_code, program.stdout) == (1, "")
    assert (error["code"], error["key"], error["suggestions"]) == ("unknown_key", TYPO, [KEY])
    assert _everything(tmp_path) == before
    with LeaseLedger.open("sqlite:///auth.db") as ledger:
        assert ledger.recorder.last_position() == 1


def test_a_key_that_is_like_no_other_is_told_where_the_keys_are(run: Run) -> None:
    run("login", KEY)
    assert run("history", "no:such").stderr == (
        "lease-ledger: unknown key no:such; 'lease-ledger leases' lists the keys there are\n"
    )


def test_a_key_that_was_logged_out_is_known(run: Run) -> None:
    run("login", KEY)
    assert run("logout", KEY).exit_code == 0
    for words in (("status", KEY), ("history", KEY), ("explain", KEY), ("logout", KEY)):
        assert run(*words).exit_code == 0


def test_tokens_that_the_ledger_never_saw_can_be_looked_at_and_destroyed(run: Run) -> None:
    run("login", KEY)
    FileTokenStore("tokens").save(LeaseKey.parse("dev:left"), PersistedTokens.api_key("k"))
    assert run("status", "dev:left").exit_code == 0
    assert run("explain", "dev:left").exit_code == 0
    assert run("logout", "dev:left").exit_code == 0
    assert FileTokenStore("tokens").load(LeaseKey.parse("dev:left")) is None


def _link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_suffix(".elsewhere"))


def _link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _garbage(path: Path) -> None:
    path.write_bytes(b"\xff\xfe not tokens")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("spoil", [_link_to_nothing, _link_to_itself, _folder, _pipe, _garbage, _empty])
@pytest.mark.parametrize("long", [False, True], ids=["short name", "shortened name"])
def test_one_unusable_token_file_is_one_row_with_its_reason(
    spoil: Callable[[Path], None], long: bool, run: Run
) -> None:
    spoilt = f"b:{'b' * 200}" if long else "b:b"
    for name in ("a:a", spoilt, "c:c"):
        run("login", name)
    spoil(FileTokenStore("tokens").path_of(LeaseKey.parse(spoilt)))

    def rows(*words: str) -> list[Any]:
        return [json.loads(line) for line in run(*words, "--json").stdout.splitlines()]

    status = {row["key"]: row for row in rows("status")}
    assert {key: row["tokens"] for key, row in status.items()} == {
        "a:a": "stored",
        spoilt: "unreadable",
        "c:c": "stored",
    }
    assert status[spoilt]["detail"] and "detail" not in status["a:a"]
    stale = {row["key"]: row for row in rows("stale")}
    assert (len(stale), stale[spoilt]["found"]) == (3, "unreadable") and stale[spoilt]["detail"]
    (diagnosis,) = (row for row in rows("doctor") if row["condition"] in ("unreadable", "unavailable"))
    assert diagnosis["key"] == spoilt and diagnosis["text"]
    assert len(rows("leases")) == 3
    assert "canary" not in run("status").output
