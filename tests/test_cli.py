"""The command line, command by command: answers for people, answers in JSON, refusals and their exit codes."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ledger.credentials import Credentials
from ledger.errors import LedgerStorageError
from ledger.guard import GuardTimeout
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.recorders.schema import TRIGGERS
from ledger.stores.file import FileTokenStore
from ledger.tokens import PersistedTokens
from projections.audit import AuditLog
from projections.cli.app import lease_ledger

KEY = "dev:openai:work"
CANARY = "canary-b41e"
TOKENS = json.dumps(
    {
        "auth_mode": "external_tokens",
        "primary_secret": f"{CANARY}-access",
        "refresh_token": f"{CANARY}-refresh",
        "id_token": f"{CANARY}-id",
        "expires_at": 4_000_000_000,
    }
)
COMMANDS = ("login", "logout", "status", "history", "leases", "stale", "verify", "checkpoint", "rebuild")

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a command on a ledger and a store of the test's own."""

    def command(*words: str, stdin: str | None = None) -> Result:
        options = ("--db", str(tmp_path / "auth.db"), "--store", str(tmp_path / "tokens"))
        return CliRunner().invoke(lease_ledger, [*options, *words], input=stdin)

    return command


@pytest.fixture
def logged_in(run: Run) -> Run:
    """The same, somebody having logged in."""
    assert run("login", KEY, stdin=TOKENS).exit_code == 0
    return run


def _lines(result: Result) -> list[Any]:
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def _one_line(result: Result) -> str:
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("lease-ledger: ")
    return str(line)


def test_a_login_is_recorded_and_its_tokens_stored(run: Run, tmp_path: Path) -> None:
    result = run("login", KEY, "--cause", "first day", stdin=TOKENS)
    assert result.stdout == f"logged in {KEY}: generation 1, expires 2096-10-02T07:06:40Z\n"
    stored = FileTokenStore(tmp_path / "tokens").load(LeaseKey.parse(KEY))
    assert stored is not None
    assert stored.primary_secret == f"{CANARY}-access"
    (event,) = _lines(run("history", KEY, "--json"))
    assert (event["tag"], event["cause"], event["generation"]) == ("lease.acquired", "first day", 1)


