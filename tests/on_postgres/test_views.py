"""The views answer whatever an event holds, and a view that version 0.1.0 made is replaced where its owner asks."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from old_texts import as_version_0_1_0_recorded
from pgserver import admin, fresh_schema

from ledger.copying import copy
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.recorders.base import NewEvent
from ledger.recorders.postgres_schema import initialise
from ledger.recorders.postgres_views import FIRST_EVENTS_VIEW

KEY = LeaseKey.parse("dev:openai:work")
SQLConnection = psycopg.Connection[tuple[object, ...]]
ASKED = "SELECT position, version, tag, at_ms, actor, cause, body FROM lease_events ORDER BY position"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return fresh_schema(tmp_path)


@pytest.fixture
def ledger(url: str) -> Iterator[LeaseLedger]:
    times = iter(range(1_000, 9_000))
    with LeaseLedger.open(url, clock=lambda: next(times), actor="me") as opened:
        yield opened


@pytest.fixture
def sql(ledger: LeaseLedger, url: str) -> Iterator[SQLConnection]:
    with admin(url) as connection:
        connection.execute(f"SET search_path = {url.rpartition('=')[2]}".encode())
        yield connection


def _make_first_view(sql: SQLConnection, url: str) -> None:
    schema = url.rpartition("=")[2]
    sql.execute("DROP VIEW lease_events; DROP FUNCTION event_fields")
    sql.execute(f"CREATE VIEW lease_events AS {FIRST_EVENTS_VIEW}".format(schema=schema).encode())


@pytest.mark.parametrize(
    ("cause", "shown"),
    [
        ("a\0b", "a\N{REPLACEMENT CHARACTER}b"),
        ("\0\0", "\N{REPLACEMENT CHARACTER}" * 2),
        ("\\\0", "\\\N{REPLACEMENT CHARACTER}"),
        ("\\u0000", "\\u0000"),
        ("\\\\u0000 \0", "\\\\u0000 \N{REPLACEMENT CHARACTER}"),
        ('"\t\N{SNOWMAN}', '"\t\N{SNOWMAN}'),
    ],
)
def test_a_nul_that_was_recorded_breaks_the_view_for_nobody(
    ledger: LeaseLedger, sql: SQLConnection, cause: str, shown: str
) -> None:
    with as_version_0_1_0_recorded():
        ledger.acquire_lease(KEY, 500, cause=cause)
    ledger.release_lease(KEY, cause="after")
    rows = sql.execute(ASKED).fetchall()
    assert [row[:6] for row in rows] == [
        (1, 1, "lease.acquired", 1_000, "me", shown),
        (2, 2, "lease.released", 1_001, "me", "after"),
    ]
    assert [recorded.event.cause for recorded in ledger.read_all()] == [cause, "after"]
    assert ledger.verify().ok


@pytest.mark.parametrize(
    "body", ["no JSON", "", "[1]", "7", '{"at":"x","actor":"me"}', '{"at":1e999999}', "[" * 50_000]
)
def test_what_is_no_event_is_shown_as_far_as_it_can_be_read(ledger: LeaseLedger, sql: SQLConnection, body: str) -> None:
    ledger.recorder.append(NewEvent("dev:a", 1, "t", body.encode()))
    ledger.acquire_lease(KEY, 500)
    rows = sql.execute(ASKED).fetchall()
    assert [(row[0], row[6]) for row in rows] == [(1, body), (2, ledger.recorder.log(1, 1)[0].body.decode())]
    assert rows[0][3] is None
    assert rows[0][4] == ("me" if "me" in body else None)


def test_the_view_of_version_0_1_0_is_all_right_until_an_event_breaks_it(
    ledger: LeaseLedger, sql: SQLConnection, url: str
) -> None:
    _make_first_view(sql, url)
    ledger.acquire_lease(KEY, 500)
    assert ledger.verify().ok
    before = sql.execute(ASKED).fetchall()
    assert initialise(url, "aa" * 16) == ledger.ledger_id
    assert sql.execute(ASKED).fetchall() == before
    assert ledger.verify().ok
    _make_first_view(sql, url)
    with as_version_0_1_0_recorded():
        ledger.acquire_lease(KEY, 500, cause="\0")
    with pytest.raises(psycopg.Error):
        sql.execute(ASKED)
    (finding,) = ledger.verify().findings
    assert "position 2" in finding.detail and "lease-ledger init" in finding.detail
    initialise(url, "aa" * 16)
    assert len(sql.execute(ASKED).fetchall()) == 2
    assert ledger.verify().ok


def test_a_copy_of_a_ledger_with_a_nul_is_shown_too(tmp_path: Path) -> None:
    url = fresh_schema(tmp_path)
    with LeaseLedger.open("memory://") as source:
        with as_version_0_1_0_recorded():
            source.acquire_lease(KEY, 500, cause="a\0")
        copy(source, url)
        assert source.verify().ok
    with admin(url) as sql:
        row = sql.execute(f"SELECT cause FROM {url.rpartition('=')[2]}.lease_events".encode()).fetchone()
    assert row == ("a\N{REPLACEMENT CHARACTER}",)
