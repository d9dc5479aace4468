"""What a type checker tells users of a ledger, its events, its errors and its guard. It also runs."""

from collections.abc import Iterator, Sequence
from typing import assert_type

import pytest

from ledger import (
    AuthLeasePhase,
    AuthLeaseSnapshot,
    AuthLeaseTransition,
    AuthStatusPhase,
    Checkpoint,
    Finding,
    Holder,
    IdentityError,
    LeaseAcquired,
    LeaseEvent,
    LeaseKey,
    LeaseLedger,
    LeaseReleased,
    LeaseState,
    LeaseTransitionError,
    LoginGuard,
    RecordedEvent,
    RefreshAttempt,
    Verification,
    acquire_auth_login_lifecycle_guard,
)

KEY = LeaseKey.parse("dev:openai:work")


def test_a_ledger() -> None:
    assert_type(KEY, LeaseKey)
    assert_type(KEY.profile, str | None)
    with LeaseLedger.open("memory://") as ledger:
        assert_type(ledger, LeaseLedger)
        assert_type(ledger.acquire_lease(KEY, 2_000_000_000), AuthLeaseTransition)
        attempt = ledger.begin_refresh(KEY)
        assert_type(attempt, RefreshAttempt)
        published = ledger.complete_refresh(KEY, 2_000_000_000, 1_900_000_000, attempt)
        assert_type(published.generation, int)
        assert_type(published.event_id, str | None)
        assert_type(ledger.keys(), Sequence[LeaseKey])
        assert_type(ledger.ledger_id, str)
        assert_type(ledger.find(KEY, "no such id"), RecordedEvent | None)
        state = ledger.state(KEY)
        assert_type(state, LeaseState)
        assert_type(state.phase, AuthLeasePhase | None)
        snapshot = ledger.snapshot(KEY)
        assert_type(snapshot, AuthLeaseSnapshot)
        assert_type(snapshot.expires_at, int | None)
        verification = ledger.verify()
        assert_type(verification, Verification)
        assert_type(verification.ok, bool)
        assert_type(verification.findings, tuple[Finding, ...])
        assert_type(ledger.checkpoint(), Checkpoint)


def test_recorded_events_are_told_apart_by_their_class() -> None:
    with LeaseLedger.open("memory://") as ledger:
        ledger.acquire_lease(KEY, 2_000_000_000)
        ledger.release_lease(KEY)
        assert_type(ledger.read(KEY), Iterator[RecordedEvent])
        for recorded in ledger.read_all():
            assert_type(recorded.key, LeaseKey)
            assert_type(recorded.position, int)
            assert_type(recorded.event, LeaseEvent)
            assert_type(recorded.event.tag, str)
            match recorded.event:
                case LeaseAcquired(generation=generation, published_at=published_at):
                    assert_type((generation, published_at), tuple[int, int])
                case LeaseReleased(cause=cause):
                    assert_type(cause, str | None)
                case _:
                    raise AssertionError(recorded)


def test_a_phase_goes_by_its_plain_name_as_well() -> None:
    snapshot = AuthLeaseSnapshot("expiring", 2_000_000_000, credential_present=True)
    assert_type(snapshot.phase, AuthLeasePhase | None)
    assert_type(AuthStatusPhase.from_lease_phase("valid"), AuthStatusPhase)
    assert snapshot == AuthLeaseSnapshot(AuthLeasePhase.EXPIRING, 2_000_000_000, True)
    with pytest.raises(ValueError):
        AuthStatusPhase.from_lease_phase("gone")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_a_refusal_carries_what_it_is_about() -> None:
    with LeaseLedger.open("memory://") as ledger, pytest.raises(LeaseTransitionError) as refusal:
        ledger.mark_expiring(KEY)
    match refusal.value.kind:
        case "no_matching_transition":
            assert_type(refusal.value.reason, str)
        case "guard_rejected":
            raise AssertionError(refusal.value)
    with pytest.raises(IdentityError) as no_key:
        LeaseKey.parse("")
    assert_type(no_key.value.character, str | None)


def test_a_guard_for_threads() -> None:
    with LeaseLedger.open("memory://") as ledger:
        with acquire_auth_login_lifecycle_guard(KEY, ledger=ledger) as guard:
            assert_type(guard, LoginGuard)
            assert_type(guard.key, LeaseKey)
        assert_type(Holder("host", "boot", 7).pid, int)


@pytest.mark.anyio
async def test_a_guard_for_tasks() -> None:
    async with acquire_auth_login_lifecycle_guard(KEY, timeout_s=1) as guard:
        assert_type(guard, LoginGuard)
