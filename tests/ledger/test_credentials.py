"""One refresh for everybody who asks: threads, processes, and whatever the server and the clocks do meanwhile."""

import itertools
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from agents import CANARY, HOUR_S, KEY, LONG_S, Agent, Crew, World, running_crew
from faults import Faults, FaultyRecorder, FaultyStore, failing

from ledger.credentials import Credentials
from ledger.errors import LedgerStorageError
from ledger.events import LeaseRefreshed, LeaseRefreshFailed, LeaseRefreshStarted
from ledger.lease_ledger import LeaseLedger
from ledger.marker import mark_tokens_lifecycle_published_for_transition, marker_attempt, marker_event
from ledger.refresh_errors import ReauthRequired, RefreshError, RefreshTimedOut, TokensNotSaved
from ledger.snapshot import AuthLeasePhase
from ledger.status import AuthStatusPhase
from ledger.store_errors import TokenIOError
from ledger.tokens import PersistedTokens

DISK = TokenIOError("no space left on device")
BUSY = RefreshError(False, "temporarily_unavailable", 503)
GONE = RefreshError(True, "invalid_grant", 400)
CROWD = 8


@pytest.fixture(scope="module")
def crew() -> Iterator[Crew]:
    with running_crew() as crew:
        yield crew


@pytest.fixture
def world(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[World]:
    caplog.set_level("DEBUG")
    world = World(tmp_path)
    yield world
    world.check()
    assert CANARY not in caplog.text


@pytest.fixture
def credentials(world: World) -> Iterator[Credentials]:
    with world.credentials() as credentials:
        yield credentials


def never(_tokens: PersistedTokens) -> PersistedTokens:
    """A refresh function that is not to be called."""
    raise AssertionError("spent a refresh token")


class Spy:
    """A refresh function that is not to be called, also where an error of it would be nobody's business."""

    def __init__(self) -> None:
        self.called = False

    def __call__(self, tokens: PersistedTokens) -> PersistedTokens:
        self.called = True
        return never(tokens)


def answering(**fields: Any) -> Callable[[PersistedTokens], PersistedTokens]:
    """A refresh function that returns just these fields."""

    def refresh(_tokens: PersistedTokens) -> PersistedTokens:
        return PersistedTokens("claude_ai_oauth", **fields)

    return refresh


def raising(error: BaseException) -> Callable[[PersistedTokens], PersistedTokens]:
    """A refresh function that raises."""

    def refresh(_tokens: PersistedTokens) -> PersistedTokens:
        raise error

    return refresh


def told(error: BaseException) -> str:
    """All that an error shows of itself."""
    return "".join((str(error), repr(error), repr(error.args), *traceback.format_exception(error)))


def failures(world: World) -> list[LeaseRefreshFailed]:
    return [event for event in world.events() if isinstance(event, LeaseRefreshFailed)]


def an_hour_from_now() -> int:
    return int(time.time()) + HOUR_S


# Nothing to do


def test_tokens_that_live_long_enough_are_returned_and_nothing_is_written(world: World) -> None:
    tokens = world.log_in()
    with world.credentials() as credentials:
        files = [path for path in world.folder.rglob("*") if path.is_file() and not path.name.endswith("-shm")]
        before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
        assert credentials.fresh(KEY, never) == tokens
        assert credentials.fresh(KEY, never, window=HOUR_S - 60) == tokens
        assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files} == before
        assert credentials.ledger.recorder.last_position() == 1


def test_tokens_without_an_expiry_are_never_refreshed(world: World, credentials: Credentials) -> None:
    key = PersistedTokens.api_key(f"{CANARY}-key")
    credentials.login(KEY, key)
    assert credentials.fresh(KEY, never, window=1e12) == key
    assert credentials.status(KEY).phase is AuthStatusPhase.VALID


def test_nobody_logged_in_is_told_so(credentials: Credentials) -> None:
    with pytest.raises(ReauthRequired, match="dev:openai:work needs a new login: nobody has logged in yet"):
        credentials.fresh(KEY, never)


def test_a_deadline_that_is_no_time_is_refused(world: World, credentials: Credentials) -> None:
    for deadline in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="positive number of seconds"):
            Credentials(credentials.ledger, world.store, refresh_deadline=deadline)


# One refresh


def test_a_refresh_is_a_start_a_save_and_an_event_that_name_one_another(world: World, credentials: Credentials) -> None:
    old = world.log_in(lives=0)
    new = credentials.fresh(KEY, world.server.refresh)
    assert new == world.stored()
    assert new.primary_secret != old.primary_secret
    _, started, refreshed = world.events()
    assert isinstance(started, LeaseRefreshStarted)
    assert isinstance(refreshed, LeaseRefreshed)
    assert marker_event(new) == refreshed.id
    assert marker_attempt(new) == refreshed.attempt == started.attempt == started.id
    assert (refreshed.generation, refreshed.expires_at, refreshed.recovered) == (2, new.expires_at, False)
    assert started.fingerprint == credentials.ledger.fingerprint(old.refresh_token or "")
    assert credentials.fresh(KEY, never) == new


