"""Many processes on one PostgreSQL ledger: nothing lost, one exchange for each generation, a guard that dies with its
holder."""

import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conformance.replay import PublicationClock, mismatches, recorded, shown
from pgserver import admin, fresh_schema
from pgworkers import CONTEXT, KEY, TOKEN_KEY, exchange, hold_guard, refresh_often, run_all, write_shared_and_own

from ledger.credentials import Credentials
from ledger.guard import GuardTimeout, acquire_auth_login_lifecycle_guard
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.stores import PostgresTokenStore
from ledger.tokens import PersistedTokens

CASES = recorded("machine")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return fresh_schema(tmp_path)


def test_sixteen_processes_on_one_lease_and_each_on_its_own_lose_nothing(url: str) -> None:
    processes, each = 16, 15
    run_all(write_shared_and_own, [(url, number, each) for number in range(processes)])
    with LeaseLedger.open(url) as ledger:
        assert ledger.snapshot(KEY).generation == processes * each
        for number in range(processes):
            assert ledger.snapshot(LeaseKey.parse(f"dev:own-{number}")).generation == each
        assert ledger.recorder.last_position() == 2 * processes * each
        assert ledger.verify().ok


def test_eight_processes_exchange_once_for_each_generation(url: str) -> None:
    with LeaseLedger.open(url) as ledger, admin(url) as connection:
        schema = url.rpartition("=")[2]
        connection.execute(f"CREATE TABLE {schema}.exchanges (spent text PRIMARY KEY, n serial)".encode())
        store = PostgresTokenStore(url, key=TOKEN_KEY)
        Credentials(ledger, store).login(
            KEY, PersistedTokens("claude_ai_oauth", "a", refresh_token="first", expires_at=int(time.time()) + 3600)
        )
        run_all(refresh_often, [(url, 6)] * 8)
        spent = connection.execute(f"SELECT spent FROM {schema}.exchanges ORDER BY n".encode()).fetchall()
        tags = Counter(type(recorded.event).__name__ for recorded in ledger.read(KEY))
        assert ledger.snapshot(KEY).generation == len(spent) + 1
        assert tags["LeaseRefreshed"] == tags["LeaseRefreshStarted"] == len(spent) >= 5
        assert tags["LeaseRefreshFailed"] == 0
        assert ledger.verify().ok
        current = store.load(KEY)
        assert current is not None and current.refresh_token == f"refresh-{len(spent)}"


def test_the_guard_names_its_holder_and_is_free_once_that_is_killed(url: str) -> None:
    held = CONTEXT.Event()
    process = CONTEXT.Process(target=hold_guard, args=(held, url, "ada@laptop pid 7"))
    with LeaseLedger.open(url, actor="me") as ledger:
        process.start()
        assert held.wait(60)
        with (
            pytest.raises(GuardTimeout) as timed_out,
            acquire_auth_login_lifecycle_guard(KEY, ledger=ledger, timeout_s=0.1),
        ):
            raise AssertionError("two hold the guard")
        assert timed_out.value.holder == "ada@laptop pid 7"
        with acquire_auth_login_lifecycle_guard(LeaseKey.parse("dev:other"), ledger=ledger, timeout_s=1):
            pass
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        with acquire_auth_login_lifecycle_guard(KEY, ledger=ledger, timeout_s=30):
            lock = ledger.recorder.guard_lock(str(KEY))
            assert lock is not None and lock.held_by() == "me"
        assert lock.held_by() is None


def test_every_recorded_sequence_gives_the_recorded_results(url: str) -> None:
    """All cases in one ledger: each on keys of its own, with a clock of its own."""
    clocks = _Clocks()
    with LeaseLedger.open(url, clock=clocks, actor="test") as ledger, LeaseLedger.open(url, clock=clocks) as second:
        for case in CASES:
            clocks.current = PublicationClock()
            own = {**case, "keys": [f"{key}.{case['id']}".replace("/", "_") for key in case["keys"]]}
            assert list(mismatches(ledger, clocks.current, own)) == [], case["id"]
            assert _final(second, own) == case["final"], case["id"]
        assert ledger.verify().ok


class _Clocks:
    """The clock of the case at hand."""

    def __init__(self) -> None:
        self.current = PublicationClock()

    def __call__(self) -> int:
        return self.current()


def _final(ledger: LeaseLedger, case: dict[str, Any]) -> list[dict[str, Any]]:
    return [shown(ledger.snapshot(LeaseKey.parse(text))) for text in case["keys"]]


def test_an_exchange_that_is_made_twice_would_be_noticed(url: str) -> None:
    LeaseLedger.open(url).close()
    schema = url.rpartition("=")[2]
    with admin(url) as connection:
        connection.execute(f"CREATE TABLE {schema}.exchanges (spent text PRIMARY KEY, n serial)".encode())
    tokens = PersistedTokens("claude_ai_oauth", "a", refresh_token="first")
    exchange(url, tokens)
    with pytest.raises(Exception, match="duplicate key"):
        exchange(url, tokens)
