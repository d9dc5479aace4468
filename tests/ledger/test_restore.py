"""Restores: every phase from every phase, never a lower generation, and never over something newer."""

import itertools
from collections.abc import Iterator

import pytest
from given import GUARD, HOLDER, given, open_attempt, told

from ledger.commands import Restore
from ledger.errors import LeaseTransitionError
from ledger.events import (
    LeaseAcquired,
    LeaseEvent,
    LeaseExpiring,
    LeaseReauthRequired,
    LeaseRefreshStarted,
    LeaseReleased,
    LeaseRestored,
    RestoredLease,
)
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.snapshot import MAX_U64, NEVER_EXPIRES, AuthLeasePhase, AuthLeaseSnapshot

KEY = LeaseKey.parse("dev:openai:work")
OTHER = LeaseKey.parse("dev:openai:home")
LIVE_PHASES = [AuthLeasePhase.VALID, AuthLeasePhase.EXPIRING, AuthLeasePhase.REFRESHING, AuthLeasePhase.REAUTH_REQUIRED]

ACQUIRED = told(LeaseAcquired, generation=4, expires_at=500, published_at=40)
HISTORIES: list[tuple[LeaseEvent, ...]] = [
    (),
    (ACQUIRED, told(LeaseReleased)),
    (ACQUIRED,),
    (ACQUIRED, told(LeaseExpiring)),
    (ACQUIRED, told(LeaseRefreshStarted, attempt="e2", duration_ms=1, holder=HOLDER)),
    (ACQUIRED, told(LeaseReauthRequired)),
]


@pytest.mark.parametrize("generation", [0, 4, 9, MAX_U64])
@pytest.mark.parametrize("phase", LIVE_PHASES)
@pytest.mark.parametrize("history", HISTORIES)
def test_a_live_snapshot_is_restored_into_every_phase_from_every_phase(
    history: tuple[LeaseEvent, ...], phase: AuthLeasePhase, generation: int
) -> None:
    stream = given(*history)
    kept = max(generation, stream.state.generation)
    state = stream.when(Restore(phase, 700, True, generation, 30)).then(
        told(LeaseRestored, snapshot=RestoredLease(kept, phase, 700, True, 30))
    )
    assert (state.phase, state.expires_at, state.credential_present) == (phase, 700, True)
    assert (state.generation, state.published_at) == (kept, 30)


@pytest.mark.parametrize(
    ("phase", "present"),
    [
        (None, True),
        (AuthLeasePhase.RELEASED, True),
        (None, False),
        *((phase, False) for phase in AuthLeasePhase),
    ],
)
@pytest.mark.parametrize("history", HISTORIES)
def test_a_snapshot_without_a_live_credential_clears_the_lease(
    history: tuple[LeaseEvent, ...], phase: AuthLeasePhase | None, present: bool
) -> None:
    stream = given(*history)
    for generation in (0, 4, 9):
        kept = max(generation, stream.state.generation)
        state = stream.when(Restore(phase, 700, present, generation, 30)).then(
            told(LeaseRestored, snapshot=RestoredLease(kept))
        )
        assert (state.phase, state.expires_at, state.credential_present) == (None, None, False)
        assert (state.generation, state.published_at) == (kept, None)


def test_a_restore_that_undoes_an_event_is_refused_when_anything_came_after_it() -> None:
    stream = given(ACQUIRED, told(LeaseReleased))
    valid = Restore(AuthLeasePhase.VALID, 500, True, 4, 40, compensates=2)
    assert stream.when(valid).state.phase == "valid"
    given(ACQUIRED, told(LeaseReleased), ACQUIRED).when(valid).then(GUARD)
    given(ACQUIRED, told(LeaseReleased), told(LeaseReleased)).when(valid).then(GUARD)
    given(ACQUIRED).when(valid).then(GUARD)


@pytest.fixture
def ledger() -> Iterator[LeaseLedger]:
    times = itertools.count(1_000)
    with LeaseLedger.open("memory://", clock=lambda: next(times), actor="tester") as opened:
        yield opened


@pytest.mark.parametrize(
    ("argument", "own", "restored"),
    [
        (700, 500, 700),
        (0, 500, 0),
        (None, 500, 500),
        (None, None, None),
        (NEVER_EXPIRES, 500, None),
        (None, MAX_U64, None),
    ],
)
def test_the_expiry_argument_wins_and_without_one_the_snapshots_own_comes_back(
    ledger: LeaseLedger, argument: int | None, own: int | None, restored: int | None
) -> None:
    snapshot = AuthLeaseSnapshot(AuthLeasePhase.VALID, own, True, 2, 30)
    ledger.restore_auth_lifecycle_snapshot(KEY, snapshot, argument)
    assert ledger.snapshot(KEY) == AuthLeaseSnapshot(AuthLeasePhase.VALID, restored, True, 2, 30)