def test_what_the_response_leaves_out_is_carried_forward(world: World, credentials: Credentials) -> None:
    old = msgspec.structs.replace(
        world.server.log_in(lives=0),
        id_token=f"{CANARY}-id",
        account_id="acct",
        scopes=("read", "write"),
        metadata={"plan": "pro"},
    )
    credentials.login(KEY, old)
    new = credentials.fresh(KEY, answering(primary_secret=f"{CANARY}-new", expires_at=an_hour_from_now()))
    assert (new.refresh_token, new.id_token, new.account_id) == (old.refresh_token, old.id_token, "acct")
    assert (new.scopes, new.metadata["plan"]) == (("read", "write"), "pro")
    assert marker_event(new) == credentials.ledger.snapshot(KEY).published_by


def test_what_the_response_says_replaces_what_was_there(world: World, credentials: Credentials) -> None:
    old = msgspec.structs.replace(world.server.log_in(lives=0), scopes=("read",), account_id="old")
    credentials.login(KEY, old)
    new = credentials.fresh(
        KEY, answering(primary_secret="a", refresh_token="r", scopes=("less",), account_id="new", metadata={"n": 1})
    )
    assert (new.refresh_token, new.scopes, new.account_id, new.metadata["n"]) == ("r", ("less",), "new", 1)
    assert new.expires_at is None
    assert credentials.ledger.snapshot(KEY).expires_at is None


def test_a_refresh_starts_when_less_than_the_window_remains(world: World, credentials: Credentials) -> None:
    world.log_in(lives=HOUR_S)
    credentials.fresh(KEY, world.server.refresh, window=HOUR_S + 60)
    assert world.server.outcomes() == ["ok"]


def test_rejected_tokens_are_refreshed_though_they_should_still_live(world: World, credentials: Credentials) -> None:
    rejected = world.log_in()
    new = credentials.fresh(KEY, world.server.refresh, rejected=rejected)
    assert new.primary_secret != rejected.primary_secret


def test_rejected_tokens_that_are_no_longer_current_cost_no_refresh(world: World, credentials: Credentials) -> None:
    rejected = world.log_in()
    new = credentials.fresh(KEY, world.server.refresh, rejected=rejected)
    for _ in range(3):
        assert credentials.fresh(KEY, never, rejected=rejected) == new
    assert world.server.outcomes() == ["ok"]


def test_rejected_tokens_without_a_marker_are_told_by_their_secrets(world: World, credentials: Credentials) -> None:
    credentials.login(KEY, PersistedTokens.api_key(f"{CANARY}-old"))
    other = PersistedTokens.api_key(f"{CANARY}-other")
    assert credentials.fresh(KEY, never, rejected=other) == PersistedTokens.api_key(f"{CANARY}-old")
    refreshed = credentials.fresh(KEY, lambda _tokens: other, rejected=PersistedTokens.api_key(f"{CANARY}-old"))
    assert refreshed == other == world.stored()
    assert world.tags() == ["acquired", "refresh_started", "refreshed"]


def test_tokens_that_changed_before_they_were_sent_are_not_sent(world: World) -> None:
    world.log_in(lives=0)
    newer = world.server.log_in()
    store = FaultyStore(world.store)

    def somebody_logs_in() -> None:
        with world.credentials() as other:
            other.login(KEY, newer)

    with world.credentials(store=store) as credentials:
        store.faults.before("load", somebody_logs_in, calls=(2,))
        spy = Spy()
        assert credentials.fresh(KEY, spy).primary_secret == newer.primary_secret
        assert not spy.called
    assert world.tags() == ["acquired", "refresh_started", "acquired"]


def test_tokens_that_somebody_replaced_by_hand_close_the_attempt_unsent(world: World) -> None:
    world.log_in(lives=0)
    by_hand = world.server.log_in()
    store = FaultyStore(world.store)
    store.faults.before("load", lambda: world.store.save(KEY, by_hand), calls=(2,))
    with world.credentials(store=store) as credentials:
        # Unmarked, so that nothing speaks against them; but the lease still says that they have expired.
        fresh = credentials.fresh(KEY, world.server.refresh)
    assert world.tags() == ["acquired", "refresh_started", "refresh_failed", "refresh_started", "refreshed"]
    assert [failure.error for failure in failures(world)] == ["TokensChanged"]
    assert [presented.refresh_token for presented in world.server.presentations()] == [by_hand.refresh_token]
    assert fresh == world.stored()


def test_a_store_that_fails_before_the_send_closes_the_attempt_unsent(world: World) -> None:
    world.log_in(lives=0)
    store = FaultyStore(world.store)
    store.faults.before("load", failing(DISK), calls=(2,))
    with world.credentials(store=store) as credentials:
        with pytest.raises(TokenIOError):
            credentials.fresh(KEY, never)
        assert [failure.error for failure in failures(world)] == ["TokenIOError"]
        credentials.fresh(KEY, world.server.refresh)


def test_an_attempt_that_was_taken_over_before_the_send_sends_nothing(world: World) -> None:
    world.log_in(lives=0)
    store = FaultyStore(world.store)

    def somebody_takes_over_and_refreshes() -> None:
        with world.credentials(is_gone=lambda _holder: True) as other:
            other.fresh(KEY, world.server.refresh)

    store.faults.after("load", somebody_takes_over_and_refreshes, calls=(2,))
    with world.credentials(store=store) as credentials:
        spy = Spy()
        assert credentials.fresh(KEY, spy) == world.stored()
        assert not spy.called
    assert world.server.outcomes() == ["ok"]


