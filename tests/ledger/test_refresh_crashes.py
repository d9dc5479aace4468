"""Agents killed, stopped and overtaken at every step, and what the next one who comes makes of it."""

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from agents import CANARY, HOUR_S, KEY, LONG_S, Agent, Crew, World, eventually, running_crew

from ledger.credentials import Credentials
from ledger.events import LeaseAcquired, LeaseRefreshed, LeaseRefreshFailed, LeaseRefreshStarted, LeaseRestored
from ledger.marker import marker_event
from ledger.refresh_errors import ReauthRequired, RefreshError, TokensElsewhere
from ledger.status import AuthStatusPhase
from ledger.tokens import PersistedTokens

Action = Literal["login", "fresh", "logout"]

BUSY = RefreshError(False, "temporarily_unavailable", 503)
SHORT_S = 0.4
"""A deadline that is meant to pass."""


@pytest.fixture(scope="module")
def crew() -> Iterator[Crew]:
    with running_crew() as crew:
        yield crew


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.check()


@pytest.fixture
def credentials(world: World) -> Iterator[Credentials]:
    with world.credentials() as credentials:
        yield credentials


def never(_tokens: PersistedTokens) -> PersistedTokens:
    """A refresh function that is not to be called."""
    raise AssertionError("spent a refresh token")


def last_failure(world: World) -> LeaseRefreshFailed:
    return [event for event in world.events() if isinstance(event, LeaseRefreshFailed)][-1]


# Killed


@pytest.mark.parametrize("reaped", [True, False], ids=["reaped", "zombie"])
def test_a_killed_holder_is_taken_over_long_before_its_time_is_over(
    world: World, crew: Crew, credentials: Credentials, reaped: bool
) -> None:
    world.log_in(lives=0)
    holder = crew.start(world, deadline=1000, waits_at=("sending",)).wait_until("sending")
    holder.signal(signal.SIGKILL)
    if reaped:
        holder.exit_status()
    began = time.monotonic()
    assert credentials.fresh(KEY, world.server.refresh) == world.stored()
    assert time.monotonic() - began < LONG_S
    assert world.tags() == ["acquired", "refresh_started", "refresh_failed", "refresh_started", "refreshed"]
    failure = last_failure(world)
    assert (failure.abandoned, failure.permanent, failure.error) == (True, False, None)
    assert failure.cause is not None


def test_of_a_crowd_that_waits_for_a_killed_holder_one_takes_over(world: World, crew: Crew) -> None:
    world.log_in(lives=0)
    holder = crew.start(world, deadline=1000, waits_at=("sending",)).wait_until("sending")
    crowd = [crew.start(world).wait_until("watching") for _ in range(5)]
    holder.kill()
    assert [agent.outcome().returned for agent in crowd] == [[world.stored().primary_secret]] * 5
    assert world.server.outcomes() == ["ok"]
    assert world.tags().count("refresh_failed") == 1


def test_tokens_saved_but_not_recorded_are_recorded_as_recovered_under_the_markers_event(
    world: World, crew: Crew, credentials: Credentials
) -> None:
    world.log_in(lives=0)
    crew.start(world, waits_at=("saved",)).wait_until("saved").kill()
    saved = world.stored()
    assert world.tags() == ["acquired", "refresh_started"]
    assert credentials.fresh(KEY, never) == saved
    _, started, refreshed = world.events()
    assert isinstance(started, LeaseRefreshStarted)
    assert isinstance(refreshed, LeaseRefreshed)
    assert (refreshed.id, refreshed.recovered, refreshed.attempt) == (marker_event(saved), True, started.attempt)
    assert world.server.outcomes() == ["ok"]


def test_tokens_saved_but_not_recorded_are_finished_by_a_logout_too_and_the_server_is_told(
    world: World, crew: Crew, credentials: Credentials
) -> None:
    world.log_in(lives=0)
    crew.start(world, waits_at=("saved",)).wait_until("saved").kill()
    saved = world.stored()
    credentials.logout(KEY, revoke=world.server.revoke)
    assert world.server.revoked() == [saved.refresh_token]
    assert world.tags() == ["acquired", "refresh_started", "refreshed", "released"]


