"""The log in PostgreSQL stays append-only, gap-free and in order, whoever writes to it and however slowly."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from pgserver import admin, fresh_schema

from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.recorders.base import LogRow, NewEvent
from ledger.recorders.postgres import PostgresLeaseRecorder

KEY = LeaseKey.parse("dev:openai:work")
INSERT = "INSERT INTO stored_events (originator_id, originator_version, topic, state) VALUES (%s, %s, 't', '{}')"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return fresh_schema(tmp_path)


@pytest.fixture
def ledger(url: str) -> Iterator[LeaseLedger]:
    with LeaseLedger.open(url) as opened:
        yield opened


@pytest.fixture
def recorder(ledger: LeaseLedger) -> PostgresLeaseRecorder:
    assert isinstance(ledger.recorder, PostgresLeaseRecorder)
    return ledger.recorder


@pytest.fixture
def sql(recorder: PostgresLeaseRecorder, url: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A session of the tables' owner, as a person with psql has it."""
    with admin(url) as connection:
        connection.execute(f"SET search_path = {recorder.address.schema}".encode())
        yield connection


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE stored_events SET state = '{}'",
        "UPDATE stored_events SET originator_version = 9 WHERE originator_version = 1",
        "UPDATE stored_events SET state = '{}' WHERE false",
        "DELETE FROM stored_events",
        "TRUNCATE stored_events",
        "TRUNCATE stored_events, stored_folds CASCADE",
        "UPDATE ledger_meta SET ledger_id = 'other'",
        "DELETE FROM ledger_meta",
        "TRUNCATE ledger_meta",
        "INSERT INTO ledger_meta VALUES (true, 'other', 1, 1)",
        "INSERT INTO stored_events VALUES ('dev:a', 2, 't', '{}')",
        "INSERT INTO stored_events VALUES ('dev:openai:work', 1, 't', '{}')",
        "INSERT INTO stored_events VALUES ('dev:openai:work', 4, 't', '{}')",
        "INSERT INTO stored_events VALUES ('dev:openai:work', 3, 't', '{}', 5)",
        "INSERT INTO stored_events VALUES ('dev:openai:work', 3, 't', '{}', 1)",
        "INSERT INTO stored_events VALUES ('dev:openai:work', 1, 't', '{}') ON CONFLICT DO NOTHING",
        "INSERT INTO stored_events VALUES ('dev:openai:work', 3, 't', '{}', 3) "
        "ON CONFLICT (originator_id, originator_version) DO UPDATE SET state = '{}'",
    ],
)
def test_the_database_itself_refuses_changes_and_gaps(
    ledger: LeaseLedger, sql: psycopg.Connection[tuple[object, ...]], statement: str
) -> None:
    ledger.acquire_lease(KEY, 500)
    ledger.mark_expiring(KEY)
    before = list(ledger.read_all())
    with pytest.raises(psycopg.IntegrityError):
        sql.execute(statement.encode())
    sql.execute("SET session_replication_role = replica")
    with pytest.raises(psycopg.IntegrityError):
        sql.execute(statement.encode())
    assert list(ledger.read_all()) == before
    assert ledger.verify().ok


def test_sql_reads_events_without_any_program(ledger: LeaseLedger, sql: psycopg.Connection[tuple[object, ...]]) -> None:
    ledger.acquire_lease(KEY, 500, cause="login")
    row = sql.execute("SELECT position, lease_key, version, tag, cause, body::jsonb ->> 'expires_at' FROM lease_events")
    assert row.fetchall() == [(1, "dev:openai:work", 1, "lease.acquired", "login", "500")]


@pytest.mark.parametrize(
    "damage",
    [
        "DROP TRIGGER stored_events_keep ON stored_events",
        "ALTER TABLE stored_events DISABLE TRIGGER stored_events_next",
        "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
    ],
)
def test_a_guard_that_was_taken_off_is_found(
    ledger: LeaseLedger, sql: psycopg.Connection[tuple[object, ...]], damage: str
) -> None:
    assert ledger.verify().ok
    sql.execute(damage.encode())
    findings = ledger.verify().findings
    assert findings
    assert {finding.witness for finding in findings} == {"storage"}


