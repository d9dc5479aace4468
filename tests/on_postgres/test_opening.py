"""Opening a ledger in PostgreSQL: made once however many ask for it, and refused with a reason one can act on."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from pgserver import admin, fresh_schema, server_url, with_options

from ledger.copying import copy
from ledger.errors import LedgerStorageError, NotALedger
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.recorders.postgres_address import PostgresAddress
from ledger.recorders.postgres_schema import initialise
from ledger.store_errors import TokenStoreUnavailable
from ledger.stores import PostgresTokenStore
from ledger.stores.encryption import new_token_key

KEY = LeaseKey.parse("dev:openai:work")
ROOT = Path(__file__).parents[2]
OPEN = """
import sys
from ledger import LeaseKey, LeaseLedger
sys.stdin.readline()
with LeaseLedger.open(sys.argv[1]) as ledger:
    ledger.acquire_lease(LeaseKey.parse(sys.argv[2]), 500)
    print(ledger.ledger_id)
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return fresh_schema(tmp_path)


@pytest.fixture
def sql() -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with admin(server_url()) as connection:
        yield connection


def schema_of(url: str) -> str:
    return url.rpartition("=")[2]


def test_sixteen_processes_that_open_an_empty_schema_share_one_ledger(url: str) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, url, f"dev:own-{number}"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(16)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    results = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * 16, results
    assert len({out for out, _ in results}) == 1
    with LeaseLedger.open(url) as ledger:
        assert ledger.ledger_id == results[0][0].strip()
        assert ledger.recorder.last_position() == 16
        assert ledger.verify().ok


def test_threads_that_open_an_empty_schema_at_once_never_fail(tmp_path: Path) -> None:
    for trial in range(4):
        url = fresh_schema((tmp_path, trial))
        with ThreadPoolExecutor(12) as pool:
            ledgers = list(pool.map(lambda _, url=url: LeaseLedger.open(url), range(12)))
        assert len({ledger.ledger_id for ledger in ledgers}) == 1
        for ledger in ledgers:
            ledger.close()


def test_init_makes_the_schema_once_and_a_second_time_changes_nothing(url: str) -> None:
    assert initialise(url, "aa" * 16) == "aa" * 16
    assert initialise(url, "bb" * 16) == "aa" * 16
    with LeaseLedger.open(with_options(url, create="no")) as ledger:
        assert ledger.ledger_id == "aa" * 16


def test_opening_without_leave_to_create_says_what_to_run(
    url: str, sql: psycopg.Connection[tuple[object, ...]]
) -> None:
    with pytest.raises(NotALedger, match="lease-ledger init"):
        LeaseLedger.open(with_options(url, create="no"))
    assert sql.execute("SELECT to_regnamespace(%s)", [schema_of(url)]).fetchone() == (None,)


def test_a_schema_of_something_else_is_refused_and_left_alone(
    url: str, sql: psycopg.Connection[tuple[object, ...]]
) -> None:
    sql.execute(f"CREATE SCHEMA {schema_of(url)}".encode())
    sql.execute(f"CREATE TABLE {schema_of(url)}.stored_events (mine text)".encode())
    with pytest.raises(NotALedger, match="something else"):
        LeaseLedger.open(url)
    assert sql.execute(f"SELECT count(*) FROM {schema_of(url)}.stored_events".encode()).fetchone() == (0,)


def test_tables_of_others_beside_the_ledger_are_no_hindrance(
    url: str, sql: psycopg.Connection[tuple[object, ...]]
) -> None:
    sql.execute(f"CREATE SCHEMA {schema_of(url)}".encode())
    sql.execute(f"CREATE TABLE {schema_of(url)}.customers (name text)".encode())
    with LeaseLedger.open(url) as ledger:
        assert ledger.acquire_lease(KEY, 500).generation == 1


def test_a_ledger_that_needs_a_newer_reader_is_refused(url: str, sql: psycopg.Connection[tuple[object, ...]]) -> None:
    LeaseLedger.open(url).close()
    sql.execute(f"ALTER TABLE {schema_of(url)}.ledger_meta DISABLE TRIGGER ALL".encode())
    sql.execute(f"UPDATE {schema_of(url)}.ledger_meta SET lowest_reader = 2".encode())
    with pytest.raises(NotALedger, match="upgrade lease-ledger"):
        LeaseLedger.open(url)


def test_a_worker_needs_no_right_to_create_and_cannot_change_what_is_recorded(
    url: str, sql: psycopg.Connection[tuple[object, ...]]
) -> None:
    schema, role = schema_of(url), f"worker_{schema_of(url)}"
    LeaseLedger.open(url).close()
    sql.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'w0rker-secret'".encode())
    worker_url = url.replace(url.split("//")[1].split("@", maxsplit=1)[0], f"{role}:w0rker-secret")
    try:
        with pytest.raises(LedgerStorageError, match="lacks a right") as caught:
            LeaseLedger.open(worker_url)
        assert "w0rker-secret" not in f"{caught.value} {caught.value.__cause__}"
        sql.execute(f"GRANT USAGE ON SCHEMA {schema} TO {role}".encode())
        sql.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}".encode())
        sql.execute(f"GRANT INSERT ON {schema}.stored_events TO {role}".encode())
        sql.execute(f"GRANT INSERT, UPDATE, DELETE ON {schema}.stored_folds TO {role}".encode())
        with LeaseLedger.open(worker_url) as worker:
            for number in range(40):
                worker.acquire_lease(KEY, number)
            assert worker.verify().ok
        with admin(worker_url) as theirs, pytest.raises(psycopg.errors.InsufficientPrivilege):
            theirs.execute(f"DELETE FROM {schema}.stored_events".encode())
    finally:
        sql.execute(f"DROP OWNED BY {role}".encode())
        sql.execute(f"DROP ROLE {role}".encode())