def test_a_response_that_died_with_its_process_is_named_by_an_abandoned_attempt(
    world: World, crew: Crew, credentials: Credentials
) -> None:
    world.log_in(lives=0)
    crew.start(world, waits_at=("answered",)).wait_until("answered").kill()
    with pytest.raises(ReauthRequired, match="refused for good"):
        credentials.fresh(KEY, world.server.refresh)
    assert world.server.outcomes() == ["ok", "reuse"]
    assert [event.tag for event in world.events()][1:3] == ["lease.refresh_started", "lease.refresh_failed"]
    abandoned = world.events()[2]
    assert isinstance(abandoned, LeaseRefreshFailed)
    assert abandoned.abandoned


def test_a_killed_agent_that_held_the_guard_blocks_nobody(world: World, crew: Crew, credentials: Credentials) -> None:
    crew.start(world, action="login", waits_at=("saving",)).wait_until("saving").signal(signal.SIGKILL)
    credentials.login(KEY, world.server.log_in())
    assert credentials.fresh(KEY, never) == world.stored()


def test_a_login_that_died_before_its_save_is_undone_by_the_next_use(
    world: World, crew: Crew, credentials: Credentials
) -> None:
    first = world.log_in()
    crew.start(world, action="login", waits_at=("saving",)).wait_until("saving").kill()
    assert credentials.fresh(KEY, never) == first
    assert isinstance(world.events()[-1], LeaseRestored)


# Stopped


def test_a_stopped_holder_is_taken_over_after_its_duration_on_the_observers_clock(world: World, crew: Crew) -> None:
    world.log_in(lives=0)
    holder = crew.start(world, deadline=1000, waits_at=("sending",)).wait_until("sending").signal(signal.SIGSTOP)
    clock = [0.0]
    looks = [0]

    def monotonic() -> float:
        looks[0] += 1
        if looks[0] == 20:
            assert world.tags() == ["acquired", "refresh_started"], "taken over before its time"
            clock[0] = 1001.0
        return clock[0]

    with world.credentials(monotonic=monotonic) as credentials:
        assert credentials.fresh(KEY, world.server.refresh) == world.stored()
    assert looks[0] >= 20
    assert last_failure(world).abandoned
    holder.signal(signal.SIGCONT).let_go("sending")
    # Stopped between its last check and its send, it sends what was spent meanwhile, and no lock can prevent that;
    # but it believes the ledger, and not the refusal that it gets for it.
    assert holder.outcome().returned == [world.stored().primary_secret]
    assert world.server.outcomes() == ["ok", "reuse"]
    assert world.tags() == ["acquired", "refresh_started", "refresh_failed", "refresh_started", "refreshed"]


def test_a_real_duration_passes_too(world: World, crew: Crew, credentials: Credentials) -> None:
    world.log_in(lives=0)
    holder = crew.start(world, deadline=SHORT_S, waits_at=("calling", "sending")).let_go("calling")
    holder.wait_until("sending").signal(signal.SIGSTOP)
    assert credentials.fresh(KEY, world.server.refresh) == world.stored()
    assert world.tags() == ["acquired", "refresh_started", "refresh_failed", "refresh_started", "refreshed"]


def test_a_holder_that_is_stopped_before_the_send_and_overtaken_sends_nothing(world: World, crew: Crew) -> None:
    world.log_in(lives=0)
    holder = crew.start(world, deadline=SHORT_S, waits_at=("checked",)).wait_until("checked")
    with world.credentials() as credentials:
        fresh = credentials.fresh(KEY, world.server.refresh)
    holder.let_go("checked")
    assert holder.outcome().returned == [fresh.primary_secret]
    assert holder.said("sending") == []
    assert world.server.outcomes() == ["ok"]


# Late responses