def test_a_refresh_that_somebody_finished_meanwhile_is_not_begun_again(world: World) -> None:
    world.log_in(lives=0)
    store = FaultyStore(world.store)

    def somebody_refreshes() -> None:
        with world.credentials() as other:
            other.fresh(KEY, world.server.refresh)

    store.faults.after("load", somebody_refreshes, calls=(1,))
    with world.credentials(store=store) as credentials:
        assert credentials.fresh(KEY, never) == world.stored()
    assert world.tags() == ["acquired", "refresh_started", "refreshed"]


# One refresh for many


def fresh_in_threads(callers: list[Credentials], refresh: Callable[[PersistedTokens], PersistedTokens]) -> Any:
    with ThreadPoolExecutor(len(callers)) as pool:
        running = [pool.submit(caller.fresh, KEY, refresh) for caller in callers]
        return [future.result(LONG_S) for future in running]


def test_sixteen_threads_share_one_refresh(world: World, credentials: Credentials) -> None:
    world.log_in(lives=0)
    results = fresh_in_threads([credentials] * 16, world.server.refresh)
    assert results == [world.stored()] * 16
    assert world.server.outcomes() == ["ok"]


def test_several_credentials_objects_in_one_process_share_one_refresh(world: World) -> None:
    world.log_in(lives=0)
    with world.credentials() as one, world.credentials() as two, world.credentials() as three:
        results = fresh_in_threads([one, two, three] * 3, world.server.refresh)
    assert results == [world.stored()] * 9
    assert world.server.outcomes() == ["ok"]


def test_eight_processes_exchange_once_for_each_generation(world: World, crew: Crew) -> None:
    world.log_in()
    agents = [crew.start(world, rejecting=True, turns=5) for _ in range(CROWD)]
    outcomes = [agent.outcome() for agent in agents]
    assert [outcome.raised for outcome in outcomes] == [None] * CROWD
    with world.open_ledger() as ledger:
        generations = ledger.snapshot(KEY).generation
    assert world.server.outcomes() == ["ok"] * (generations - 1)
    assert generations >= 6
    assert world.stored_generation() == generations
    assert outcomes[0].returned[-1] is not None
    assert world.tags() == ["acquired"] + ["refresh_started", "refreshed"] * (generations - 1)


def waiting_crowd(world: World, crew: Crew, **job: Any) -> tuple[Agent, list[Agent]]:
    """A winner that is about to send, and a crowd of other processes that wait for its outcome."""
    winner = crew.start(world, "winner", waits_at=("sending",), **job).wait_until("sending")
    losers = [crew.start(world, "loser", **job) for _ in range(CROWD - 1)]
    for loser in losers:
        loser.wait_until("watching")
    return winner, losers


def test_losers_adopt_the_winners_tokens_even_when_they_are_shorter_than_their_window(world: World, crew: Crew) -> None:
    world.log_in(lives=0)
    world.server.tokens_will_live(50)
    winner, losers = waiting_crowd(world, crew, window=60)
    winner.let_go("sending")
    outcomes = [agent.outcome() for agent in (winner, *losers)]
    assert [outcome.returned for outcome in outcomes] == [[world.stored().primary_secret]] * CROWD
    assert world.server.outcomes() == ["ok"]


def test_losers_share_a_failure_for_now_and_do_not_try_one_by_one(world: World, crew: Crew) -> None:
    world.log_in(lives=0)
    world.server.will_fail(BUSY)
    winner, losers = waiting_crowd(world, crew)
    winner.let_go("sending")
    for agent in (winner, *losers):
        outcome = agent.outcome()
        assert outcome.raised == "RefreshError"
        assert outcome.fields == {"permanent": False, "error": "temporarily_unavailable", "status": 503}
    assert world.server.outcomes() == ["fault"]
    with world.credentials() as credentials:
        assert credentials.fresh(KEY, world.server.refresh) == world.stored()


def test_a_refusal_for_good_stops_everybody_until_a_login(world: World, crew: Crew) -> None:
    world.log_in(lives=0)
    world.server.will_fail(GONE)
    winner, losers = waiting_crowd(world, crew)
    winner.let_go("sending")
    late = crew.start(world, "late")
    for agent in (winner, *losers, late):
        outcome = agent.outcome()
        assert (outcome.raised, outcome.fields["error"]) == ("ReauthRequired", "invalid_grant")
    assert world.server.outcomes() == ["fault"]
    with world.credentials() as credentials:
        assert credentials.status(KEY).phase is AuthStatusPhase.REAUTH_REQUIRED
        newer = world.log_in()
        assert credentials.fresh(KEY, never) == newer


def test_tokens_with_leeway_left_are_returned_while_another_refreshes(world: World, crew: Crew) -> None:
    tokens = world.log_in(lives=30)
    holder = crew.start(world, waits_at=("sending",)).wait_until("sending")
    with world.credentials() as credentials:
        assert credentials.fresh(KEY, never, window=60, leeway=10) == tokens
    waiting = crew.start(world, leeway=60).wait_until("watching")
    assert waiting.said("ended") == []
    holder.let_go("sending").outcome()
    assert waiting.outcome().returned == [world.stored().primary_secret]
    assert world.server.outcomes() == ["ok"]


def test_tokens_that_the_server_refused_are_not_returned_while_another_refreshes(world: World, crew: Crew) -> None:
    world.log_in()
    holder = crew.start(world, waits_at=("sending",), rejecting=True).wait_until("sending")
    waiting = crew.start(world, rejecting=True).wait_until("watching")
    holder.let_go("sending").outcome()
    assert waiting.outcome().returned == [world.stored().primary_secret]
    assert world.server.outcomes() == ["ok"]


