"""Refresh attempts: one is open, only its holder completes it, and a superseded one changes nothing any more."""

from collections.abc import Callable, Iterator

import pytest

from ledger.errors import LeaseTransitionError
from ledger.events import AttemptEnd, LeaseAcquired, LeaseRefreshed, LeaseRefreshFailed
from ledger.handle import RefreshAttempt
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.recorders.memory import MemoryLeaseRecorder
from ledger.snapshot import AuthLeasePhase, AuthLeaseSnapshot

KEY = LeaseKey.parse("dev:openai:work")


@pytest.fixture
def pair() -> Iterator[tuple[LeaseLedger, LeaseLedger]]:
    """Two ledger objects on one log, as two processes would have them, with a login in it."""
    recorder = MemoryLeaseRecorder("11" * 16)
    with LeaseLedger(recorder, actor="mine") as mine, LeaseLedger(recorder, actor="theirs") as theirs:
        mine.acquire_lease(KEY, 500)
        yield mine, theirs


def _refused(action: Callable[[], object]) -> str:
    with pytest.raises(LeaseTransitionError) as refused:
        action()
    return refused.value.kind


def _complete(ledger: LeaseLedger, attempt: RefreshAttempt | str | None) -> Callable[[], object]:
    return lambda: ledger.complete_refresh(KEY, 900, 800, attempt)


def _fail(ledger: LeaseLedger, attempt: RefreshAttempt | str | None) -> Callable[[], object]:
    return lambda: ledger.refresh_failed(KEY, False, attempt=attempt)


END = pytest.mark.parametrize("end", [_complete, _fail], ids=["complete", "fail"])


def test_of_two_that_ask_one_wins(pair: tuple[LeaseLedger, LeaseLedger]) -> None:
    mine, theirs = pair
    mine.begin_refresh(KEY)
    assert _refused(lambda: theirs.begin_refresh(KEY)) == "guard_rejected"


def test_an_attempt_names_the_event_that_began_it(pair: tuple[LeaseLedger, LeaseLedger]) -> None:
    mine, theirs = pair
    attempt = mine.begin_refresh(KEY, duration_ms=5)
    event = list(theirs.read(KEY))[-1].event
    assert (attempt.id, attempt.version, attempt.started_at_ms, attempt.duration_ms) == (event.id, 2, event.at, 5)


@END
def test_no_attempt_means_the_one_this_ledger_object_has_open(
    pair: tuple[LeaseLedger, LeaseLedger], end: Callable[..., Callable[[], object]]
) -> None:
    mine, theirs = pair
    mine.begin_refresh(KEY)
    assert (mine.owns(mine.state(KEY)), theirs.owns(theirs.state(KEY))) == (True, False)
    assert _refused(end(theirs, None)) == "guard_rejected"
    end(mine, None)()
    assert mine.snapshot(KEY).phase != AuthLeasePhase.REFRESHING


@END
@pytest.mark.parametrize("named", [lambda attempt: attempt, lambda attempt: attempt.id], ids=["object", "id"])
def test_whoever_names_the_open_attempt_may_end_it(
    pair: tuple[LeaseLedger, LeaseLedger],
    end: Callable[..., Callable[[], object]],
    named: Callable[[RefreshAttempt], RefreshAttempt | str],
) -> None:
    mine, theirs = pair
    attempt = mine.begin_refresh(KEY)
    end(theirs, named(attempt))()
    event = list(mine.read(KEY))[-1].event
    assert isinstance(event, LeaseRefreshed | LeaseRefreshFailed)
    assert event.attempt == attempt.id


def _failure(ledger: LeaseLedger) -> LeaseRefreshFailed:
    event = list(ledger.read(KEY))[-1].event
    assert isinstance(event, LeaseRefreshFailed)
    return event


@pytest.mark.parametrize("ended", [*AttemptEnd, None])
def test_how_an_attempt_ended_is_in_its_event_and_in_the_state(
    pair: tuple[LeaseLedger, LeaseLedger], ended: AttemptEnd | None
) -> None:
    mine, theirs = pair
    mine.begin_refresh(KEY)
    mine.refresh_failed(KEY, False, ended=None if ended is None else str(ended))
    last = theirs.state(KEY).last_failure
    assert last is not None
    assert (_failure(theirs).ended, last.ended) == (ended, ended)
    assert _failure(theirs).abandoned == last.abandoned == (ended is AttemptEnd.ABANDONED)