def test_tokens_may_come_from_a_file(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "given.json"
    file.write_text(TOKENS)
    (answer,) = _lines(run("login", KEY, "--tokens-file", str(file), "--json"))
    assert set(answer) == {"key", "generation", "expires_at", "published_at", "event_id", "version"}
    assert (answer["key"], answer["generation"], answer["expires_at"]) == (KEY, 1, 4_000_000_000)


def test_tokens_that_never_expire_give_a_lease_that_never_does(run: Run) -> None:
    (answer,) = _lines(run("login", KEY, "--json", stdin=PersistedTokens.api_key(CANARY).to_json().decode()))
    assert answer["expires_at"] is None
    assert "never" in run("status", KEY).stdout


@pytest.mark.parametrize(
    "given", ["", "no json", f'{{"auth_mode": "{CANARY}"}}', f'["{CANARY}"]', f'{{"primary_secret": "{CANARY}"}}']
)
def test_what_cannot_be_tokens_is_refused_without_being_shown(given: str, run: Run, tmp_path: Path) -> None:
    result = run("login", KEY, stdin=given)
    assert result.exit_code == 2
    assert "the tokens given cannot be read" in _one_line(result)
    assert CANARY not in result.output
    assert not (tmp_path / "auth.db").exists()


def test_a_logout_releases_the_lease_and_destroys_the_tokens(logged_in: Run, tmp_path: Path) -> None:
    assert logged_in("logout", KEY).stdout == f"logged out {KEY}\n"
    assert FileTokenStore(tmp_path / "tokens").load(LeaseKey.parse(KEY)) is None
    (status,) = _lines(logged_in("status", KEY, "--json"))
    assert (status["status"], status["phase"], status["generation"], status["tokens"]) == ("unknown", None, 1, "none")
    (again,) = _lines(logged_in("logout", KEY, "--json"))
    assert again["generation"] == 1


def test_status_tells_how_a_login_stands(logged_in: Run, tmp_path: Path) -> None:
    assert _lines(logged_in("status", KEY, "--json")) == [
        {
            "key": KEY,
            "status": "valid",
            "phase": "valid",
            "generation": 1,
            "expires_at": 4_000_000_000,
            "credential_present": True,
            "tokens": "stored",
        }
    ]
    without_store = CliRunner().invoke(lease_ledger, ["--db", str(tmp_path / "auth.db"), "status", "--json"])
    assert [status["tokens"] for status in _lines(without_store)] == [None]
    FileTokenStore(tmp_path / "tokens").path_of(LeaseKey.parse(KEY)).write_text("not tokens")
    assert _lines(logged_in("status", "--json"))[0]["tokens"] == "unreadable"


def test_history_is_a_table_for_people_and_json_lines_for_programs(logged_in: Run) -> None:
    logged_in("login", KEY, stdin=TOKENS)
    logged_in("logout", KEY)
    heading, *rows = logged_in("history", KEY).stdout.splitlines()
    assert heading.split() == ["version", "at", "what", "phase", "generation", "expires", "actor", "cause"]
    assert [row.split()[0] for row in rows] == ["1", "2", "3"]
    assert "logged out: lease released" in rows[2]
    events = _lines(logged_in("history", KEY, "--json"))
    assert [event["version"] for event in events] == [1, 2, 3]
    assert [event["phase"] for event in events] == ["valid", "valid", None]
    assert [event["version"] for event in _lines(logged_in("history", KEY, "--last", "1", "--json"))] == [3]


def test_an_empty_answer_says_so_to_people_and_nothing_to_programs(logged_in: Run) -> None:
    answers = ("timeline", "--actor", "nobody", "--tag", "released"), ("sql", "SELECT 1 WHERE 0")
    for words in answers:
        result = logged_in(*words)
        assert (result.exit_code, result.stdout) == (0, "")
        assert len(result.stderr.splitlines()) == 1
    assert logged_in("sql", "SELECT 1 WHERE 0", "--json").output == ""


def test_leases_are_listed_with_their_last_change(logged_in: Run) -> None:
    logged_in("login", "dev:anthropic", stdin=TOKENS)
    logged_in("logout", "dev:anthropic")
    leases = _lines(logged_in("leases", "--json"))
    assert [(lease["key"], lease["phase"], lease["tag"]) for lease in leases] == [
        ("dev:anthropic", None, "lease.released"),
        (KEY, "valid", "lease.acquired"),
    ]
    assert "none" in logged_in("leases").stdout.splitlines()[1].split()


def test_stale_tokens_are_named_with_what_superseded_them(logged_in: Run, tmp_path: Path) -> None:
    assert [token["found"] for token in _lines(logged_in("stale", "--json"))] == ["current"]
    with LeaseLedger.open(f"sqlite:///{tmp_path}/auth.db") as ledger:
        newer = ledger.acquire_lease(LeaseKey.parse(KEY), 5)
    (token,) = _lines(logged_in("stale", "--json"))
    assert (token["found"], token["superseded_by"]) == ("superseded", newer.event_id)
    assert "event 2" in logged_in("stale").stdout


def test_verify_says_that_all_is_well_and_what_said_so(logged_in: Run) -> None:
    assert logged_in("verify").stdout == "all is well: 1 events, checked against chain\n"
    logged_in("leases")
    assert logged_in("verify").stdout == "all is well: 1 events, checked against chain and audit\n"
    (answer,) = _lines(logged_in("verify", "--json"))
    assert (answer["ok"], answer["events"], answer["findings"]) == (True, 1, [])


def _tamper(folder: Path, sql: str) -> None:
    with closing(sqlite3.connect(folder / "auth.db", isolation_level=None)) as raw:
        for name in TRIGGERS:
            raw.execute(f"DROP TRIGGER {name}")
        raw.execute(sql)
        for statement in TRIGGERS.values():
            raw.execute(statement.strip())


CHANGED = "UPDATE stored_events SET state = json_set(state, '$.actor', 'x') WHERE rowid = 2"


def test_verify_names_a_changed_event_and_the_witness_by_the_audit_file(logged_in: Run, tmp_path: Path) -> None:
    logged_in("logout", KEY)
    logged_in("history", KEY)
    _tamper(tmp_path, CHANGED)
    logged_in("history", KEY)
    result = logged_in("verify")
    assert result.exit_code == 4
    heading, row = result.stdout.splitlines()
    assert heading.split()[:4] == ["witness", "position", "key", "version"]
    assert row.split()[:4] == ["audit", "2", KEY, "2"]
    assert "changed" in row
    assert "verification failed" in result.stderr


def test_verify_names_a_changed_event_by_a_kept_checkpoint(logged_in: Run, tmp_path: Path) -> None:
    logged_in("logout", KEY)
    kept = tmp_path / "kept.json"
    kept.write_text(logged_in("checkpoint").stdout)
    assert logged_in("verify", "--against", str(kept)).exit_code == 0
    _tamper(tmp_path, CHANGED)
    assert logged_in("verify").exit_code == 0
    result = logged_in("verify", "--against", str(kept), "--json")
    assert result.exit_code == 4
    (finding,) = json.loads(result.stdout)["findings"]
    assert (finding["witness"], finding["position"], finding["key"], finding["version"]) == ("checkpoint", 2, KEY, 2)


def test_a_checkpoint_of_many_leases_can_be_read_again(logged_in: Run, tmp_path: Path) -> None:
    kept = json.loads(logged_in("checkpoint").stdout)
    (head,) = kept["heads"].values()
    kept["heads"] |= {f"dev:openai:agent-{number}": head for number in range(20_000)}
    (tmp_path / "kept.json").write_text(json.dumps(kept))
    result = logged_in("verify", "--against", str(tmp_path / "kept.json"), "--json")
    assert result.exit_code == 4
    assert {finding["witness"] for finding in json.loads(result.stdout)["findings"]} == {"checkpoint"}


def test_what_is_no_checkpoint_is_wrong_usage(logged_in: Run, tmp_path: Path) -> None:
    (tmp_path / "kept.json").write_text('{"position": "far"}')
    result = logged_in("verify", "--against", str(tmp_path / "kept.json"))
    assert result.exit_code == 2
    assert "is no checkpoint" in _one_line(result)


def test_rebuild_tells_from_how_many_events(logged_in: Run, tmp_path: Path) -> None:
    (answer,) = _lines(logged_in("rebuild", "--json"))
    assert answer == {"path": str(tmp_path / "auth.audit.db"), "events": 1}
    assert logged_in("rebuild").stdout == f"rebuilt {tmp_path / 'auth.audit.db'} from 1 events\n"


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "login"])
def test_a_command_that_looks_never_makes_a_ledger(command: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "tokens").mkdir()
    words = (command, KEY) if command in ("logout", "history", "status") else (command,)
    prepares: tuple[Callable[[], object], ...] = (lambda: None, (tmp_path / "auth.db").touch)
    for prepare in prepares:
        prepare()
        result = run(*words)
        assert result.exit_code == 3
        assert f"there is no ledger at {tmp_path / 'auth.db'}" in _one_line(result)
    assert (tmp_path / "auth.db").read_bytes() == b""
    assert {file.name for file in tmp_path.iterdir()} == {"auth.db", "tokens"}