def test_a_wait_that_never_ends_is_given_up_and_the_login_stands(world: World, crew: Crew) -> None:
    world.log_in(lives=0)
    holder = crew.start(world, waits_at=("sending",), deadline=1000).wait_until("sending")
    hours = itertools.chain([0.0, 0.0, 0.0], itertools.repeat(5000.0))
    with world.credentials(monotonic=lambda: next(hours)) as credentials:
        with pytest.raises(RefreshTimedOut, match=r"waited 5000.0 s .* the login stands, try again") as caught:
            credentials.fresh(KEY, never)
        assert isinstance(caught.value, TimeoutError)
    assert world.tags() == ["acquired", "refresh_started"]
    holder.let_go("sending").outcome()
    assert world.server.outcomes() == ["ok"]


# What the server says


def test_a_failure_for_now_leaves_usable_tokens_in_use(world: World, credentials: Credentials) -> None:
    tokens = world.log_in(lives=30)
    world.server.will_fail(BUSY)
    assert credentials.fresh(KEY, world.server.refresh) == tokens
    assert credentials.fresh(KEY, never) == tokens, "tried again at once"
    assert world.tags() == ["acquired", "refresh_started", "refresh_failed"]


def test_a_failure_for_now_is_tried_again_later(world: World) -> None:
    tokens = world.log_in(lives=30)
    now_ms = [int(time.time() * 1000)]
    world.server.will_fail(BUSY)
    with world.credentials(clock=lambda: now_ms[0]) as credentials:
        assert credentials.fresh(KEY, world.server.refresh) == tokens
        now_ms[0] += 1500
        assert credentials.fresh(KEY, world.server.refresh) != tokens
    assert world.server.outcomes() == ["fault", "ok"]


def test_each_failure_in_a_row_doubles_the_pause(world: World) -> None:
    tokens = world.log_in(lives=100)
    now_ms = [int(time.time() * 1000)]
    world.server.will_fail(*[BUSY] * 9)
    tried_at_ms: list[int] = []

    def refresh(tokens: PersistedTokens) -> PersistedTokens:
        tried_at_ms.append(now_ms[0])
        return world.server.refresh(tokens)

    with world.credentials(clock=lambda: now_ms[0]) as credentials:
        for _ in range(160):
            assert credentials.fresh(KEY, refresh, window=HOUR_S) == tokens
            now_ms[0] += 100
    assert [later - before for before, later in itertools.pairwise(tried_at_ms)] == [1000, 2000, 4000, 8000]


def test_a_wait_the_server_asked_for_is_honoured_by_every_process(world: World, crew: Crew) -> None:
    world.log_in(lives=0)
    world.server.will_fail(RefreshError(False, None, 429, 600.0))
    assert crew.start(world).outcome().raised == "RefreshError"
    for _ in range(2):
        outcome = crew.start(world).outcome()
        assert (outcome.raised, outcome.fields["status"]) == ("RefreshError", 429)
        assert 500 < outcome.fields["retry_after"] <= 600
    assert world.server.outcomes() == ["fault"]
    later_ms = int(time.time() * 1000) + 601_000
    with world.credentials(clock=lambda: later_ms) as credentials:
        credentials.fresh(KEY, world.server.refresh)
    assert world.server.outcomes() == ["fault", "ok"]


def test_anything_else_a_refresh_function_raises_counts_as_a_failure_for_now(
    world: World, credentials: Credentials
) -> None:
    world.log_in(lives=0)
    with pytest.raises(RefreshError) as caught:
        credentials.fresh(KEY, raising(ConnectionResetError(f"sent {CANARY}")))
    assert (caught.value.permanent, caught.value.error) == (False, "ConnectionResetError")
    assert isinstance(caught.value.__cause__, ConnectionResetError)
    assert [failure.error for failure in failures(world)] == ["ConnectionResetError"]
    assert credentials.fresh(KEY, world.server.refresh) == world.stored()


def test_a_refresh_function_that_returns_something_else_is_told_so_and_nothing_of_it_is_kept(
    world: World, credentials: Credentials
) -> None:
    world.log_in(lives=0)
    with pytest.raises(RefreshError) as caught:
        credentials.fresh(KEY, lambda _tokens: {"access_token": CANARY})  # type: ignore[arg-type,return-value]
    assert "returns PersistedTokens, not dict" in str(caught.value.__cause__)
    assert CANARY not in told(caught.value)


@pytest.mark.parametrize("permanent", [False, True])
def test_what_a_server_writes_where_a_code_belongs_is_not_recorded(
    world: World, credentials: Credentials, permanent: bool
) -> None:
    world.log_in(lives=0)
    said = RefreshError(permanent, f"your token {CANARY} is bad", 400)
    with pytest.raises(ReauthRequired if permanent else RefreshError) as caught:
        credentials.fresh(KEY, raising(said))
    assert [failure.error for failure in failures(world)] == ["unrecordable_error"]
    if permanent:
        assert CANARY not in str(caught.value)
        with pytest.raises(ReauthRequired, match="unrecordable_error"):
            credentials.fresh(KEY, never)


