"""What stored tokens are to the lease, and that none but the lease's own are ever spent, cleared or replaced."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from agents import CANARY, HOUR_S, KEY, World

from ledger.credentials import Credentials
from ledger.lease_ledger import LeaseLedger
from ledger.lifecycle import TokenLifecycleClearError
from ledger.marker import (
    mark_tokens_lifecycle_published_for_generation,
    mark_tokens_lifecycle_published_for_transition,
    marker_event,
)
from ledger.provenance import Provenance, TokenClass, provenance_of
from ledger.recovery import marked_for
from ledger.refresh_errors import LedgerBehindStore, ReauthRequired, TokensElsewhere
from ledger.snapshot import AuthLeaseTransition
from ledger.status import AuthStatusPhase
from ledger.stores import FileTokenStore
from ledger.tokens import PersistedTokens


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.check()


@pytest.fixture
def credentials(world: World) -> Iterator[Credentials]:
    with world.credentials() as credentials:
        yield credentials


@pytest.fixture
def ledger(credentials: Credentials) -> LeaseLedger:
    return credentials.ledger


def never(_tokens: PersistedTokens) -> PersistedTokens:
    """A refresh function that is not to be called."""
    raise AssertionError("spent a refresh token")


def classed(ledger: LeaseLedger, tokens: PersistedTokens) -> Provenance:
    return provenance_of(ledger, KEY, ledger.state(KEY), tokens)


def marked_like_the_reference(tokens: PersistedTokens, generation: int, published_at: int) -> PersistedTokens:
    """Marked without an event, as the reference runtime does."""
    return mark_tokens_lifecycle_published_for_transition(tokens, AuthLeaseTransition(generation, published_at))


# The classes


def test_tokens_of_the_event_in_force_are_current(world: World, ledger: LeaseLedger) -> None:
    tokens = world.log_in()
    event = world.events()[-1].id
    assert classed(ledger, tokens) == Provenance(TokenClass.CURRENT, event, 1)


def test_tokens_of_an_earlier_event_are_superseded_and_name_what_replaced_them(
    world: World, ledger: LeaseLedger
) -> None:
    first = world.log_in()
    second = world.log_in()
    expected = Provenance(TokenClass.SUPERSEDED, marker_event(first), 1, superseded_by=marker_event(second))
    assert classed(ledger, first) == expected


def test_tokens_of_a_released_event_are_orphaned(world: World, credentials: Credentials, ledger: LeaseLedger) -> None:
    tokens = world.log_in()
    credentials.logout(KEY)
    assert classed(ledger, tokens).token_class is TokenClass.ORPHANED


def test_tokens_saved_by_the_open_attempt_are_unrecorded(world: World, ledger: LeaseLedger) -> None:
    tokens = world.log_in()
    attempt = ledger.begin_refresh(KEY)
    saved = marked_for(ledger.plan_publication(KEY), attempt.id, tokens)
    assert classed(ledger, saved) == Provenance(TokenClass.UNRECORDED, marker_event(saved), 2, attempt.id)


def test_tokens_saved_by_an_attempt_that_was_taken_over_are_unrecorded_until_something_newer_comes(
    world: World, ledger: LeaseLedger
) -> None:
    tokens = world.log_in()
    attempt = ledger.begin_refresh(KEY)
    saved = marked_for(ledger.plan_publication(KEY), attempt.id, tokens)
    ledger.refresh_failed(KEY, False, attempt=attempt, abandoned=True)
    assert classed(ledger, saved).token_class is TokenClass.UNRECORDED
    world.log_in()
    assert classed(ledger, saved).token_class is TokenClass.SUPERSEDED
    ledger.release_lease(KEY)
    assert classed(ledger, saved).token_class is TokenClass.ORPHANED


def test_tokens_of_an_event_never_seen_here_are_foreign_or_ahead(world: World, ledger: LeaseLedger) -> None:
    tokens = world.log_in()
    for generation, expected in ((1, TokenClass.FOREIGN), (2, TokenClass.AHEAD)):
        strange = mark_tokens_lifecycle_published_for_transition(
            tokens, AuthLeaseTransition(generation, 5, event_id="e" * 32, attempt="a" * 32)
        )
        assert classed(ledger, strange) == Provenance(expected, "e" * 32, generation)


def test_tokens_without_a_marker_are_unmarked(world: World, ledger: LeaseLedger) -> None:
    world.log_in()
    assert classed(ledger, PersistedTokens.api_key(CANARY)) == Provenance(TokenClass.UNMARKED)
    assert classed(ledger, world.server.log_in()) == Provenance(TokenClass.UNMARKED)


def test_tokens_of_the_reference_are_told_by_generation_and_time(world: World, ledger: LeaseLedger) -> None:
    tokens = world.server.log_in()
    first = ledger.acquire_lease(KEY, 5)
    second = ledger.acquire_lease(KEY, 6)

    def told(generation: int, published_at: int) -> TokenClass:
        return classed(ledger, marked_like_the_reference(tokens, generation, published_at)).token_class

    assert told(2, second.credential_published_at_millis) is TokenClass.CURRENT
    assert told(1, first.credential_published_at_millis) is TokenClass.SUPERSEDED
    assert told(2, second.credential_published_at_millis + 1) is TokenClass.SUPERSEDED
    assert told(3, second.credential_published_at_millis + 1) is TokenClass.AHEAD
    only_a_generation = mark_tokens_lifecycle_published_for_generation(tokens, 2)
    assert classed(ledger, only_a_generation).token_class is TokenClass.UNMARKED
    ledger.release_lease(KEY)
    assert told(1, first.credential_published_at_millis) is TokenClass.ORPHANED
    # Without an event there is no proof that just this publication was released.
    assert told(2, second.credential_published_at_millis) is TokenClass.UNMARKED


def test_current_goes_by_the_event_and_not_by_the_generation(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one, two = World(tmp_path / "one"), World(tmp_path / "two")
    tokens = one.log_in()
    two.log_in()
    with two.open_ledger() as ledger:
        assert ledger.state(KEY).generation == 1
        assert classed(ledger, tokens).token_class is TokenClass.FOREIGN


def test_a_restore_makes_the_tokens_it_brings_back_current_again(world: World, ledger: LeaseLedger) -> None:
    tokens = world.log_in()
    before = ledger.snapshot(KEY)
    ledger.release_lease(KEY)
    assert classed(ledger, tokens).token_class is TokenClass.ORPHANED
    ledger.restore_auth_lifecycle_snapshot(KEY, before)
    assert classed(ledger, tokens).token_class is TokenClass.CURRENT


# What is done with them


def test_superseded_tokens_are_never_spent_and_stay_where_they_are(tmp_path: Path, world: World) -> None:
    world.log_in(lives=0)
    elsewhere = FileTokenStore(tmp_path / "another machine")
    elsewhere.save(KEY, world.stored())
    with world.credentials() as credentials:
        credentials.fresh(KEY, world.server.refresh)
    old = elsewhere.load(KEY)
    with world.credentials(store=elsewhere) as credentials:
        with pytest.raises(
            TokensElsewhere, match="tokens of generation 2 of dev:openai:work are not in this"
        ) as caught:
            credentials.fresh(KEY, never)
        assert (caught.value.key, caught.value.generation) == (KEY, 2)
    assert elsewhere.load(KEY) == old
    assert world.tags() == ["acquired", "refresh_started", "refreshed"]


def test_a_store_that_holds_nothing_says_where_the_tokens_are_not(tmp_path: Path, world: World) -> None:
    world.log_in()
    with (
        world.credentials(store=FileTokenStore(tmp_path / "another machine")) as credentials,
        pytest.raises(TokensElsewhere),
    ):
        credentials.fresh(KEY, never)
    assert world.tags() == ["acquired"]


def test_foreign_tokens_are_neither_spent_nor_cleared(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one, two = World(tmp_path / "one"), World(tmp_path / "two")
    one.log_in(lives=0)
    two.log_in(lives=0)
    foreign = one.stored()
    two.store.save(KEY, foreign)
    with two.credentials() as credentials, pytest.raises(TokensElsewhere):
        credentials.fresh(KEY, never)
    assert two.stored() == foreign
    assert one.server.outcomes() == two.server.outcomes() == []


def test_orphaned_tokens_are_cleared_by_the_next_use_and_never_spent(world: World, credentials: Credentials) -> None:
    world.log_in(lives=0)
    credentials.ledger.release_lease(KEY)
    with pytest.raises(ReauthRequired, match="it was logged out"):
        credentials.fresh(KEY, never)
    assert world.store.load(KEY) is None


def test_unrecorded_tokens_are_recorded_by_the_next_use_under_the_event_their_marker_names(
    world: World, credentials: Credentials
) -> None:
    world.log_in(lives=0)
    ledger = credentials.ledger
    spent = world.stored()
    attempt = ledger.begin_refresh(KEY, fingerprint=ledger.fingerprint(spent.refresh_token or ""))
    saved = marked_for(ledger.plan_publication(KEY), attempt.id, world.server.refresh(spent))
    world.store.save(KEY, saved)
    assert credentials.fresh(KEY, never) == saved
    assert ledger.state(KEY).published_by == marker_event(saved)
    assert world.tags() == ["acquired", "refresh_started", "refreshed"]


def test_unmarked_tokens_with_an_expiry_are_refreshed_once_by_all(world: World, credentials: Credentials) -> None:
    old = PersistedTokens(
        "command",
        primary_secret=f"{CANARY}-old",
        expires_at=int(time.time()),
    )
    new = msgspec.structs.replace(old, primary_secret=f"{CANARY}-new", expires_at=int(time.time()) + HOUR_S)
    credentials.login(KEY, old)
    assert credentials.fresh(KEY, lambda _tokens: new) == new == world.stored()
    assert credentials.fresh(KEY, never) == new
    assert world.tags() == ["acquired", "refresh_started", "refreshed"]


def test_unmarked_tokens_give_no_login_to_a_lease_that_has_none(world: World, credentials: Credentials) -> None:
    world.store.save(KEY, PersistedTokens.api_key(CANARY))
    with pytest.raises(ReauthRequired):
        credentials.fresh(KEY, never)
    assert credentials.status(KEY).phase is AuthStatusPhase.UNKNOWN
    assert world.store.load(KEY) == PersistedTokens.api_key(CANARY)


# A restored backup of the ledger


@pytest.fixture
def older_ledger(world: World) -> Iterator[Credentials]:
    """Credentials on an older copy of the ledger file, beside the store that went on without it."""
    world.log_in(lives=0)
    copy = world.folder / "backup" / "auth.db"
    copy.parent.mkdir()
    with world.open_ledger() as ledger:
        ledger.recorder.close()  # so that the file alone holds everything
    shutil.copy(world.ledger_path, copy)
    with world.credentials() as credentials:
        credentials.fresh(KEY, world.server.refresh)
        credentials.fresh(KEY, world.server.refresh, rejected=world.stored())
    with LeaseLedger.open(f"sqlite:///{copy}") as older:
        yield Credentials(older, world.store)


def test_an_older_ledger_spends_and_clears_nothing_and_says_what_is_the_matter(
    world: World, older_ledger: Credentials
) -> None:
    newest = world.stored()
    with pytest.raises(LedgerBehindStore, match="up to generation 1, the stored tokens are of 3") as caught:
        older_ledger.fresh(KEY, never, rejected=newest)
    assert (caught.value.ledger_generation, caught.value.store_generation) == (1, 3)
    assert world.stored() == newest
    assert [event.event.tag for event in older_ledger.ledger.read(KEY)] == ["lease.acquired"]
    assert world.server.holds_alive(newest)


def test_a_logout_with_an_older_ledger_does_not_destroy_the_newer_login(
    world: World, older_ledger: Credentials
) -> None:
    newest = world.stored()
    with pytest.raises(LedgerBehindStore):
        older_ledger.logout(KEY, revoke=world.server.revoke)
    assert world.stored() == newest
    assert world.server.revoked() == []
    with world.credentials() as credentials:
        assert credentials.fresh(KEY, never) == newest


def test_an_older_ledger_goes_on_with_a_new_login(world: World, older_ledger: Credentials) -> None:
    tokens = world.server.log_in()
    older_ledger.login(KEY, tokens)
    assert older_ledger.fresh(KEY, never).primary_secret == tokens.primary_secret
    older_ledger.logout(KEY)
    assert world.store.load(KEY) is None


def test_a_logout_still_clears_tokens_that_are_merely_foreign(world: World, credentials: Credentials) -> None:
    world.log_in()
    foreign = mark_tokens_lifecycle_published_for_transition(
        world.server.log_in(), AuthLeaseTransition(1, 5, event_id="e" * 32)
    )
    world.store.save(KEY, foreign)
    credentials.logout(KEY)
    assert world.store.load(KEY) is None


def test_being_behind_the_store_is_no_failed_logout() -> None:
    assert not issubclass(LedgerBehindStore, TokenLifecycleClearError)
