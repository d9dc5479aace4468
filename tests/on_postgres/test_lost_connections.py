"""Connections that break, at any moment: an acknowledged event is never lost, and none is stored twice."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import pytest
from eventsourcing.persistence import StoredEvent
from pgproxy import Relay, relay_to
from pgserver import PgServer, admin, fresh_schema, server_of_its_own, with_options

from ledger.errors import LeaseTransitionError, LedgerStorageError
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.marker import marker_event
from ledger.recorders.base import IntegrityError, NewEvent, StreamRow
from ledger.stores.postgres import PostgresTokenStore
from ledger.tokens import PersistedTokens

KEY = LeaseKey.parse("dev:openai:work")
TOKEN_KEY = "bGVhc2UtbGVkZ2VyIHRlc3RzJyB0b2tlbiBrZXkgIzE="
Moment = Literal["before", "after"]


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    with relay_to(fresh_schema(tmp_path)) as opened:
        yield opened


@pytest.fixture
def ledger(relay: Relay) -> Iterator[LeaseLedger]:
    with LeaseLedger.open(relay.url) as opened:
        yield opened


@pytest.fixture(scope="module")
def own_server() -> Iterator[PgServer]:
    with server_of_its_own() as server:
        yield server


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_append_whose_connection_is_cut_is_stored_exactly_once(
    relay: Relay, ledger: LeaseLedger, moment: Moment, prepared: bool
) -> None:
    for number in range(10 if prepared else 1):
        ledger.acquire_lease(KEY, number)
    events = ledger.recorder.last_position()
    relay.cut(moment, b"lease.acquired")
    transition = ledger.acquire_lease(KEY, 500)
    assert relay.cuts == 1
    assert ledger.recorder.last_position() == events + 1
    assert transition.event_id is not None
    assert ledger.find(KEY, transition.event_id) is not None
    assert transition.generation == ledger.snapshot(KEY).generation == events + 1
    assert ledger.verify().ok


def test_an_append_that_took_effect_before_a_rivals_next_event_is_still_recognised(
    relay: Relay, ledger: LeaseLedger, tmp_path: Path
) -> None:
    ledger.acquire_lease(KEY, 1)
    body = b'{"id":"mine"}'
    with LeaseLedger.open(fresh_schema(tmp_path)) as rival:
        original = ledger.recorder.rows

        def rows(*args: int | str) -> object:
            if rival.recorder.last_version("dev:a") == 1:
                rival.recorder.append(NewEvent("dev:a", 2, "t", b"{}"))
            return original(*args)  # type: ignore[arg-type]

        ledger.recorder.rows = rows  # type: ignore[method-assign, assignment]
        relay.cut("after", b"mine")
        assert ledger.recorder.append(NewEvent("dev:a", 1, "t", body)) == 2
        assert rival.recorder.last_version("dev:a") == 2


def test_an_append_that_a_rival_overtook_while_the_connection_was_down_is_refused(
    relay: Relay, ledger: LeaseLedger, tmp_path: Path
) -> None:
    with LeaseLedger.open(fresh_schema(tmp_path)) as rival:
        relay.cut("before", b"mine", lambda: rival.recorder.append(NewEvent("dev:a", 1, "t", b'{"id":"rival"}')))
        with pytest.raises(IntegrityError):
            ledger.recorder.append(NewEvent("dev:a", 1, "t", b'{"id":"mine"}'))
        assert [row.body for row in rival.recorder.rows("dev:a")] == [b'{"id":"rival"}']


@pytest.mark.parametrize("cut_at", [b"pg_advisory_xact_lock", b'{"id":', b"COMMIT"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_exclusive_append_whose_connection_is_cut_is_stored_exactly_once(
    relay: Relay, ledger: LeaseLedger, moment: Moment, cut_at: bytes
) -> None:
    ledger.recorder.append(NewEvent("dev:a", 1, "t", b"{}"))
    seen: list[list[int]] = []

    def build(rows: object) -> NewEvent:
        assert isinstance(rows, list)
        seen.append([row.version for row in rows])
        return NewEvent("dev:a", 2, "t", b'{"id":"%d"}' % len(seen))

    relay.cut(moment, cut_at)
    assert ledger.recorder.append_exclusively("dev:a", 0, build) == 2
    assert relay.cuts == 1
    assert set(map(tuple, seen)) == {(1,)}
    assert ledger.recorder.rows("dev:a", 1) == [StreamRow(2, 2, "t", b'{"id":"%d"}' % len(seen))]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_several_events_of_the_library_are_stored_all_or_none_and_once(
    relay: Relay, ledger: LeaseLedger, moment: Moment
) -> None:
    relay.cut(moment, b"COMMIT")
    stored = [StoredEvent("dev:a", version, "t", b'{"id":"%d"}' % version) for version in (1, 2, 3)]
    assert list(ledger.recorder.insert_events(stored) or ()) == [1, 2, 3]
    assert (relay.cuts, ledger.recorder.last_position()) == (1, 3)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_read_whose_connection_is_cut_is_simply_made_again(relay: Relay, ledger: LeaseLedger, moment: Moment) -> None:
    ledger.acquire_lease(KEY, 500)
    for read in (ledger.recorder.streams, lambda: ledger.recorder.rows(str(KEY)), lambda: list(ledger.read_all())):
        relay.cut(moment, b"SELECT")
        assert len(read()) == 1
    assert relay.cuts == 3


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("expect", ["event", "nothing", "any"])
def test_a_save_whose_connection_is_cut_takes_effect_once(
    relay: Relay, ledger: LeaseLedger, moment: Moment, expect: str
) -> None:
    store = PostgresTokenStore(relay.url, key=TOKEN_KEY)
    old = PersistedTokens("claude_ai_oauth", "old", metadata={})
    if expect != "nothing":
        store.save(KEY, old)
    relay.cut(moment, b"INSERT" if expect == "nothing" else b"UPDATE")
    new = PersistedTokens("claude_ai_oauth", "new", metadata={})
    match expect:
        case "event":
            store.save(KEY, new, expect=old)
        case "nothing":
            store.save(KEY, new, expect=None)
        case _:
            store.save(KEY, new)
    assert relay.cuts == 1
    assert store.load(KEY) == new
    assert marker_event(new) is None
    relay.cut(moment, b"DELETE")
    store.clear(KEY, expect=new)
    assert (relay.cuts, store.load(KEY)) == (2, None)


def test_killed_sessions_lose_and_double_nothing(tmp_path: Path) -> None:
    """Every session of four writers is killed over and over, in the middle of whatever it does."""
    url = fresh_schema(tmp_path)
    stop = threading.Event()
    keys = [LeaseKey.parse(f"dev:own-{number}") for number in range(3)] + [KEY]
    with LeaseLedger.open(url) as ledger, admin(url) as killer:
        name = "lease-ledger-killed"

        def write(key: LeaseKey) -> list[str]:
            acknowledged = []
            with LeaseLedger.open(with_options(url, application_name=name)) as mine:
                while not stop.is_set():
                    acknowledged.append(mine.acquire_lease(key, 500).event_id or "")
            return acknowledged

        with ThreadPoolExecutor(8) as pool:
            writers = [pool.submit(write, key) for key in (*keys, KEY)]
            kills = 0
            while kills < 60 or ledger.recorder.last_position() <= 60:
                kills += 1
                time.sleep(0.02)
                killer.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s", [name]
                )
            stop.set()
            acknowledged = [event for writer in writers for event in writer.result(60)]
        recorded = [recorded.event.id for recorded in ledger.read_all()]
        assert sorted(recorded) == sorted(acknowledged)
        assert len(set(recorded)) == len(recorded) > 60
        assert ledger.verify().ok


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_a_restart_of_the_server_is_waited_for(own_server: PgServer, how: signal.Signals) -> None:
    with LeaseLedger.open(with_options(own_server.url, schema=f"restart_{how.name.lower()}")) as ledger:
        ledger.acquire_lease(KEY, 500)
        token = ledger.recorder.change_token()
        guard = ledger.recorder.guard_lock(str(KEY))
        assert guard is not None and guard.try_acquire("before")
        with ThreadPoolExecutor(3) as pool:
            waiter = pool.submit(ledger.recorder.wait_for_change, token, 60)
            time.sleep(0.3)
            own_server.stop(how)
            append = pool.submit(ledger.mark_expiring, KEY)
            read = pool.submit(ledger.snapshot, KEY)
            time.sleep(0.3)
            assert not append.done() and not read.done()
            own_server.start()
            append.result(30)
            waiter.result(30)
            assert read.result(30).generation == 1
        assert not guard.try_acquire("the same process")
        guard.release()
        assert guard.try_acquire("after")
        guard.release()
        assert ledger.recorder.last_position() == 2
        assert ledger.verify().ok


def test_a_server_that_stays_away_is_named_without_the_password(own_server: PgServer) -> None:
    url = with_options(own_server.url, schema="away", reconnect="1")
    with LeaseLedger.open(url) as ledger:
        ledger.acquire_lease(KEY, 500)
        own_server.stop()
        try:
            uses: list[Callable[[], object]] = [lambda: ledger.snapshot(KEY), lambda: ledger.release_lease(KEY)]
            uses.append(lambda: LeaseLedger.open(url))
            for use in uses:
                began = time.monotonic()
                with pytest.raises(LedgerStorageError, match=r"127\.0\.0\.1") as caught:
                    use()
                assert time.monotonic() - began < 5
                assert own_server.password not in f"{caught.value!r} {caught.value} {caught.value.__cause__}"
        finally:
            own_server.start()
        assert ledger.snapshot(KEY).generation == 1
        ledger.release_lease(KEY)


def test_a_forked_child_has_connections_and_locks_of_its_own(tmp_path: Path) -> None:
    with LeaseLedger.open(fresh_schema(tmp_path)) as ledger:
        ledger.acquire_lease(KEY, 1)
        guard = ledger.recorder.guard_lock(str(KEY))
        assert guard is not None and guard.try_acquire("parent")
        child = os.fork()
        if child == 0:
            code = 1
            try:
                theirs = ledger.recorder.guard_lock(str(KEY))
                assert theirs is not None and not theirs.try_acquire("child")
                for number in range(20):
                    ledger.acquire_lease(KEY, number)
                ledger.close()
                code = 0
            finally:
                os._exit(code)
        for number in range(20):
            ledger.acquire_lease(KEY, number)
        assert os.waitpid(child, 0)[1] == 0
        assert not guard.try_acquire("parent again")
        assert ledger.snapshot(KEY).generation == 41
        with pytest.raises(LeaseTransitionError):
            ledger.begin_refresh(LeaseKey.parse("dev:none"))
        guard.release()
        assert guard.try_acquire("parent")
        assert ledger.verify().ok