@pytest.mark.parametrize(
    "error",
    [
        RefreshError(False, "slow_down", 429, -3.0),
        RefreshError(False, "slow_down", 429, float("nan")),
        RefreshError(False, "slow_down", 429, float("inf")),
        RefreshError(False, "slow_down", 429, 10**400),
        RefreshError(False, "slow_down", -1),
        RefreshError(False, "slow_down", "503"),  # type: ignore[arg-type]
        RefreshError(False, 503),  # type: ignore[arg-type]
    ],
    ids=lambda error: f"{error.error} {error.status!r} {error.retry_after!r}",
)
def test_an_error_that_no_event_can_carry_still_closes_the_attempt(
    world: World, credentials: Credentials, error: RefreshError
) -> None:
    world.log_in(lives=0)
    with pytest.raises(RefreshError):
        credentials.fresh(KEY, raising(error))
    assert len(failures(world)) == 1
    assert credentials.ledger.snapshot(KEY).phase is AuthLeasePhase.EXPIRING
    assert credentials.fresh(KEY, world.server.refresh) == world.stored()


def test_an_interrupt_in_the_exchange_closes_the_attempt_and_comes_out(world: World, credentials: Credentials) -> None:
    world.log_in(lives=0)
    for error in (KeyboardInterrupt(), SystemExit(3)):
        with pytest.raises(type(error)):
            credentials.fresh(KEY, raising(error))
    assert [failure.error for failure in failures(world)] == ["KeyboardInterrupt", "SystemExit"]
    assert credentials.fresh(KEY, world.server.refresh) == world.stored()


def test_an_interrupt_comes_out_though_the_ledger_fails_at_closing_the_attempt(world: World) -> None:
    world.log_in(lives=0)
    faults = Faults()
    with LeaseLedger(FaultyRecorder(world.ledger_path, faults)) as ledger:
        faults.before("append", failing(LedgerStorageError("the disk is full")), calls=(2,))
        with pytest.raises(KeyboardInterrupt):
            Credentials(ledger, world.store).fresh(KEY, raising(KeyboardInterrupt()))


# What the store does


def test_a_store_that_fails_twice_and_then_works_ends_well(world: World) -> None:
    world.log_in(lives=0)
    store = FaultyStore(world.store)
    store.faults.before("save", failing(DISK), calls=(1, 2))
    with world.credentials(store=store) as credentials:
        assert credentials.fresh(KEY, world.server.refresh) == world.stored()
    assert world.tags() == ["acquired", "refresh_started", "refreshed"]
    assert store.faults.calls["save"] == 3


def test_a_save_that_raises_after_its_bytes_are_in_place_counts_as_saved(world: World) -> None:
    world.log_in(lives=0)
    store = FaultyStore(world.store)
    store.faults.after("save", failing(DISK))
    with world.credentials(store=store) as credentials:
        assert credentials.fresh(KEY, world.server.refresh) == world.stored()
    assert store.faults.calls["save"] == 1


def test_a_store_that_can_be_neither_written_nor_read_for_a_while_ends_well(world: World) -> None:
    world.log_in(lives=0)
    store = FaultyStore(world.store)
    with world.credentials(store=store) as credentials:

        def refresh(tokens: PersistedTokens) -> PersistedTokens:
            store.faults.before("save", failing(DISK), calls=(1, 2))
            store.faults.before("load", failing(DISK), calls=(3,))
            return world.server.refresh(tokens)

        assert credentials.fresh(KEY, refresh) == world.stored()


def not_saved(world: World, store: FaultyStore, **options: Any) -> TokensNotSaved:
    """The error of a refresh whose new tokens nothing would take."""
    with world.credentials(store=store, refresh_deadline=0.2, **options) as credentials:
        with pytest.raises(TokensNotSaved) as caught:
            credentials.fresh(KEY, world.server.refresh)
        return caught.value


def test_tokens_that_no_store_would_take_are_in_the_error_and_hidden(world: World) -> None:
    world.log_in(lives=0)
    store = FaultyStore(world.store)
    store.faults.before("save", failing(DISK))
    error = not_saved(world, store)
    assert world.server.holds_alive(error.tokens)
    assert error.__cause__ is DISK
    assert "no space left on device" in str(error)
    assert CANARY not in told(error)
    assert CANARY not in "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert [failure.error for failure in failures(world)] == ["TokenIOError"]
    assert store.faults.calls["save"] > 1


def test_tokens_from_the_error_can_be_logged_in_with(world: World) -> None:
    world.log_in(lives=0)
    store = FaultyStore(world.store)
    store.faults.before("save", failing(DISK))
    error = not_saved(world, store)
    with world.credentials() as credentials:
        credentials.login(KEY, error.tokens)
        assert credentials.fresh(KEY, never).primary_secret == error.tokens.primary_secret


def test_tokens_are_in_the_error_when_store_and_ledger_both_refuse(world: World) -> None:
    world.log_in(lives=0)
    faults, store = Faults(), FaultyStore(world.store)
    store.faults.before("save", failing(DISK))
    with LeaseLedger(FaultyRecorder(world.ledger_path, faults)) as ledger:
        faults.before("append", failing(LedgerStorageError("the disk is full")), calls=range(2, 1000))
        with pytest.raises(TokensNotSaved) as caught:
            Credentials(ledger, store, refresh_deadline=0.2).fresh(KEY, world.server.refresh)
    assert world.server.holds_alive(caught.value.tokens)
    assert CANARY not in told(caught.value)