def late_responder(world: World, crew: Crew) -> Agent:
    """An agent whose response the server sent long ago, and that will read it when let go at "answered"."""
    return crew.start(world, "late", deadline=SHORT_S, waits_at=("answered",)).wait_until("answered")


def fail_to_take_over(world: World, credentials: Credentials) -> None:
    """Take the attempt over, and be told by the server to come later."""
    world.server.will_fail(BUSY)
    with pytest.raises(RefreshError, match="temporarily_unavailable"):
        credentials.fresh(KEY, world.server.refresh)


def test_a_late_response_is_recorded_as_an_acquire_and_adopted_when_the_taker_failed(
    world: World, crew: Crew, credentials: Credentials
) -> None:
    world.log_in(lives=0)
    late = late_responder(world, crew)
    fail_to_take_over(world, credentials)
    (returned,) = late.let_go("answered").outcome().returned
    assert credentials.fresh(KEY, never).primary_secret == returned
    started, acquired = world.events()[1], world.events()[-1]
    assert isinstance(started, LeaseRefreshStarted)
    assert isinstance(acquired, LeaseAcquired)
    assert acquired.attempt == started.attempt
    assert acquired.cause is not None and "late response" in acquired.cause
    assert marker_event(world.stored()) == acquired.id
    assert world.server.outcomes() == ["ok", "fault"]


def test_a_late_response_is_adopted_by_a_taker_that_is_still_trying(world: World, crew: Crew) -> None:
    world.log_in(lives=0)
    late = late_responder(world, crew)
    taker = crew.start(world, "taker", waits_at=("sending",)).wait_until("sending")
    waiting = crew.start(world, "waiting").wait_until("watching")
    (returned,) = late.let_go("answered").outcome().returned
    assert waiting.outcome().returned == [returned]
    taker.let_go("sending")
    # The taker then sends a token that was spent before: the server's refusal is no longer anybody's business.
    assert taker.outcome().returned == [returned]
    assert world.tags()[-1] == "acquired"
    with world.credentials() as credentials:
        assert credentials.fresh(KEY, never).primary_secret == returned


def test_a_late_response_is_dropped_when_the_taker_has_newer_tokens(
    world: World, crew: Crew, credentials: Credentials
) -> None:
    world.log_in(lives=0)
    late = late_responder(world, crew)
    newer = world.server.log_in()
    # A server that lets a token be spent twice within a grace time would give the taker tokens like these.
    fresh = credentials.fresh(KEY, lambda _tokens: newer)
    assert late.let_go("answered").outcome().returned == [fresh.primary_secret]
    assert world.stored() == fresh
    assert world.tags() == ["acquired", "refresh_started", "refresh_failed", "refresh_started", "refreshed"]


def test_a_late_response_is_dropped_after_a_new_login(world: World, crew: Crew, credentials: Credentials) -> None:
    world.log_in(lives=0)
    late = late_responder(world, crew)
    newer = world.log_in()
    assert late.let_go("answered").outcome().returned == [newer.primary_secret]
    assert world.stored() == newer
    assert world.tags() == ["acquired", "refresh_started", "acquired"]
    assert world.server.revoked() == []


def test_a_late_response_is_revoked_after_a_logout(world: World, crew: Crew, credentials: Credentials) -> None:
    world.log_in(lives=0)
    late = late_responder(world, crew)
    fail_to_take_over(world, credentials)
    credentials.logout(KEY)
    assert late.let_go("answered").outcome().raised == "ReauthRequired"
    assert world.store.load(KEY) is None
    assert len(world.server.revoked()) == 1
    assert credentials.status(KEY).phase is AuthStatusPhase.UNKNOWN


