"""``init``, ``backup``, ``copy`` and ``doctor`` as a person uses them."""

import contextlib
import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from pgserver import fresh_schema

from ledger import (
    Credentials,
    FileTokenStore,
    LeaseKey,
    LeaseLedger,
    PersistedTokens,
    PostgresTokenStore,
    ReauthRequired,
)
from ledger.recovery import place_digest
from ledger.stores.encryption import new_token_key
from projections.cli.app import lease_ledger

KEY = LeaseKey.parse("dev:openai:work")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(lease_ledger, [str(argument) for argument in arguments])


@pytest.fixture
def db(tmp_path: Path) -> Path:
    with LeaseLedger.open(f"sqlite:///{tmp_path}/auth.db?synchronous=normal", actor="test") as ledger:
        tokens = PersistedTokens("claude_ai_oauth", primary_secret="canary", expires_at=int(time.time()) + 60)
        Credentials(ledger, FileTokenStore(tmp_path / "tokens")).login(KEY, tokens)
    return tmp_path / "auth.db"


def test_init_makes_a_ledger_once_and_tells_its_id(tmp_path: Path) -> None:
    first, second = run("--db", tmp_path / "new.db", "init"), run("--db", tmp_path / "new.db", "init")
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert first.output == second.output and "is ready" in first.output


def test_a_backup_verifies_and_is_the_same_ledger(db: Path, tmp_path: Path) -> None:
    written = run("--db", db, "backup", tmp_path / "backup.db", "--json")
    assert written.exit_code == 0 and json.loads(written.stdout)["position"] == 1
    assert run("--db", tmp_path / "backup.db", "verify").exit_code == 0
    again = run("--db", db, "backup", tmp_path / "backup.db")
    assert again.exit_code == 3 and "exist" in again.output and "Traceback" not in again.output


def test_a_copy_to_postgresql_and_back_keeps_every_event(db: Path, tmp_path: Path) -> None:
    url = fresh_schema(tmp_path)
    assert run("--db", db, "copy", url).exit_code == 0
    assert run("--db", url, "copy", f"sqlite:///{tmp_path}/back.db").exit_code == 0
    with LeaseLedger.open(f"sqlite:///{db}") as before, LeaseLedger.open(f"sqlite:///{tmp_path}/back.db") as after:
        assert after.checkpoint() == before.checkpoint()
    shown = run("--db", url, "status", "--json", "dev:openai:work")
    assert shown.exit_code == 0 and json.loads(shown.stdout)["phase"] == "valid"


def test_the_doctor_finds_nothing_where_all_is_in_order(db: Path, tmp_path: Path) -> None:
    result = run("--db", db, "--store", tmp_path / "tokens", "doctor")
    assert result.exit_code == 0 and "all is in order" in result.output


def test_the_doctor_changes_nothing_until_told_to_and_then_says_what_it_mended(db: Path, tmp_path: Path) -> None:
    with LeaseLedger.open(f"sqlite:///{db}", actor="test") as ledger:
        ledger.release_lease(KEY)
    arguments = ("--db", db, "--store", tmp_path / "tokens", "doctor", "--json")
    looked, looked_again, mended, after = run(*arguments), run(*arguments), run(*arguments, "--fix"), run(*arguments)
    assert [result.exit_code for result in (looked, looked_again, mended, after)] == [1, 1, 0, 0]
    assert json.loads(looked.stdout) == json.loads(looked_again.stdout)
    assert json.loads(looked.stdout)["condition"] == "orphaned"
    assert json.loads(mended.stdout)["outcome"] == "mended"
    assert not list((tmp_path / "tokens").glob("*.json"))
    assert "canary" not in looked.output + mended.output


def test_what_needs_a_person_is_said_to_and_ends_with_exit_code_1(db: Path, tmp_path: Path) -> None:
    (tmp_path / "tokens" / "dev,openai,work.json").unlink()
    with LeaseLedger.open(f"sqlite:///{db}", actor="test") as ledger:
        ledger.mark_expiring(KEY)
    result = run("--db", db, "--store", tmp_path / "tokens", "doctor", "--fix")
    assert result.exit_code == 1 and "missing" in result.output and "needs a person" in result.output


def test_tokens_in_a_database_are_used_and_sealed_again_from_the_command_line(
    db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, keys = fresh_schema(tmp_path), tmp_path / "token.key"
    monkeypatch.setenv("LEASE_LEDGER_TOKEN_KEY_FILE", str(keys))
    keys.write_text(run("new-token-key").stdout)
    tokens = tmp_path / "tokens.json"
    tokens.write_text(
        '{"auth_mode":"claude_ai_oauth","primary_secret":"canary","refresh_token":"r","expires_at":2000000000}'
    )
    login = run("--db", db, "--store", url, "login", "dev:shared", "--tokens-file", tokens)
    assert login.exit_code == 0 and "canary" not in login.output
    keys.write_text(run("new-token-key").stdout + keys.read_text())
    rotated = run("--store", url, "rotate-token-key")
    assert rotated.exit_code == 0 and rotated.output.startswith("1 sets of tokens")
    keys.write_text(keys.read_text().splitlines()[0])
    shown = run("--db", db, "--store", url, "status", "dev:shared", "--json")
    assert shown.exit_code == 0 and json.loads(shown.stdout)["status"] == "valid"
    wrong = run("--db", db, "--store", tmp_path / "tokens", "rotate-token-key")
    assert wrong.exit_code == 2 and "postgresql://" in wrong.output


def test_a_login_that_was_never_saved_in_a_database_is_undone_there_too(db: Path, tmp_path: Path) -> None:
    url = fresh_schema(tmp_path)
    one, same = (PostgresTokenStore(url, key=new_token_key()) for _ in range(2))
    with contextlib.closing(one), contextlib.closing(same), LeaseLedger.open(f"sqlite:///{db}") as ledger:
        assert one.location is not None and one.location == same.location
        ledger.acquire_lease(LeaseKey.parse("dev:lost"), 2_000_000_000, store=place_digest(one))
        with pytest.raises(ReauthRequired):
            Credentials(ledger, same).fresh(LeaseKey.parse("dev:lost"), lambda tokens: tokens)


def test_an_attempt_open_for_too_long_is_a_row_that_ends_with_exit_code_1(db: Path, tmp_path: Path) -> None:
    with LeaseLedger.open(f"sqlite:///{db}", actor="test") as ledger:
        attempt = ledger.begin_refresh(KEY, duration_ms=0)
    result = run("--db", db, "--store", tmp_path / "tokens", "doctor", "--fix")
    assert result.exit_code == 1 and "overdue" in result.output and "the next use takes over" in result.output
    assert f"attempt {attempt.id[:8]} of test" in result.output