def test_tokens_are_in_the_error_when_the_ledger_cannot_be_read_after_the_exchange(world: World) -> None:
    world.log_in(lives=0)
    faults = Faults()
    with LeaseLedger(FaultyRecorder(world.ledger_path, faults)) as ledger:

        def refresh(tokens: PersistedTokens) -> PersistedTokens:
            faults.before("change_token", failing(LedgerStorageError("reading failed")))
            return world.server.refresh(tokens)

        with pytest.raises(TokensNotSaved, match="reading failed") as caught:
            Credentials(ledger, world.store, refresh_deadline=0.2).fresh(KEY, refresh)
    assert world.server.holds_alive(caught.value.tokens)


def test_a_ledger_that_cannot_be_read_for_a_moment_after_the_exchange_ends_well(world: World) -> None:
    world.log_in(lives=0)
    faults = Faults()
    with LeaseLedger(FaultyRecorder(world.ledger_path, faults)) as ledger:

        def refresh(tokens: PersistedTokens) -> PersistedTokens:
            now = faults.calls["change_token"]
            faults.before("change_token", failing(LedgerStorageError("reading failed")), calls=(now + 1, now + 2))
            return world.server.refresh(tokens)

        assert Credentials(ledger, world.store).fresh(KEY, refresh) == world.stored()


def test_tokens_are_in_the_error_when_the_guard_cannot_be_had_after_the_exchange(
    world: World, credentials: Credentials
) -> None:
    world.log_in(lives=0)
    locks = world.ledger_path.with_name("auth.db.locks")

    def refresh(tokens: PersistedTokens) -> PersistedTokens:
        for lock in locks.iterdir():
            lock.unlink()
        locks.rmdir()
        locks.write_text("no folder any more")
        return world.server.refresh(tokens)

    with pytest.raises(TokensNotSaved, match="must allow lock files") as caught:
        credentials.fresh(KEY, refresh)
    assert world.server.holds_alive(caught.value.tokens)
    assert [failure.error for failure in failures(world)] == ["LedgerStorageError"]
    locks.unlink()
    credentials.login(KEY, caught.value.tokens)


def test_a_store_whose_errors_have_names_no_event_can_carry_loses_nothing(world: World) -> None:
    class Störung(Exception):  # noqa: PLC2401  # the point of this test
        """A custom store may be written in any language."""

    world.log_in(lives=0)
    store = FaultyStore(world.store)
    store.faults.before("save", failing(Störung("kaputt")))
    error = not_saved(world, store)
    assert world.server.holds_alive(error.tokens)
    assert [failure.error for failure in failures(world)] == ["unrecordable_error"]


def test_an_event_that_cannot_be_stored_after_the_save_is_recorded_at_the_next_use(world: World) -> None:
    world.log_in(lives=0)
    faults = Faults()
    with LeaseLedger(FaultyRecorder(world.ledger_path, faults)) as ledger:
        faults.before("append", failing(LedgerStorageError("the disk is full")), calls=(2,))
        credentials = Credentials(ledger, world.store)
        with pytest.raises(LedgerStorageError):
            credentials.fresh(KEY, world.server.refresh)
        saved = world.stored()
        assert credentials.fresh(KEY, never) == saved
    refreshed = world.events()[-1]
    assert isinstance(refreshed, LeaseRefreshed)
    assert (refreshed.recovered, refreshed.id) == (True, marker_event(saved))


def test_an_event_that_was_stored_though_its_append_failed_is_not_recorded_twice(world: World) -> None:
    world.log_in(lives=0)
    faults = Faults()
    with LeaseLedger(FaultyRecorder(world.ledger_path, faults)) as ledger:
        faults.after("append", failing(LedgerStorageError("connection lost")), calls=(2,))
        credentials = Credentials(ledger, world.store)
        with pytest.raises(LedgerStorageError):
            credentials.fresh(KEY, world.server.refresh)
        assert credentials.fresh(KEY, never) == world.stored()
    assert world.tags() == ["acquired", "refresh_started", "refreshed"]


def test_a_start_that_cannot_be_stored_sends_nothing(world: World) -> None:
    world.log_in(lives=0)
    faults = Faults()
    with LeaseLedger(FaultyRecorder(world.ledger_path, faults)) as ledger:
        faults.before("append", failing(LedgerStorageError("the disk is full")), calls=(1,))
        credentials = Credentials(ledger, world.store)
        with pytest.raises(LedgerStorageError):
            credentials.fresh(KEY, never)
        assert credentials.fresh(KEY, world.server.refresh) == world.stored()


def test_a_login_without_the_guard_during_the_save_is_not_overwritten(world: World) -> None:
    world.log_in(lives=0)
    newer = world.server.log_in()
    store = FaultyStore(world.store)

    def somebody_logs_in_without_the_guard() -> None:
        with world.open_ledger() as other:
            transition = other.acquire_lease(KEY, newer.expires_at or 0)
            world.store.save(KEY, mark_tokens_lifecycle_published_for_transition(newer, transition))

    store.faults.before("save", somebody_logs_in_without_the_guard, calls=(1,))
    with world.credentials(store=store) as credentials:
        assert credentials.fresh(KEY, world.server.refresh).primary_secret == newer.primary_secret
    assert world.stored().primary_secret == newer.primary_secret