def test_tokens_saved_by_an_attempt_that_was_taken_over_are_finished_and_not_thrown_away(
    world: World, crew: Crew, credentials: Credentials
) -> None:
    world.log_in(lives=0)
    late = late_responder(world, crew)
    fail_to_take_over(world, credentials)
    late.kill()
    with pytest.raises(ReauthRequired):
        credentials.fresh(KEY, world.server.refresh)
    again = world.log_in(lives=0)
    saver = crew.start(world, "saver", deadline=SHORT_S, waits_at=("answered", "saved")).wait_until("answered")
    fail_to_take_over(world, credentials)
    saver.let_go("answered").wait_until("saved").kill()
    fresh = credentials.fresh(KEY, never)
    assert fresh == world.stored() != again
    acquired = world.events()[-1]
    assert isinstance(acquired, LeaseAcquired)
    assert acquired.id == marker_event(fresh)


# Killed at every step


def killed_at_every_edge(
    crew: Crew, folder: Path, action: Action, prepare: Callable[[World], Any]
) -> Iterator[tuple[int, World]]:
    """For every edge of every effect of an action: a world of its own, in which an agent was killed just there."""
    edge = 0
    while True:
        world = World(_made(folder / str(edge)))
        prepare(world)
        agent = crew.start(world, action=action, dies_at=edge, deadline=1000)
        status = agent.exit_status()
        if status == 0:
            (edges,) = agent.said("lived")
            assert edges == edge, "some edges were never reached"
            return
        assert status == -signal.SIGKILL
        yield edge, world
        edge += 1


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def shows_nothing_that_is_not_there(world: World, credentials: Credentials) -> None:
    """After any use of ``Credentials``, a valid status means current tokens in the store."""
    status = credentials.status(KEY)
    if status.phase in (AuthStatusPhase.VALID, AuthStatusPhase.EXPIRING):
        assert status.tokens is not None
        assert marker_event(status.tokens) == credentials.ledger.snapshot(KEY).published_by


def test_a_refresh_killed_at_any_edge_costs_no_login_but_where_the_response_died(tmp_path: Path, crew: Crew) -> None:
    ends: dict[str, list[int]] = {"fresh": [], "lost": []}
    for edge, world in killed_at_every_edge(crew, tmp_path, "fresh", lambda world: world.log_in(lives=0)):
        generation, tokens = world.stored_generation(), world.stored()
        with world.credentials() as credentials:
            try:
                fresh = credentials.fresh(KEY, world.server.refresh)
            except ReauthRequired:
                ends["lost"].append(edge)
                assert world.server.outcomes() == ["ok", "reuse"]
                assert any(isinstance(event, LeaseRefreshFailed) and event.abandoned for event in world.events())
                assert world.stored() == tokens
            else:
                ends["fresh"].append(edge)
                assert fresh == world.stored()
                assert world.server.outcomes() == ["ok"]
                assert world.server.holds_alive(fresh)
                assert world.stored_generation() == 2 >= generation
            shows_nothing_that_is_not_there(world, credentials)
        world.check()
    # From right after the exchange until right before the save, its tokens exist nowhere but in the process.
    first, last = ends["lost"][0], ends["lost"][-1]
    assert ends["lost"] == list(range(first, last + 1))
    assert len(ends["lost"]) <= 8
    assert ends["fresh"][0] < first and last < ends["fresh"][-1]


@pytest.mark.parametrize("logged_in_before", [False, True], ids=["first", "over another"])
def test_a_login_killed_at_any_edge_is_whole_or_undone(tmp_path: Path, crew: Crew, logged_in_before: bool) -> None:
    ends: list[str] = []

    def prepare(world: World) -> None:
        if logged_in_before:
            world.log_in()

    for _edge, world in killed_at_every_edge(crew, tmp_path, "login", prepare):
        before = world.store.load(KEY)
        with world.credentials() as credentials:
            try:
                fresh = credentials.fresh(KEY, never)
            except ReauthRequired:
                ends.append("nobody")
                assert not logged_in_before
                assert world.store.load(KEY) is None
            else:
                ends.append("new" if world.stored_generation() == 1 + logged_in_before else "old")
                assert fresh == world.stored() == before
            shows_nothing_that_is_not_there(world, credentials)
            newest = world.log_in()
            assert credentials.fresh(KEY, never) == newest
        world.check()
    without = "old" if logged_in_before else "nobody"
    assert set(ends) == {without, "new"}
    assert ends == sorted(ends, key=[without, "new"].index), "a step forward led back"