def test_a_snapshot_without_a_publication_time_restores_none(ledger: LeaseLedger) -> None:
    ledger.acquire_lease(KEY, 500)
    ledger.restore_auth_lifecycle_snapshot(KEY, AuthLeaseSnapshot(AuthLeasePhase.EXPIRING, 9, True, 1))
    assert ledger.snapshot(KEY).credential_published_at_millis is None


def test_a_restore_names_what_it_undoes_and_brings_the_publishing_event_back(ledger: LeaseLedger) -> None:
    login = ledger.acquire_lease(KEY, 500)
    before = ledger.snapshot(KEY)
    ledger.release_lease(KEY)
    ledger.restore_auth_lifecycle_snapshot(KEY, before, compensates=2)
    event = [recorded.event for recorded in ledger.read(KEY)][-1]
    assert isinstance(event, LeaseRestored)
    assert (event.compensates, event.captured_at_version, event.published_by) == (2, 1, login.event_id)
    assert ledger.snapshot(KEY) == before
    assert ledger.snapshot(KEY).published_by == login.event_id


def test_a_plain_snapshot_finds_the_event_that_had_published_it(ledger: LeaseLedger) -> None:
    """One that was written down and read again knows no version; its publication time names the event."""
    first = ledger.acquire_lease(KEY, 500)
    taken = ledger.snapshot(KEY)
    plain = AuthLeaseSnapshot(
        taken.phase,
        taken.expires_at,
        taken.credential_present,
        taken.generation,
        taken.credential_published_at_millis,
    )
    ledger.acquire_lease(KEY, 600)
    ledger.restore_auth_lifecycle_snapshot(KEY, plain)
    assert ledger.snapshot(KEY).published_by == first.event_id


def test_a_snapshot_of_another_lease_brings_back_no_event_of_this_one(ledger: LeaseLedger) -> None:
    """Both leases were refreshing at their second version, but it is the other one's moment that comes back."""
    for key, expires_at in ((KEY, 500), (OTHER, 600)):
        ledger.acquire_lease(key, expires_at)
        ledger.begin_refresh(key)
    ledger.refresh_failed(KEY, False)
    ledger.restore_auth_lifecycle_snapshot(KEY, ledger.snapshot(OTHER))
    state, event = ledger.state(KEY), list(ledger.read(KEY))[-1].event
    assert isinstance(event, LeaseRestored)
    assert (state.phase, state.expires_at) == (AuthLeasePhase.REFRESHING, 600)
    assert (state.attempt, state.published_by, event.captured_at_version) == (None, None, None)


def test_a_compensating_restore_revives_the_attempt_that_was_open(ledger: LeaseLedger) -> None:
    ledger.acquire_lease(KEY, 500)
    attempt = ledger.begin_refresh(KEY)
    before = ledger.snapshot(KEY)
    ledger.release_lease(KEY)
    with pytest.raises(LeaseTransitionError) as refused:
        ledger.complete_refresh(KEY, 900, 800, attempt)
    assert refused.value.kind == "no_matching_transition"
    ledger.restore_auth_lifecycle_snapshot(KEY, before, compensates=3)
    state = ledger.state(KEY)
    assert state.attempt is not None
    assert (state.attempt.id, state.refreshing_since) == (attempt.id, 4)
    assert ledger.complete_refresh(KEY, 900, 800, attempt).generation == 2


def test_a_refused_restore_leaves_the_newer_login_alone(ledger: LeaseLedger) -> None:
    ledger.acquire_lease(KEY, 500)
    before = ledger.snapshot(KEY)
    ledger.release_lease(KEY)
    ledger.acquire_lease(KEY, 600)
    newer = ledger.snapshot(KEY)
    with pytest.raises(LeaseTransitionError, match="the newer state wins") as refused:
        ledger.restore_auth_lifecycle_snapshot(KEY, before, compensates=2)
    assert refused.value.kind == "guard_rejected"
    assert (ledger.snapshot(KEY), len(list(ledger.read(KEY)))) == (newer, 3)


def test_an_unknown_attempt_never_looks_like_a_known_one() -> None:
    stream = given(told(LeaseRestored, snapshot=RestoredLease(1, AuthLeasePhase.REFRESHING, 9, True, 5)))
    assert (stream.state.attempt, stream.state.refreshing_since) == (None, 1)
    known = told(
        LeaseRestored,
        snapshot=RestoredLease(1, AuthLeasePhase.REFRESHING, 9, True, 5),
        attempt=open_attempt("e0"),
    )
    assert given(known).state.attempt == open_attempt("e0")