def test_an_attempt_that_others_close_ended_abandoned(pair: tuple[LeaseLedger, LeaseLedger]) -> None:
    mine, theirs = pair
    theirs.refresh_failed(KEY, False, attempt=mine.begin_refresh(KEY), abandoned=True)
    assert _failure(mine).ended is AttemptEnd.ABANDONED


@END
def test_an_attempt_taken_over_is_refused_and_the_new_one_goes_on(
    pair: tuple[LeaseLedger, LeaseLedger], end: Callable[..., Callable[[], object]]
) -> None:
    mine, theirs = pair
    old = mine.begin_refresh(KEY)
    theirs.refresh_failed(KEY, False, attempt=old, abandoned=True)
    new = theirs.begin_refresh(KEY)
    assert _refused(end(mine, old)) == "guard_rejected"
    assert _refused(end(mine, None)) == "guard_rejected"
    assert theirs.complete_refresh(KEY, 900, 800, new).generation == 2


@END
def test_an_attempt_is_refused_after_a_login_and_after_a_logout(
    pair: tuple[LeaseLedger, LeaseLedger], end: Callable[..., Callable[[], object]]
) -> None:
    mine, theirs = pair
    attempt = mine.begin_refresh(KEY)
    theirs.acquire_lease(KEY, 700)
    assert _refused(end(mine, attempt)) == "guard_rejected"
    theirs.release_lease(KEY)
    assert _refused(end(mine, attempt)) == "no_matching_transition"
    assert len(list(mine.read(KEY))) == 4


@END
def test_an_attempt_nobody_knows_may_be_ended_by_anyone(
    pair: tuple[LeaseLedger, LeaseLedger], end: Callable[..., Callable[[], object]]
) -> None:
    """A restore brought ``refreshing`` back from a snapshot that no ledger here had taken."""
    mine, theirs = pair
    mine.restore_auth_lifecycle_snapshot(KEY, AuthLeaseSnapshot(AuthLeasePhase.REFRESHING, 500, True, 1, 7))
    end(theirs, None)()
    assert theirs.snapshot(KEY).phase != AuthLeasePhase.REFRESHING


def test_an_attempt_past_its_duration_may_still_complete(pair: tuple[LeaseLedger, LeaseLedger]) -> None:
    mine, _ = pair
    attempt = mine.begin_refresh(KEY, duration_ms=0)
    assert mine.complete_refresh(KEY, 900, 800, attempt).attempt == attempt.id


def test_a_late_response_is_recorded_as_a_login_that_names_its_attempt(
    pair: tuple[LeaseLedger, LeaseLedger],
) -> None:
    mine, theirs = pair
    attempt = mine.begin_refresh(KEY)
    theirs.refresh_failed(KEY, False, attempt=attempt, abandoned=True)
    transition = mine.acquire_lease(KEY, 900, attempt=attempt.id)
    event = list(mine.read(KEY))[-1].event
    assert isinstance(event, LeaseAcquired)
    assert transition.attempt == event.attempt == attempt.id


def test_a_decision_to_refresh_what_has_changed_since_is_refused(pair: tuple[LeaseLedger, LeaseLedger]) -> None:
    mine, theirs = pair
    seen = mine.snapshot(KEY).version
    theirs.mark_expiring(KEY)
    assert _refused(lambda: mine.begin_refresh(KEY, at_version=seen)) == "guard_rejected"
    mine.begin_refresh(KEY, at_version=mine.snapshot(KEY).version)


def test_an_attempt_of_a_closed_ledger_object_is_not_the_next_ones_own() -> None:
    recorder = MemoryLeaseRecorder("11" * 16)
    LeaseLedger(recorder).acquire_lease(KEY, 500)
    LeaseLedger(recorder).begin_refresh(KEY)
    assert _refused(_complete(LeaseLedger(recorder), None)) == "guard_rejected"