def test_a_logout_killed_at_any_edge_happened_or_did_not(tmp_path: Path, crew: Crew) -> None:
    ends: list[str] = []
    for _edge, world in killed_at_every_edge(crew, tmp_path, "logout", lambda world: world.log_in()):
        with world.credentials() as credentials:
            status = credentials.status(KEY).phase
            try:
                fresh = credentials.fresh(KEY, never)
            except ReauthRequired:
                ends.append("logged out")
                assert status is AuthStatusPhase.UNKNOWN
                assert world.store.load(KEY) is None, "tokens of a released lease stayed"
            else:
                ends.append("logged in")
                assert status is AuthStatusPhase.VALID
                assert fresh == world.stored()
            shows_nothing_that_is_not_there(world, credentials)
        world.check()
    assert set(ends) == {"logged in", "logged out"}
    assert ends == sorted(ends), "a step forward led back"


def test_a_recovery_killed_at_any_edge_is_finished_by_the_next_one(tmp_path: Path, crew: Crew) -> None:
    def prepare(world: World) -> None:
        world.log_in(lives=0)
        crew.start(world, waits_at=("saved",)).wait_until("saved").kill()

    for _edge, world in killed_at_every_edge(crew, tmp_path, "fresh", prepare):
        saved = world.stored()
        with world.credentials() as credentials:
            assert credentials.fresh(KEY, never) == saved
        refreshed = world.events()[-1]
        assert isinstance(refreshed, LeaseRefreshed)
        assert (refreshed.recovered, refreshed.id) == (True, marker_event(saved))
        assert world.tags() == ["acquired", "refresh_started", "refreshed"]
        world.check()


def test_a_take_over_killed_at_any_edge_is_taken_over_in_turn(tmp_path: Path, crew: Crew) -> None:
    def prepare(world: World) -> None:
        world.log_in(lives=0)
        crew.start(world, deadline=1000, waits_at=("sending",)).wait_until("sending").kill()

    lost = 0
    for _edge, world in killed_at_every_edge(crew, tmp_path, "fresh", prepare):
        with world.credentials() as credentials:
            try:
                assert credentials.fresh(KEY, world.server.refresh) == world.stored()
                assert world.server.outcomes() == ["ok"]
            except ReauthRequired:
                lost += 1
                assert world.server.outcomes() == ["ok", "reuse"]
            shows_nothing_that_is_not_there(world, credentials)
        world.check()
    assert 1 <= lost <= 8


# Forks


def test_a_child_that_opens_a_ledger_of_its_own_refreshes_like_any_process(
    world: World, crew: Crew, credentials: Credentials
) -> None:
    world.log_in(lives=0)
    child = crew.start(world, forks=True)
    assert child.outcome().returned == [world.stored().primary_secret]
    assert credentials.fresh(KEY, never) == world.stored()
    assert [event.actor for event in world.events()][1:] == [f"child of {child.job.name}"] * 2
    assert world.server.outcomes() == ["ok"]


def test_nothing_here_is_a_secret_but_what_carries_the_canary(world: World) -> None:
    """The check at the end of every test would notice a secret, if there were one to notice."""
    world.log_in(lives=HOUR_S)
    world.check_no_secret_leaked()
    leak = world.ledger_path.with_name("leak")
    leak.write_text(f"... {CANARY}-access ...")
    with pytest.raises(AssertionError, match="leak"):
        world.check_no_secret_leaked()
    leak.unlink()
    eventually(lambda: not leak.exists() or None, "the leak is mended")
    with world.credentials() as credentials, pytest.raises(TokensElsewhere):
        world.store.clear(KEY)
        credentials.ledger.mark_expiring(KEY)
        credentials.fresh(KEY, never)
