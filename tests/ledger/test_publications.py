"""Generations count and publication times grow, whatever the clock does, up to the last of 64 bits."""

import pytest
from given import GUARD, HERE, HOLDER, given, told

from ledger.commands import Acquire, CompleteRefresh, Publication, Release
from ledger.events import LeaseAcquired, LeaseEvent, LeaseRefreshed, LeaseRefreshStarted, LeaseRestored, RestoredLease
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.snapshot import MAX_U64, AuthLeasePhase

KEY = LeaseKey.parse("dev:openai:work")


def _published(generation: int, at: int) -> LeaseEvent:
    return told(LeaseAcquired, generation=generation, published_at=at)


@pytest.mark.parametrize(
    ("latest", "now", "published"),
    [
        (100, 101, 101),
        (100, 5_000, 5_000),
        (100, 100, 101),
        (100, 3, 101),
        (MAX_U64 - 1, 3, MAX_U64),
        (MAX_U64, 3, MAX_U64),
        (100, MAX_U64, MAX_U64),
    ],
)
def test_a_publication_is_later_than_every_earlier_one(latest: int, now: int, published: int) -> None:
    stream = given(_published(1, latest))
    stream.when(Acquire(None), at=now).then(_published(2, published))


def test_the_first_publication_has_generation_one_and_the_time_of_the_clock() -> None:
    given().when(Acquire(500), at=42).then(told(LeaseAcquired, generation=1, expires_at=500, published_at=42))


def test_the_first_publication_at_time_zero_is_moved_past_it() -> None:
    given().when(Acquire(None), at=0).then(_published(1, 1))


def test_a_generation_at_the_last_number_stays_there() -> None:
    stream = given(_published(MAX_U64, 7))
    state = stream.when(Acquire(None), at=8).then(_published(MAX_U64, 8))
    assert (state.generation, state.published_by) == (MAX_U64, "e2")


def test_a_release_keeps_the_generation_and_drops_the_publication_time() -> None:
    stream = given(_published(3, 7))
    released = stream.when(Release()).state
    assert (released.generation, released.published_at, released.published_by) == (3, None, None)
    assert released.latest_published_at == 7


def test_the_next_login_continues_the_count_and_the_times() -> None:
    released = given(_published(3, 700)).when(Release())
    stream = given(_published(3, 700), released.result)  # type: ignore[arg-type]
    stream.when(Acquire(None), at=1).then(_published(4, 701))


def test_a_publication_time_brought_back_by_a_restore_counts_as_had() -> None:
    lease = RestoredLease(2, AuthLeasePhase.VALID, None, True, 10)
    stream = given(_published(1, 900), _published(2, 950), told(LeaseRestored, snapshot=lease))
    assert stream.state.published_at == 10
    stream.when(Acquire(None), at=20).then(_published(3, 951))
    ahead = RestoredLease(2, AuthLeasePhase.VALID, None, True, 5_000)
    given(_published(1, 9), told(LeaseRestored, snapshot=ahead)).when(Acquire(None)).then(_published(3, 5_001))


def test_a_refresh_publishes_like_a_login() -> None:
    started = told(LeaseRefreshStarted, attempt="e2", duration_ms=1, holder=HOLDER)
    stream = given(_published(1, 100), started)
    refreshed = told(LeaseRefreshed, generation=2, expires_at=9, published_at=101, refreshed_at=8, attempt="e2")
    assert stream.when(CompleteRefresh(9, 8, HERE), at=50).then(refreshed).published_by == "e3"


def test_a_planned_publication_is_recorded_as_planned() -> None:
    plan = Publication("chosen", 2, 777)
    given(_published(1, 100)).when(Acquire(None, plan), at=500).then(_published(2, 777))


@pytest.mark.parametrize("plan", [Publication("p", 1, 500), Publication("p", 3, 500), Publication("p", 2, 100)])
def test_a_plan_that_is_no_longer_the_next_one_is_refused(plan: Publication) -> None:
    given(_published(1, 100)).when(Acquire(None, plan), at=500).then(GUARD)


def test_a_plan_works_at_the_last_publication_time_too() -> None:
    given(_published(1, MAX_U64)).when(Acquire(None, Publication("p", 2, MAX_U64))).then(_published(2, MAX_U64))


def test_what_was_planned_is_what_the_ledger_returns_and_records_once() -> None:
    with LeaseLedger.open("memory://", clock=lambda: 50) as ledger:
        plan = ledger.plan_publication(KEY)
        transition = ledger.acquire_lease(KEY, 500, publication=plan)
        assert (transition.event_id, transition.generation, transition.credential_published_at_millis) == (
            plan.event_id,
            plan.generation,
            plan.published_at_ms,
        )
        assert ledger.snapshot(KEY).published_by == plan.event_id
        with pytest.raises(Exception, match="marked for generation 1, but the next one is 2"):
            ledger.acquire_lease(KEY, 500, publication=plan)
        assert [recorded.event.id for recorded in ledger.read(KEY)] == [plan.event_id]