@pytest.mark.parametrize("command", ["logout", "stale", "status"])
def test_a_token_folder_that_is_not_there_is_no_empty_one(command: str, logged_in: Run, tmp_path: Path) -> None:
    words = [command] if command == "stale" else [command, KEY]
    options = ["--db", str(tmp_path / "auth.db"), "--store", str(tmp_path / "elsewhere")]
    result = CliRunner().invoke(lease_ledger, [*options, *words])
    assert result.exit_code == 3
    assert "there is no token folder" in _one_line(result)
    assert _lines(logged_in("status", KEY, "--json"))[0]["status"] == "valid"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["history"], "Missing argument 'KEY'"),
        (["history", "dev"], "not of the form realm:binding"),
        (["history", "dev:a/b"], "invalid character '/'"),
        (["history", KEY, "--last", "-1"], "--last"),
        (["frobnicate"], "No such command"),
        (["leases", "--frobnicate"], "No such option"),
        (["verify", "--against", "no-such-file"], "does not exist"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_two(words: list[str], told: str, logged_in: Run) -> None:
    result = logged_in(*words)
    assert result.exit_code == 2
    assert told in _one_line(result)


def test_without_a_command_it_shows_its_help() -> None:
    result = CliRunner().invoke(lease_ledger, [])
    assert result.exit_code == 2
    assert result.stderr.startswith("Usage: ")
    assert "Commands:\n" in result.stderr


def test_a_ledger_and_a_store_have_to_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LEASE_LEDGER_DB", raising=False)
    monkeypatch.delenv("LEASE_LEDGER_STORE", raising=False)
    result = CliRunner().invoke(lease_ledger, ["leases"])
    assert (result.exit_code, "--db" in _one_line(result)) == (2, True)
    result = CliRunner().invoke(lease_ledger, ["--db", str(tmp_path / "auth.db"), "login", KEY], input=TOKENS)
    assert (result.exit_code, "--store" in _one_line(result)) == (2, True)
    assert not (tmp_path / "auth.db").exists()
    result = CliRunner().invoke(lease_ledger, ["--db", "carrier-pigeon://coop", "leases"])
    assert (result.exit_code, "unknown ledger URL" in _one_line(result)) == (2, True)


@pytest.mark.parametrize("name", ["auth.db", "with space.db", "50%41.db", "who?.db", "a#b.db", "schlüssel.db"])
def test_a_plain_path_is_a_ledger_whatever_its_name(name: str, tmp_path: Path) -> None:
    options = ["--db", str(tmp_path / name), "--store", str(tmp_path / "tokens")]
    assert CliRunner().invoke(lease_ledger, [*options, "login", KEY], input=TOKENS).exit_code == 0
    assert (tmp_path / name).stat().st_size > 0
    assert len(_lines(CliRunner().invoke(lease_ledger, [*options, "leases", "--json"]))) == 1


def test_something_else_than_a_ledger_is_refused_with_advice(run: Run, tmp_path: Path) -> None:
    (tmp_path / "auth.db").write_text("a diary, long enough to be looked into " * 30)
    result = run("leases")
    assert result.exit_code == 3
    assert "point --db at a ledger" in _one_line(result)


def test_tokens_that_cannot_be_stored_leave_the_lease_as_it_was(logged_in: Run, tmp_path: Path) -> None:
    file = FileTokenStore(tmp_path / "tokens").path_of(LeaseKey.parse(KEY))
    file.unlink()
    file.mkdir()
    result = logged_in("login", KEY, stdin=TOKENS)
    assert result.exit_code == 3
    assert CANARY not in result.output
    _one_line(result)


def test_a_refused_command_ends_with_one(logged_in: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise GuardTimeout(LeaseKey.parse(KEY), 5, "agent two")

    monkeypatch.setattr(Credentials, "logout", refuse)
    result = logged_in("logout", KEY)
    assert result.exit_code == 1
    assert KEY in _one_line(result)


def test_an_unforeseen_error_is_one_line_without_its_text(logged_in: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError(CANARY)

    monkeypatch.setattr(AuditLog, "each_lease", fail)
    result = logged_in("leases")
    assert result.exit_code == 3
    line = _one_line(result)
    assert "unexpected RuntimeError at " in line
    assert CANARY not in line


def test_a_storage_failure_ends_with_three(logged_in: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise LedgerStorageError("the disk\nis full")

    monkeypatch.setattr(AuditLog, "each_lease", fail)
    result = logged_in("leases")
    assert result.exit_code == 3
    assert _one_line(result) == "lease-ledger: the disk\\nis full"


def test_recorded_text_cannot_move_the_cursor_or_fake_a_line(logged_in: Run) -> None:
    logged_in("login", KEY, "--cause", "\x1b[2Jgone\nall is well\u202e", stdin=TOKENS)
    shown = logged_in("history", KEY).stdout
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "\\x1b[2Jgone\\nall is well\\u202e" in shown
    assert len(shown.splitlines()) == 3
    assert _lines(logged_in("history", KEY, "--json"))[1]["cause"] == "\x1b[2Jgone\nall is well\u202e"


def test_no_secret_is_in_any_output_nor_in_the_ledger_nor_in_the_audit_file(logged_in: Run, tmp_path: Path) -> None:
    outputs = [logged_in("login", KEY, *json_or_not, stdin=TOKENS).output for json_or_not in ((), ("--json",))]
    for command in (*COMMANDS[2:], "logout"):
        words = (command, KEY) if command in ("logout", "history", "status") else (command,)
        for result in (logged_in(*words), logged_in(*words, "--json")):
            assert result.exit_code == 0
            outputs.append(result.output)
    assert all(outputs)
    assert not [output for output in outputs if CANARY in output]
    files = [file for file in tmp_path.glob("auth*") if file.is_file()]
    assert {file.name for file in files} >= {"auth.db", "auth.audit.db"}
    assert not [file.name for file in files if CANARY.encode() in file.read_bytes()]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    help_text = CliRunner().invoke(lease_ledger, [command, "--help"]).stdout
    assert "Example:" in help_text
    assert "lease-ledger --db auth.db" in help_text
    assert f" {command}" in help_text.partition("Example:")[2]


def test_the_exit_codes_are_documented() -> None:
    help_text = " ".join(CliRunner().invoke(lease_ledger, ["--help"]).stdout.split())
    for code in ("0 all is well", "1 refused", "2 wrong usage", "3 the ledger", "4 verification", "130 interrupted"):
        assert code in help_text
    for command in COMMANDS:
        assert f" {command} " in help_text
