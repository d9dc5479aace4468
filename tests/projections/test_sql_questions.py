"""Refresh attempts, login sessions and free questions in SQL, and Datasette over the same file."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from ledger import LeaseKey, LeaseLedger
from projections.audit import AuditLog
from projections.cli.app import lease_ledger

KEY = LeaseKey.parse("dev:openai:work")
OTHER = LeaseKey.parse("dev:other")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[LeaseLedger]:
    clock = iter(range(1_000, 10_000_000, 1_000))
    url = f"sqlite:///{tmp_path}/auth.db?synchronous=normal"
    with LeaseLedger.open(url, clock=lambda: next(clock), actor="test") as opened:
        yield opened


@pytest.fixture
def audit(ledger: LeaseLedger) -> Iterator[AuditLog]:
    with AuditLog.open(ledger) as opened:
        yield opened


def test_every_way_an_attempt_can_end_has_its_outcome(ledger: LeaseLedger, audit: AuditLog) -> None:
    ledger.acquire_lease(KEY, 5)
    ledger.begin_refresh(KEY)
    ledger.complete_refresh(KEY, 6, 5)
    ledger.begin_refresh(KEY)
    ledger.complete_refresh(KEY, 7, 6, recovered=True)
    ledger.begin_refresh(KEY)
    ledger.refresh_failed(KEY, False, status=503)
    silent = ledger.begin_refresh(KEY)
    ledger.refresh_failed(KEY, False, attempt=silent, abandoned=True)
    ledger.begin_refresh(KEY)
    ledger.release_lease(KEY)
    ledger.acquire_lease(KEY, 8)
    late = ledger.begin_refresh(KEY)
    ledger.refresh_failed(KEY, False, attempt=late, abandoned=True)
    ledger.acquire_lease(KEY, 9, attempt=late.id)
    ledger.begin_refresh(KEY)
    ledger.refresh_failed(KEY, True, error="invalid_grant")
    ledger.acquire_lease(KEY, 10)
    ledger.begin_refresh(KEY)

    attempts = audit.attempts(KEY)
    assert [attempt["outcome"] for attempt in attempts] == [
        "refreshed",
        "recovered",
        "failed",
        "abandoned",
        "overtaken",
        "late",
        "refused",
        "open",
    ]
    assert {attempt["took_ms"] for attempt in attempts if attempt["outcome"] == "refreshed"} == {1_000}
    assert attempts[6]["error"] == "invalid_grant" and attempts[2]["status"] == 503
    assert audit.attempts(OTHER) == [] and len(audit.attempts()) == len(attempts)


def test_an_attempt_that_a_restore_revived_is_one_row(ledger: LeaseLedger, audit: AuditLog) -> None:
    ledger.acquire_lease(KEY, 5)
    attempt = ledger.begin_refresh(KEY)
    refreshing = ledger.snapshot(KEY)
    ledger.release_lease(KEY)
    ledger.restore_auth_lifecycle_snapshot(KEY, refreshing, compensates=3)
    assert [row["outcome"] for row in audit.attempts(KEY)] == ["open"]
    ledger.complete_refresh(KEY, 6, 5, attempt)
    assert [(row["outcome"], row["ended_version"]) for row in audit.attempts(KEY)] == [("refreshed", 5)]


def test_a_session_lasts_from_a_login_to_what_ended_it(ledger: LeaseLedger, audit: AuditLog) -> None:
    ledger.acquire_lease(KEY, 5)
    ledger.begin_refresh(KEY)
    ledger.complete_refresh(KEY, 6, 5)
    ledger.release_lease(KEY)
    ledger.acquire_lease(KEY, 5)
    ledger.acquire_lease(KEY, 5)
    ledger.acquire_lease(OTHER, 5)
    rows = audit.sessions(KEY)
    assert [(row["ended"], row["first_generation"], row["last_generation"]) for row in rows] == [
        ("logged out", 1, 2),
        ("replaced by another login", 3, 3),
        ("open", 4, 4),
    ]
    assert len(audit.sessions()) == 4


def test_what_a_restore_undid_ends_no_session(ledger: LeaseLedger, audit: AuditLog) -> None:
    ledger.acquire_lease(KEY, 5)
    before = ledger.snapshot(KEY)
    ledger.release_lease(KEY)
    ledger.restore_auth_lifecycle_snapshot(KEY, before, compensates=2)
    ledger.acquire_lease(KEY, 6)
    ledger.restore_auth_lifecycle_snapshot(KEY, before, compensates=4)
    assert [(row["login_version"], row["ended"]) for row in audit.sessions(KEY)] == [(1, "open"), (4, "undone")]


def test_the_views_are_there_after_a_rebuild_too(ledger: LeaseLedger, audit: AuditLog) -> None:
    ledger.acquire_lease(KEY, 5)
    before = (audit.sessions(), audit.attempts())
    audit.rebuild()
    ledger.begin_refresh(KEY)
    assert audit.sessions() == before[0] and len(audit.attempts()) == len(before[1]) + 1


def test_a_question_takes_values_and_sees_what_was_recorded_just_now(ledger: LeaseLedger, audit: AuditLog) -> None:
    ledger.acquire_lease(KEY, 5)
    question = "SELECT count(*) AS events FROM events WHERE key = :key"
    assert audit.query(question, {"key": str(KEY)}) == [{"events": 1}]
    ledger.release_lease(KEY)
    assert audit.query(question, {"key": str(KEY)}) == [{"events": 2}]


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM events",
        "UPDATE leases SET phase = 'valid'",
        "DROP TABLE events",
        "CREATE TABLE x (y)",
        "ATTACH 'elsewhere.db' AS e",
        "PRAGMA writable_schema = ON",
        "WITH x AS (SELECT 1) DELETE FROM events",
        "COMMIT",
        "SELECT 1; SELECT 2",
        "SELECT nothing FROM nowhere",
        "not sql at all",
    ],
)
def test_a_statement_that_does_more_than_read_is_refused_and_nothing_changes(
    ledger: LeaseLedger, audit: AuditLog, statement: str
) -> None:
    ledger.acquire_lease(KEY, 5)
    with pytest.raises(ValueError, match="the question cannot be answered"):
        audit.query(statement)
    assert len(audit.history(KEY)) == 1
    assert audit.query("SELECT count(*) AS n FROM events") == [{"n": 1}]


def test_the_command_line_asks_in_sql(ledger: LeaseLedger, tmp_path: Path) -> None:
    ledger.acquire_lease(KEY, 5)
    arguments = ["--db", f"{tmp_path}/auth.db", "sql", "SELECT key, phase FROM leases WHERE key = ?", str(KEY)]
    plain, as_json = (CliRunner().invoke(lease_ledger, [*arguments, *more]) for more in ([], ["--json"]))
    assert plain.exit_code == 0 and plain.stdout.split() == ["key", "phase", str(KEY), "valid"]
    assert json.loads(as_json.stdout) == {"key": str(KEY), "phase": "valid"}
    refused = CliRunner().invoke(lease_ledger, ["--db", f"{tmp_path}/auth.db", "sql", "DELETE FROM events"])
    assert refused.exit_code == 2 and "does more than read" in refused.output


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_real_datasette_shows_the_tables_the_views_and_the_ready_questions(
    ledger: LeaseLedger, tmp_path: Path
) -> None:
    ledger.acquire_lease(KEY, 5)
    ledger.begin_refresh(KEY)
    printed = CliRunner().invoke(lease_ledger, ["--db", f"{tmp_path}/auth.db", "datasette-metadata"])
    assert printed.exit_code == 0
    (tmp_path / "metadata.json").write_text(printed.stdout)
    port = _free_port()
    command = [sys.executable, "-m", "datasette", str(tmp_path / "auth.audit.db"), "--port", str(port)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    serving = subprocess.Popen(
        [*command, "--metadata", str(tmp_path / "metadata.json")],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def get(path: str) -> str:
        deadline = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/auth~2Eaudit{path}") as answer:
                    return str(answer.read().decode())
            except urllib.error.HTTPError:
                raise
            except (urllib.error.URLError, ConnectionError):
                assert serving.poll() is None and time.monotonic() < deadline
                time.sleep(0.1)

    try:
        page = get("")
        assert "What happened to a lease?" in page and "Which logins were lost" in page
        for table, description in {
            "events": "One row per event",
            "leases": "Every key that ever had an event",
            "attempts": "One row per refresh attempt",
            "sessions": "One row per login",
        }.items():
            assert description in get(f"/{table}")
        (attempt,) = json.loads(get("/attempts.json?_shape=array"))
        assert (attempt["key"], attempt["outcome"]) == (str(KEY), "open")
        history = json.loads(get(f"/history_of_a_lease.json?_shape=array&key={KEY}"))
        assert [row["version"] for row in history] == [1, 2]
        for question in ("lost_logins", "needs_a_person", "slowest_refreshes", "clocks_set_back"):
            assert json.loads(get(f"/{question}.json?_shape=array")) == []
    finally:
        serving.terminate()
        serving.wait(timeout=30)
