"""Sessions behave the same whatever the server, the database or the role has as defaults, and a lost one is noticed."""

import secrets
import time
from collections.abc import Iterator, Sequence

import psycopg
import pytest
from pgserver import PgServer, admin, server_of_its_own, with_options

from ledger.credentials import Credentials
from ledger.errors import LedgerStorageError
from ledger.guard import acquire_auth_login_lifecycle_guard
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.recorders.base import NewEvent, StreamRow
from ledger.stores import PostgresTokenStore
from ledger.stores.encryption import new_token_key
from ledger.tokens import PersistedAuthMode, PersistedTokens

KEY = LeaseKey.parse("dev:openai:work")
OTHER = LeaseKey.parse("dev:anthropic")
TOKENS = PersistedTokens(PersistedAuthMode.EXTERNAL_TOKENS, primary_secret="a", expires_at=4_000_000_000)
GUARDS = """
    SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND granted
        AND pid <> pg_backend_pid()"""


@pytest.fixture(scope="module")
def server() -> Iterator[PgServer]:
    with server_of_its_own(durable=False) as started:
        yield started


@pytest.fixture
def sql(server: PgServer) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with admin(server.url) as connection:
        yield connection


@pytest.fixture
def url(server: PgServer) -> str:
    return with_options(server.url, schema=f"t_{secrets.token_hex(6)}")


def _kill_guards(sql: psycopg.Connection[tuple[object, ...]]) -> None:
    killed = [pid for (pid,) in sql.execute(GUARDS).fetchall()]
    assert killed
    for pid in killed:
        sql.execute("SELECT pg_terminate_backend(%s)", [pid])
    while sql.execute(GUARDS).fetchall():
        time.sleep(0.01)


def _dawdle(_: Sequence[StreamRow]) -> NewEvent:
    time.sleep(0.3)
    return NewEvent(str(OTHER), 3, "t", b"{}")


@pytest.mark.parametrize("whose", ["role", "database"])
@pytest.mark.parametrize(
    "defaults",
    [
        {"idle_session_timeout": "'200ms'"},
        {"statement_timeout": "'150ms'", "transaction_timeout": "'150ms'", "lock_timeout": "'20ms'"},
        {"default_transaction_read_only": "on", "default_transaction_isolation": "serializable"},
        {"search_path": "in_the_way", "session_replication_role": "replica", "row_security": "on"},
        {"client_min_messages": "debug5", "quote_all_identifiers": "on", "synchronous_commit": "off"},
        {"DateStyle": "German", "IntervalStyle": "sql_standard", "bytea_output": "escape", "TimeZone": "'Asia/Tokyo'"},
        {"idle_in_transaction_session_timeout": "'20ms'", "plan_cache_mode": "force_generic_plan"},
    ],
    ids=lambda defaults: next(iter(defaults)),
)
def test_defaults_of_a_role_or_database_change_nothing(
    url: str, sql: psycopg.Connection[tuple[object, ...]], defaults: dict[str, str], whose: str
) -> None:
    target = "ROLE tester" if whose == "role" else "DATABASE postgres"
    sql.execute("CREATE SCHEMA IF NOT EXISTS in_the_way")
    sql.execute("CREATE OR REPLACE VIEW in_the_way.pg_trigger AS SELECT 1 AS nothing")
    sql.execute("CREATE OR REPLACE FUNCTION in_the_way.lower(text) RETURNS text LANGUAGE sql AS $$SELECT 'wrong'$$")
    for name, value in defaults.items():
        sql.execute(f"ALTER {target} SET {name} = {value}".encode())
    try:
        with LeaseLedger.open(url) as ledger, LeaseLedger.open(url) as rival:
            credentials = Credentials(ledger, PostgresTokenStore(url, key=new_token_key()))
            credentials.login(KEY, TOKENS)
            with acquire_auth_login_lifecycle_guard(OTHER, ledger=ledger):
                time.sleep(0.4)
                theirs = rival.recorder.guard_lock(str(OTHER))
                assert theirs is not None and not theirs.try_acquire("they")
                ledger.acquire_lease(OTHER, 500)
            token = ledger.recorder.change_token()
            rival.release_lease(OTHER)
            ledger.recorder.wait_for_change(token, 5)
            ledger.recorder.append_exclusively(str(OTHER), 2, _dawdle)
            assert credentials.fresh(KEY, lambda _: TOKENS).primary_secret == "a"
            assert ledger.snapshot(KEY).generation == 1
            assert not ledger.recorder.defects()
            assert len(list(ledger.recorder.log(0, 10))) == 4
    finally:
        for name in defaults:
            sql.execute(f"ALTER {target} RESET {name}".encode())


def test_a_guard_whose_session_was_killed_is_taken_again_before_the_next_event(
    url: str, sql: psycopg.Connection[tuple[object, ...]], caplog: pytest.LogCaptureFixture
) -> None:
    with LeaseLedger.open(url) as ledger, LeaseLedger.open(url) as rival:
        theirs = rival.recorder.guard_lock(str(KEY))
        assert theirs is not None
        with acquire_auth_login_lifecycle_guard(KEY, ledger=ledger):
            _kill_guards(sql)
            ledger.acquire_lease(KEY, 500)
            assert not theirs.try_acquire("they")
        assert f"the login guard of {KEY} was lost with its session, and taken again" in caplog.text
        assert theirs.try_acquire("they")


def test_nothing_is_recorded_under_a_guard_that_somebody_else_has_by_now(
    url: str, sql: psycopg.Connection[tuple[object, ...]]
) -> None:
    with LeaseLedger.open(url) as ledger, LeaseLedger.open(url) as rival:
        theirs = rival.recorder.guard_lock(str(KEY))
        assert theirs is not None
        with acquire_auth_login_lifecycle_guard(KEY, ledger=ledger):
            _kill_guards(sql)
            assert theirs.try_acquire("they")
            with pytest.raises(LedgerStorageError, match="somebody else holds it now"):
                ledger.acquire_lease(KEY, 500)
            ledger.acquire_lease(OTHER, 500)
        assert ledger.recorder.last_position() == 1
        theirs.release()
        with acquire_auth_login_lifecycle_guard(KEY, ledger=ledger):
            ledger.acquire_lease(KEY, 500)


def test_a_guard_found_lost_when_it_is_given_up_is_said(
    url: str, sql: psycopg.Connection[tuple[object, ...]], caplog: pytest.LogCaptureFixture
) -> None:
    with LeaseLedger.open(url) as ledger:
        with acquire_auth_login_lifecycle_guard(KEY, ledger=ledger):
            _kill_guards(sql)
        assert f"the login guard of {KEY} had been lost" in caplog.text
        with acquire_auth_login_lifecycle_guard(KEY, ledger=ledger):
            assert len(sql.execute(GUARDS).fetchall()) == 1