def test_a_take_over_between_save_and_record_is_answered_with_an_acquire_of_what_was_saved(world: World) -> None:
    world.log_in(lives=0)
    store = FaultyStore(world.store)

    def somebody_gives_up_waiting() -> None:
        with world.open_ledger() as other:
            other.refresh_failed(KEY, False, attempt=world.events()[-1].id, abandoned=True)

    store.faults.after("save", somebody_gives_up_waiting, calls=(1,))
    with world.credentials(store=store) as credentials:
        assert credentials.fresh(KEY, world.server.refresh) == world.stored()
        assert credentials.ledger.snapshot(KEY).published_by == marker_event(world.stored())
    assert world.tags() == ["acquired", "refresh_started", "refresh_failed", "acquired"]
    assert world.server.outcomes() == ["ok"]


# Logouts meanwhile


def test_a_release_between_save_and_record_takes_the_tokens_away_before_the_server_is_told(world: World) -> None:
    world.log_in(lives=0)
    store = FaultyStore(world.store)
    stored_when_told: list[PersistedTokens | None] = []

    def somebody_releases_without_the_guard() -> None:
        with world.open_ledger() as other:
            other.release_lease(KEY)

    def revoke(tokens: PersistedTokens) -> None:
        stored_when_told.append(world.store.load(KEY))
        world.server.revoke(tokens)

    store.faults.after("save", somebody_releases_without_the_guard, calls=(1,))
    with world.credentials(store=store, revoke=revoke) as credentials, pytest.raises(ReauthRequired):
        credentials.fresh(KEY, world.server.refresh)
    assert stored_when_told == [None]
    assert len(world.server.revoked()) == 1


def test_a_logout_during_a_refresh_cannot_be_undone_by_it(world: World, crew: Crew) -> None:
    world.log_in(lives=0)
    refreshing = crew.start(world, waits_at=("answered",)).wait_until("answered")
    waiting = crew.start(world).wait_until("watching")
    with world.credentials() as credentials:
        credentials.logout(KEY)
        refreshing.let_go("answered")
        for agent in (refreshing, waiting):
            assert agent.outcome().raised == "ReauthRequired"
        assert credentials.status(KEY).phase is AuthStatusPhase.UNKNOWN
    assert world.store.load(KEY) is None
    assert world.tags() == ["acquired", "refresh_started", "released"]
    # The late tokens are live at the server and nobody's: it is told.
    assert len(world.server.revoked()) == 1
    assert world.server.outcomes() == ["ok"]


def test_a_logout_before_the_send_stops_it(world: World, crew: Crew) -> None:
    world.log_in(lives=0)
    store = FaultyStore(world.store)

    def somebody_logs_out() -> None:
        with world.credentials() as other:
            other.logout(KEY)

    store.faults.after("load", somebody_logs_out, calls=(2,))
    spy = Spy()
    with world.credentials(store=store) as credentials, pytest.raises(ReauthRequired, match="it was logged out"):
        credentials.fresh(KEY, spy)
    assert not spy.called


def test_a_revoker_that_fails_changes_nothing_about_a_late_response(world: World) -> None:
    world.log_in(lives=0)

    def refresh(tokens: PersistedTokens) -> PersistedTokens:
        with world.credentials() as other:
            other.logout(KEY)
        return world.server.refresh(tokens)

    def revoke(_tokens: PersistedTokens) -> None:
        raise ConnectionError("no route")

    with world.credentials(revoke=revoke) as credentials, pytest.raises(ReauthRequired):
        credentials.fresh(KEY, refresh)
    assert world.store.load(KEY) is None


# Clocks


@pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S], ids=["forward", "back"])
def test_a_clock_that_jumps_an_hour_never_gives_the_attempt_to_two(world: World, jump_s: int) -> None:
    world.log_in(lives=-2 * HOUR_S)
    busy = threading.Lock()
    sending, go_on = threading.Event(), threading.Event()

    def refresh(tokens: PersistedTokens) -> PersistedTokens:
        assert busy.acquire(blocking=False), "two exchanges at once"
        sending.set()
        assert go_on.wait(LONG_S)
        answer = world.server.refresh(tokens)
        busy.release()
        return answer

    def jumped() -> int:
        return int((time.time() + jump_s) * 1000)

    with (
        world.credentials(refresh_deadline=30) as one,
        world.credentials(clock=jumped, refresh_deadline=30) as two,
        ThreadPoolExecutor(2) as pool,
    ):
        world.server.tokens_will_live(3 * HOUR_S)
        first = pool.submit(one.fresh, KEY, refresh)
        assert sending.wait(LONG_S)
        second: Future[PersistedTokens] = pool.submit(two.fresh, KEY, refresh)
        time.sleep(0.3)
        assert not second.done()
        assert world.tags() == ["acquired", "refresh_started"]
        go_on.set()
        assert first.result(LONG_S) == second.result(LONG_S) == world.stored()
    assert world.server.outcomes() == ["ok"]


def test_publication_times_only_grow_though_the_clock_goes_back(world: World) -> None:
    now_ms = [int(time.time() * 1000)]
    with world.credentials(clock=lambda: now_ms[0]) as credentials:
        credentials.login(KEY, world.server.log_in())
        for _ in range(3):
            now_ms[0] -= HOUR_S * 1000
            credentials.fresh(KEY, world.server.refresh, rejected=world.stored())
    times = [event.published_at for event in world.events() if isinstance(event, LeaseRefreshed)]
    assert times == sorted(set(times))