def test_readers_never_see_a_position_before_a_smaller_one(
    recorder: PostgresLeaseRecorder, url: str, sql: psycopg.Connection[tuple[object, ...]]
) -> None:
    """Four quick writers, one that dawdles in its transaction, one that gives up halfway, and two readers."""
    stop = threading.Event()
    quick, each = 4, 60
    problems: list[str] = []

    def write(number: int) -> None:
        for version in range(1, each + 1):
            recorder.append(NewEvent(f"dev:quick-{number}", version, "t", b"{}"))

    def dawdle() -> None:
        with admin(url) as slow:
            slow.execute(f"SET search_path = {recorder.address.schema}".encode())
            for version in range(1, 16):
                with slow.transaction():
                    slow.execute(INSERT, ["dev:slow", version])
                    time.sleep(0.01)
                with slow.transaction(force_rollback=True):
                    slow.execute(INSERT, ["dev:slow", version + 1])
                    time.sleep(0.005)

    def read() -> list[LogRow]:
        seen: list[LogRow] = []
        while True:
            last_look = stop.is_set()
            page = recorder.log(len(seen), 7)
            if [row.position for row in page] != list(range(len(seen) + 1, len(seen) + len(page) + 1)):
                problems.append(f"after {len(seen)} came {[row.position for row in page]}")
            seen.extend(page)
            if last_look and not page:
                return seen

    with ThreadPoolExecutor(8) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        writers = [pool.submit(write, number) for number in range(quick)] + [pool.submit(dawdle)]
        for writer in writers:
            writer.result()
        stop.set()
        first, second = (reader.result() for reader in readers)
    assert problems == []
    assert first == second == recorder.log(0, 10_000)
    assert len(first) == quick * each + 15


def test_an_append_waits_for_one_that_is_under_way_and_follows_it(
    recorder: PostgresLeaseRecorder, sql: psycopg.Connection[tuple[object, ...]]
) -> None:
    with ThreadPoolExecutor(1) as pool:
        with sql.transaction():
            sql.execute(INSERT, ["dev:slow", 1])
            later = pool.submit(recorder.append, NewEvent("dev:quick", 1, "t", b"{}"))
            time.sleep(0.1)
            assert not later.done()
            assert recorder.last_position() == 0
        assert later.result() == 2
    assert [row.stream for row in recorder.log(0, 9)] == ["dev:slow", "dev:quick"]


def test_an_insert_in_an_isolated_transaction_cannot_repeat_a_position(
    recorder: PostgresLeaseRecorder, sql: psycopg.Connection[tuple[object, ...]]
) -> None:
    with pytest.raises(psycopg.Error), sql.transaction():
        sql.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        sql.execute("SELECT count(*) FROM stored_events")
        recorder.append(NewEvent("dev:a", 1, "t", b"{}"))
        sql.execute(INSERT, ["dev:b", 1])
    assert recorder.last_position() == 1
    assert recorder.append(NewEvent("dev:b", 1, "t", b"{}")) == 2


def test_a_waiter_is_woken_by_a_commit_elsewhere(recorder: PostgresLeaseRecorder, url: str) -> None:
    """Often enough to be by notification rather than by looking, which happens four times a second."""
    delays: list[float] = []
    committed_at = 0.0

    def woken_at(token: int) -> float:
        recorder.wait_for_change(token, 5)
        return time.monotonic()

    with LeaseLedger.open(url) as elsewhere, ThreadPoolExecutor(1) as pool:
        recorder.wait_for_change(recorder.change_token(), 0.5)
        for number in range(10):
            token = recorder.change_token()
            waiting = pool.submit(woken_at, token)
            time.sleep(0.02)
            elsewhere.acquire_lease(KEY, number)
            committed_at = time.monotonic()
            delays.append(waiting.result() - committed_at)
    assert sorted(delays)[len(delays) // 2] < 0.1


def test_a_waiter_whose_listening_session_is_killed_still_sees_the_commit(
    recorder: PostgresLeaseRecorder, sql: psycopg.Connection[tuple[object, ...]]
) -> None:
    token = recorder.change_token()
    recorder.wait_for_change(token, 0.3)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(recorder.wait_for_change, token, 10)
        sql.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ILIKE 'LISTEN%'")
        recorder.append(NewEvent("dev:a", 1, "t", b"{}"))
        began = time.monotonic()
        waiting.result()
    assert time.monotonic() - began < 2
    assert recorder.change_token() != token


def test_a_wait_without_a_change_ends_in_time(recorder: PostgresLeaseRecorder) -> None:
    began = time.monotonic()
    recorder.wait_for_change(recorder.change_token(), 0.4)
    assert 0.4 <= time.monotonic() - began < 2
