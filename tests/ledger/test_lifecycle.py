"""Logins and logouts whose store or ledger fails halfway, through ``Credentials`` and the functions beneath it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from agents import CANARY, HOUR_S, KEY, World
from faults import Faults, FaultyHandle, FaultyRecorder, FaultyStore, failing

from ledger.credentials import Credentials
from ledger.errors import LeaseTransitionError, LedgerStorageError
from ledger.events import LeaseAcquired, LeaseRefreshStarted, LeaseReleased, LeaseRestored
from ledger.lease_ledger import LeaseLedger
from ledger.lifecycle import (
    LifecycleReleaseFailed,
    TokenClearAndRestoreFailed,
    TokenClearFailed,
    TokenLoadAndClearFailed,
    clear_tokens_and_publish_lifecycle_released,
    publish_token_lifecycle_acquired,
    publish_token_lifecycle_released,
)
from ledger.marker import marker_event
from ledger.refresh_errors import ReauthRequired, TokensNotSaved
from ledger.snapshot import AuthLeasePhase
from ledger.status import AuthStatusPhase
from ledger.store_errors import TokenIOError, TokenSerializationError
from ledger.tokens import PersistedTokens

DISK = TokenIOError("no space left on device")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.check()


@pytest.fixture
def ledger(world: World) -> Iterator[LeaseLedger]:
    with world.open_ledger() as ledger:
        yield ledger


@pytest.fixture
def store(world: World) -> FaultyStore:
    return FaultyStore(world.store)


@pytest.fixture
def credentials(ledger: LeaseLedger, store: FaultyStore) -> Credentials:
    return Credentials(ledger, store)


# Logout


def test_a_failed_clear_leaves_a_restore_that_names_the_release_and_the_login_goes_on(
    world: World, ledger: LeaseLedger, store: FaultyStore, credentials: Credentials
) -> None:
    tokens = world.log_in()
    before = ledger.snapshot(KEY)
    store.faults.before("clear", failing(DISK))
    with pytest.raises(TokenClearFailed, match="no space left on device") as caught:
        credentials.logout(KEY)
    assert caught.value.clear_error is DISK
    acquired, released, restored = ledger.read(KEY)
    assert isinstance(released.event, LeaseReleased)
    assert isinstance(restored.event, LeaseRestored)
    assert restored.event.compensates == released.version
    assert restored.event.published_by == acquired.event.id
    assert ledger.snapshot(KEY) == before
    assert credentials.fresh(KEY, world.server.refresh) == tokens


def test_a_failed_clear_revives_the_attempt_that_was_open_and_it_completes(
    world: World, ledger: LeaseLedger, store: FaultyStore, credentials: Credentials
) -> None:
    world.log_in(lives=0)
    store.faults.before("clear", failing(DISK))

    def refresh_while_somebody_logs_out(tokens: PersistedTokens) -> PersistedTokens:
        with pytest.raises(TokenClearFailed):
            credentials.logout(KEY)
        return world.server.refresh(tokens)

    fresh = credentials.fresh(KEY, refresh_while_somebody_logs_out)
    assert fresh == world.stored()
    assert world.tags() == ["acquired", "refresh_started", "released", "restored", "refreshed"]
    events = world.events()
    assert isinstance(events[1], LeaseRefreshStarted)
    assert isinstance(events[3], LeaseRestored)
    assert events[3].attempt is not None
    assert events[3].attempt.id == events[1].attempt


def test_a_clear_that_raises_after_the_tokens_are_gone_counts_as_failed_and_nothing_is_spent(
    world: World, ledger: LeaseLedger, store: FaultyStore, credentials: Credentials
) -> None:
    world.log_in(lives=0)
    store.faults.after("clear", failing(DISK))
    with pytest.raises(TokenClearFailed):
        credentials.logout(KEY)
    assert world.store.load(KEY) is None
    store.faults.forget()
    credentials.logout(KEY)
    assert credentials.status(KEY).phase is AuthStatusPhase.UNKNOWN
    assert world.server.outcomes() == []


def test_a_login_that_came_in_between_is_not_undone_by_a_failed_clear(
    world: World, ledger: LeaseLedger, store: FaultyStore
) -> None:
    world.log_in()

    def another_login_and_a_full_disk() -> None:
        with world.open_ledger(actor="the other") as other:
            publish_token_lifecycle_acquired(other, KEY, world.server.log_in())
        raise DISK

    store.faults.before("clear", another_login_and_a_full_disk)
    with pytest.raises(TokenClearAndRestoreFailed, match="the newer state wins") as caught:
        clear_tokens_and_publish_lifecycle_released(store, ledger, KEY)
    assert caught.value.clear_error is DISK
    assert isinstance(caught.value.restore_error, LeaseTransitionError)
    assert world.tags() == ["acquired", "released", "acquired"]
    assert (ledger.snapshot(KEY).generation, ledger.snapshot(KEY).phase) == (2, AuthLeasePhase.VALID)


def test_a_login_between_the_snapshot_and_the_release_is_not_undone_to_the_one_before_it(
    world: World, ledger: LeaseLedger, store: FaultyStore
) -> None:
    world.log_in()

    def another_login() -> None:
        with world.open_ledger(actor="the other") as other:
            publish_token_lifecycle_acquired(other, KEY, world.server.log_in())

    store.faults.after("load", another_login)
    store.faults.before("clear", failing(DISK))
    with pytest.raises(TokenClearAndRestoreFailed):
        clear_tokens_and_publish_lifecycle_released(store, ledger, KEY)
    assert world.tags() == ["acquired", "acquired", "released"]


def test_a_restore_that_fails_too_leaves_the_lease_released_and_both_faults_told(
    world: World, ledger: LeaseLedger, store: FaultyStore
) -> None:
    tokens = world.log_in()
    handle = FaultyHandle(ledger)
    gone = LedgerStorageError("the ledger's disk is gone")
    handle.faults.before("restore", failing(gone))
    store.faults.before("clear", failing(DISK))
    with pytest.raises(TokenClearAndRestoreFailed) as caught:
        clear_tokens_and_publish_lifecycle_released(store, handle, KEY)
    assert (caught.value.clear_error, caught.value.restore_error) == (DISK, gone)
    assert str(DISK) in str(caught.value) and str(gone) in str(caught.value)
    assert world.stored() == tokens
    assert ledger.snapshot(KEY).phase is None


def test_a_release_that_fails_leaves_lease_and_tokens_as_they_were(
    world: World, ledger: LeaseLedger, store: FaultyStore
) -> None:
    tokens = world.log_in()
    handle = FaultyHandle(ledger)
    gone = LedgerStorageError("the ledger's disk is gone")
    handle.faults.before("release_lease", failing(gone))
    with pytest.raises(LifecycleReleaseFailed) as caught:
        clear_tokens_and_publish_lifecycle_released(store, handle, KEY)
    assert caught.value.release_error is gone
    assert store.faults.calls["clear"] == 0
    assert (world.tags(), world.stored()) == (["acquired"], tokens)


def test_tokens_that_cannot_be_read_are_cleared_before_the_release(
    world: World, ledger: LeaseLedger, credentials: Credentials
) -> None:
    world.log_in()
    world.store.path_of(KEY).write_text("torn")
    credentials.logout(KEY)
    assert not world.store.path_of(KEY).exists()
    assert world.tags() == ["acquired", "released"]


def test_tokens_that_can_be_neither_read_nor_cleared_leave_the_lease_alone(
    world: World, ledger: LeaseLedger, store: FaultyStore, credentials: Credentials
) -> None:
    world.log_in()
    torn = TokenSerializationError("torn")
    store.faults.before("load", failing(torn))
    store.faults.before("clear", failing(DISK))
    with pytest.raises(TokenLoadAndClearFailed) as caught:
        credentials.logout(KEY)
    assert (caught.value.load_error, caught.value.clear_error) == (torn, DISK)
    assert world.tags() == ["acquired"]


def test_a_logout_tells_the_server_with_the_tokens_that_were_stored(world: World, credentials: Credentials) -> None:
    tokens = world.log_in()
    credentials.logout(KEY, revoke=world.server.revoke)
    assert world.server.revoked() == [tokens.refresh_token]
    assert not world.server.holds_alive(tokens)


def test_a_server_that_cannot_be_told_does_not_stop_the_logout(world: World, credentials: Credentials) -> None:
    world.log_in()
    asked: list[AuthStatusPhase] = []

    def revoke(tokens: PersistedTokens) -> None:
        asked.append(credentials.status(KEY).phase)
        raise ConnectionError("no route")

    credentials.logout(KEY, revoke=revoke)
    assert asked == [AuthStatusPhase.UNKNOWN]
    assert world.store.load(KEY) is None


def test_a_failed_logout_tells_the_server_nothing(world: World, store: FaultyStore, credentials: Credentials) -> None:
    world.log_in()
    store.faults.before("clear", failing(DISK))
    with pytest.raises(TokenClearFailed):
        credentials.logout(KEY, revoke=world.server.revoke)
    assert world.server.revoked() == []


def test_logging_out_twice_is_no_error(world: World, credentials: Credentials) -> None:
    world.log_in()
    credentials.logout(KEY)
    credentials.logout(KEY)
    assert credentials.status(KEY).phase is AuthStatusPhase.UNKNOWN
    with pytest.raises(ReauthRequired, match="it was logged out"):
        credentials.fresh(KEY, world.server.refresh)


# Login


def test_a_login_is_one_event_and_one_save_marked_with_it(
    world: World, ledger: LeaseLedger, store: FaultyStore, credentials: Credentials
) -> None:
    tokens = world.server.log_in()
    transition = credentials.login(KEY, tokens, cause="a person", correlation_id="ticket-7")
    (recorded,) = ledger.read(KEY)
    assert isinstance(recorded.event, LeaseAcquired)
    assert (recorded.event.cause, recorded.event.correlation_id) == ("a person", "ticket-7")
    assert recorded.event.expires_at == tokens.expires_at
    assert marker_event(world.stored()) == transition.event_id == recorded.event.id
    assert store.faults.calls["save"] == 1


def test_a_first_login_whose_save_fails_is_undone_and_nobody_is_logged_in(
    world: World, ledger: LeaseLedger, store: FaultyStore, credentials: Credentials
) -> None:
    store.faults.before("save", failing(DISK))
    with pytest.raises(TokensNotSaved, match="no space left on device") as caught:
        credentials.login(KEY, world.server.log_in())
    assert caught.value.__cause__ is DISK
    assert caught.value.restore_error is None
    acquired, restored = ledger.read(KEY)
    assert isinstance(restored.event, LeaseRestored)
    assert restored.event.compensates == acquired.version
    assert credentials.status(KEY).phase is AuthStatusPhase.UNKNOWN
    assert ledger.snapshot(KEY).generation == 1


def test_a_login_over_another_whose_save_fails_leaves_the_other_in_force(
    world: World, ledger: LeaseLedger, store: FaultyStore, credentials: Credentials
) -> None:
    first = world.log_in()
    before = ledger.snapshot(KEY)
    store.faults.before("save", failing(DISK))
    with pytest.raises(TokensNotSaved):
        credentials.login(KEY, world.server.log_in())
    after = ledger.snapshot(KEY)
    assert (after.phase, after.expires_at, after.published_by) == (
        before.phase,
        before.expires_at,
        before.published_by,
    )
    assert credentials.fresh(KEY, world.server.refresh) == first


def test_a_save_that_raises_after_its_bytes_are_in_place_counts_as_saved(
    world: World, store: FaultyStore, credentials: Credentials
) -> None:
    store.faults.after("save", failing(DISK))
    tokens = world.server.log_in()
    credentials.login(KEY, tokens)
    assert world.tags() == ["acquired"]
    assert credentials.fresh(KEY, world.server.refresh).primary_secret == tokens.primary_secret


def test_a_save_whose_outcome_cannot_be_read_back_is_undone(
    world: World, store: FaultyStore, credentials: Credentials
) -> None:
    store.faults.before("save", failing(DISK))
    store.faults.before("load", failing(DISK), calls=(2,))
    with pytest.raises(TokensNotSaved):
        credentials.login(KEY, world.server.log_in())
    assert world.tags() == ["acquired", "restored"]


def test_a_login_that_cannot_be_undone_tells_both_faults_and_carries_the_tokens(
    world: World, store: FaultyStore
) -> None:
    faults = Faults()
    with LeaseLedger(FaultyRecorder(world.ledger_path, faults)) as ledger:
        store.faults.before("save", failing(DISK))
        faults.before("append", failing(LedgerStorageError("the ledger's disk is full")), calls=(2,))
        tokens = world.server.log_in()
        with pytest.raises(TokensNotSaved, match="undoing the login failed too: the ledger's disk is full") as caught:
            Credentials(ledger, store).login(KEY, tokens)
        assert caught.value.tokens == tokens
        assert isinstance(caught.value.restore_error, LedgerStorageError)
        assert CANARY not in str(caught.value)


def test_a_login_whose_event_cannot_be_stored_saves_nothing(world: World, store: FaultyStore) -> None:
    faults = Faults()
    with LeaseLedger(FaultyRecorder(world.ledger_path, faults)) as ledger:
        faults.before("append", failing(LedgerStorageError("full")))
        with pytest.raises(LedgerStorageError):
            Credentials(ledger, store).login(KEY, world.server.log_in())
    assert store.faults.calls["save"] == 0
    assert world.tags() == []


def test_a_login_on_a_store_that_cannot_be_read_records_nothing(
    world: World, store: FaultyStore, credentials: Credentials
) -> None:
    store.faults.before("load", failing(DISK))
    with pytest.raises(TokenIOError):
        credentials.login(KEY, world.server.log_in())
    assert world.tags() == []


def test_a_login_replaces_tokens_that_cannot_be_read(world: World, credentials: Credentials) -> None:
    world.log_in()
    world.store.path_of(KEY).write_text("torn")
    tokens = world.server.log_in()
    credentials.login(KEY, tokens)
    assert world.stored().primary_secret == tokens.primary_secret


def test_a_login_overrides_a_refresh_in_flight_whose_tokens_are_then_dropped(
    world: World, credentials: Credentials
) -> None:
    world.log_in(lives=0)
    newer = world.server.log_in()

    def refresh_while_somebody_logs_in(tokens: PersistedTokens) -> PersistedTokens:
        answer = world.server.refresh(tokens)
        with world.credentials() as other:
            other.login(KEY, newer)
        return answer

    fresh = credentials.fresh(KEY, refresh_while_somebody_logs_in)
    assert fresh.primary_secret == newer.primary_secret == world.stored().primary_secret
    assert world.tags() == ["acquired", "refresh_started", "acquired"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can make a file immutable")
def test_a_token_folder_that_became_immutable_stops_the_logout_and_the_login_stands(
    world: World, credentials: Credentials
) -> None:
    tokens = world.log_in()
    path = world.store.path_of(KEY)
    if os.system(f"chattr +i '{path}' 2>/dev/null") != 0:
        pytest.skip("this file system knows no immutable files")
    try:
        with pytest.raises(TokenClearFailed):
            credentials.logout(KEY)
        assert credentials.fresh(KEY, world.server.refresh) == tokens
    finally:
        os.system(f"chattr -i '{path}'")
    credentials.logout(KEY)
    assert world.tags() == ["acquired", "released", "restored", "released"]


def test_publishing_takes_the_expiry_from_the_tokens_and_releasing_ends_the_lease(
    world: World, ledger: LeaseLedger
) -> None:
    tokens = world.server.log_in(lives=HOUR_S)
    assert publish_token_lifecycle_acquired(ledger, KEY, tokens).generation == 1
    assert ledger.snapshot(KEY).expires_at == tokens.expires_at
    publish_token_lifecycle_acquired(ledger, KEY, PersistedTokens.api_key(CANARY))
    assert ledger.snapshot(KEY).expires_at is None
    publish_token_lifecycle_released(ledger, KEY)
    assert (ledger.snapshot(KEY).phase, ledger.snapshot(KEY).generation) == (None, 2)