def test_a_failure_told_by_a_clock_an_hour_ahead_does_not_stop_the_others_for_an_hour(world: World) -> None:
    world.log_in(lives=-2 * HOUR_S)
    world.server.will_fail(RefreshError(False, None, 503, 5.0))
    now_ms = int(time.time() * 1000)
    with world.credentials(clock=lambda: now_ms + HOUR_S * 1000) as ahead, pytest.raises(RefreshError):
        ahead.fresh(KEY, world.server.refresh)
    with world.credentials(clock=lambda: now_ms) as behind:
        assert behind.fresh(KEY, world.server.refresh) == world.stored()


def test_a_wait_is_honoured_by_a_clock_that_is_a_little_behind(world: World) -> None:
    world.log_in(lives=-2 * HOUR_S)
    world.server.will_fail(RefreshError(False, None, 503, 5.0))
    now_ms = int(time.time() * 1000)
    with world.credentials(clock=lambda: now_ms) as ahead, pytest.raises(RefreshError):
        ahead.fresh(KEY, world.server.refresh)
    with world.credentials(clock=lambda: now_ms - 3000) as behind, pytest.raises(RefreshError) as caught:
        behind.fresh(KEY, never)
    assert caught.value.retry_after == 5.0


# Interrupts of a real process


def test_an_interrupt_between_response_and_record_still_saves_and_records(world: World, crew: Crew) -> None:
    world.log_in(lives=0)
    agent = crew.start(world, waits_at=("saving",)).wait_until("saving")
    agent.signal(signal.SIGINT).signal(signal.SIGINT)
    time.sleep(0.1)
    assert agent.said("ended") == []
    agent.let_go("saving")
    assert agent.outcome().raised == "KeyboardInterrupt"
    assert world.tags() == ["acquired", "refresh_started", "refreshed"]
    with world.credentials() as credentials:
        assert credentials.fresh(KEY, never) == world.stored()


def test_an_interrupt_during_a_real_exchange_comes_out_once_its_tokens_are_saved(world: World, crew: Crew) -> None:
    world.log_in(lives=0)
    agent = crew.start(world, waits_at=("sending",)).wait_until("sending")
    agent.signal(signal.SIGINT)
    time.sleep(0.1)
    assert agent.said("ended") == []
    agent.let_go("sending")
    assert agent.outcome().raised == "KeyboardInterrupt"
    assert world.tags() == ["acquired", "refresh_started", "refreshed"]
    with world.credentials() as credentials:
        assert credentials.fresh(KEY, never) == world.stored()


def test_a_second_interrupt_does_not_wait_for_the_server_and_what_it_leaves_is_taken_over(
    world: World, crew: Crew
) -> None:
    world.log_in(lives=0)
    agent = crew.start(world, waits_at=("sending",)).wait_until("sending")
    agent.signal(signal.SIGINT)
    time.sleep(0.1)
    agent.signal(signal.SIGINT)
    assert agent.outcome().raised == "KeyboardInterrupt"
    assert agent.exit_status() == 0
    with world.credentials() as credentials:
        assert credentials.fresh(KEY, world.server.refresh) == world.stored()


def test_an_interrupt_does_not_hide_that_the_tokens_could_not_be_saved(world: World) -> None:
    world.log_in(lives=0)
    store = FaultyStore(world.store)

    def interrupted_and_full() -> None:
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.05)
        raise DISK

    store.faults.before("save", interrupted_and_full)
    with (
        world.credentials(store=store, refresh_deadline=0.1) as credentials,
        pytest.raises(KeyboardInterrupt) as caught,
    ):
        credentials.fresh(KEY, world.server.refresh)
    assert isinstance(caught.value.__cause__, TokensNotSaved)
    assert world.server.holds_alive(caught.value.__cause__.tokens)


def test_an_interrupt_while_waiting_for_another_leaves_everything_as_it_is(world: World, crew: Crew) -> None:
    world.log_in(lives=0)
    holder = crew.start(world, waits_at=("sending",)).wait_until("sending")
    waiting = crew.start(world).wait_until("watching")
    waiting.signal(signal.SIGINT)
    assert waiting.outcome().raised == "KeyboardInterrupt"
    holder.let_go("sending").outcome()
    assert world.tags() == ["acquired", "refresh_started", "refreshed"]


def test_an_interrupt_during_a_login_is_raised_when_the_tokens_are_saved(world: World, crew: Crew) -> None:
    agent = crew.start(world, action="login", waits_at=("saving",)).wait_until("saving")
    agent.signal(signal.SIGINT)
    time.sleep(0.1)
    agent.let_go("saving")
    assert agent.outcome().raised == "KeyboardInterrupt"
    with world.credentials() as credentials:
        assert credentials.fresh(KEY, never) == world.stored()


# Races between looking at the ledger and looking at the store


def test_whoever_looks_while_others_log_in_again_and_again_gets_tokens_all_the_same(world: World) -> None:
    world.log_in()
    store = FaultyStore(world.store)
    logins: list[threading.Thread] = []

    def somebody_logs_in() -> None:
        def log_in() -> None:
            with world.credentials() as other:
                other.login(KEY, world.server.log_in())

        logins.append(threading.Thread(target=log_in))
        logins[-1].start()
        # Under the guard nobody can, and then we must not wait for them.
        logins[-1].join(0.3)

    store.faults.before("load", somebody_logs_in, calls=range(1, 5))
    with world.credentials(store=store) as credentials:
        assert credentials.fresh(KEY, never).primary_secret is not None
    for login in logins:
        login.join()