def test_a_wrong_password_is_said_at_once_and_never_quoted(url: str) -> None:
    wrong = url.replace(url.split(":")[2].split("@", maxsplit=1)[0], "wr0ng-secret")
    with pytest.raises(LedgerStorageError, match="password authentication failed") as caught:
        LeaseLedger.open(wrong)
    assert "wr0ng-secret" not in f"{caught.value!r} {caught.value} {caught.value.__cause__!r}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("postgresql://me:s3cret@host/db?schema=Bad", "no schema"),
        ("postgresql://me:s3cret@host/db?schema=x;drop", "no schema"),
        ("postgresql://me:s3cret@host/db?create=maybe", "create is"),
        ("postgresql://me:s3cret@host/db?reconnect=-1", "reconnect is"),
        ("postgresql://me:s3cret@host/db?connections=0", "connections is"),
        ("postgresql://me@host/db?password=s3cret&colour=red", "unknown option 'colour'"),
        ("postgresql://me:s3cret@host:port/db", "unreadable|database|port"),
        ("postgresql://me:s3cret%00@host/db", "unreadable"),
        ("postgresql://me:s3cret@host/db?options=-csynchronous_commit%3Doff", "unknown option 'options'"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused_without_its_password(text: str, said: str) -> None:
    with pytest.raises((ValueError, LedgerStorageError), match=said) as caught:
        LeaseLedger.open(text)
    assert "s3cret" not in f"{caught.value!r} {caught.value} {caught.value.__cause__!r}"


def test_an_address_shows_everything_but_the_password() -> None:
    address = PostgresAddress.parse("postgres://me:s3:cr@et@one,two:5433/db?schema=team_a&sslmode=require&password=s3x")
    assert address.shown == "postgresql://me@one,two:5433/db?schema=team_a"
    assert "s3" not in repr(address)
    assert address.parameters["sslmode"] == "require"
    assert PostgresAddress.parse("postgresql:///db").shown == "postgresql:///db?schema=lease_ledger"


def test_two_schemas_of_one_database_are_two_ledgers(url: str, tmp_path: Path) -> None:
    with LeaseLedger.open(url) as one, LeaseLedger.open(fresh_schema(tmp_path / "other")) as other:
        one.acquire_lease(KEY, 500)
        assert one.ledger_id != other.ledger_id
        assert other.snapshot(KEY).phase is None
        guard, same_elsewhere = one.recorder.guard_lock(str(KEY)), other.recorder.guard_lock(str(KEY))
        assert guard is not None and same_elsewhere is not None
        assert guard.try_acquire("me") and same_elsewhere.try_acquire("me")


def test_what_belongs_beside_the_ledger_is_kept_with_the_user(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("LEASE_LEDGER_FINGERPRINT_KEY", raising=False)
    with LeaseLedger.open(url) as ledger, LeaseLedger.open(url) as other:
        assert ledger.fingerprint("secret") == other.fingerprint("secret")
        kept = tmp_path / "state" / "lease-ledger" / f"{ledger.ledger_id}.fingerprint-key"
        assert kept.stat().st_mode & 0o777 == 0o600
        assert kept.parent.stat().st_mode & 0o777 == 0o700


def test_without_the_driver_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("ledger.recorders.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    opening = importlib.import_module("ledger.opening")
    with pytest.raises(LedgerStorageError, match=r"pip install 'lease-ledger\[postgres\]'"):
        opening.open_recorder("postgresql://host/db", "id")
    with pytest.raises(TokenStoreUnavailable, match=r"pip install 'lease-ledger\[postgres\]'"):
        PostgresTokenStore("postgresql://host/db", key="bGVhc2UtbGVkZ2VyIHRlc3RzJyB0b2tlbiBrZXkgIzE=")
    with LeaseLedger.open("memory://") as source, pytest.raises(LedgerStorageError, match="pip install"):
        copy(source, "postgresql://host/db")


MADE = """
    SELECT (SELECT array_agg(nspname ORDER BY 1) FROM pg_namespace WHERE nspname NOT LIKE 'pg_t%'),
        (SELECT count(*) FROM pg_class WHERE relkind <> 'i'), (SELECT count(*) FROM pg_proc),
        (SELECT count(*) FROM pg_trigger)"""


def test_looking_into_a_wrong_database_makes_nothing_and_says_what_is_there(
    sql: psycopg.Connection[tuple[object, ...]], url: str
) -> None:
    name = f"wrong_{schema_of(url)}"
    sql.execute(f"CREATE DATABASE {name}".encode())
    wrong = urlsplit(url)._replace(path=f"/{name}").geturl()
    try:
        with admin(wrong) as there:
            for said, make in (
                ("its database nothing at all", "SELECT 1"),
                ("its database 2 tables of something else", "CREATE TABLE a (); CREATE TABLE b ()"),
                ("this database has one in schema team_a", None),
                (
                    "holds tables of something else",
                    f"CREATE SCHEMA {schema_of(url)}; CREATE TABLE {schema_of(url)}.ledger_meta (id text)",
                ),
            ):
                if make is None:
                    LeaseLedger.open(f"{wrong.partition('?')[0]}?schema=team_a").close()
                else:
                    there.execute(make.encode())
                before = there.execute(MADE).fetchone()
                with pytest.raises(NotALedger, match=said) as refused:
                    LeaseLedger.open(with_options(wrong, create="no"))
                assert "\n" not in str(refused.value)
                with pytest.raises(TokenStoreUnavailable):
                    PostgresTokenStore(with_options(wrong, create="no"), key=new_token_key())
                assert there.execute(MADE).fetchone() == before
    finally:
        sql.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
