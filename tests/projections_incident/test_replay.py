"""Stepping through an incident, and replaying it as it was not."""

import itertools
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.commands import MarkReauthRequired, Release
from ledger.errors import LeaseTransitionError
from ledger.events import LeaseRefreshed
from ledger.handle import RefreshAttempt
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.snapshot import AuthLeasePhase
from projections.incident import (
    Change,
    Incident,
    Insertion,
    NoSuchCondition,
    NoSuchStep,
    parse_condition,
)

KEY = LeaseKey.parse("dev:openai:work")
OTHER = LeaseKey.parse("dev:github")


class Moving:
    """A clock that is told where to go."""

    ms = 1_000_000

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def clock() -> Moving:
    return Moving()


@pytest.fixture
def ledger(clock: Moving) -> Iterator[LeaseLedger]:
    with LeaseLedger.open("memory://", clock=clock, actor="agent") as ledger:
        yield ledger


@pytest.fixture
def attempt(ledger: LeaseLedger, clock: Moving) -> RefreshAttempt:
    """Positions: 1 login, 2 another lease's login, 3 refresh begun, 4 done, an hour back; 5 logout, 6 undone."""
    ledger.acquire_lease(KEY, 5_000)
    ledger.acquire_lease(OTHER, 6_000)
    attempt = ledger.begin_refresh(KEY)
    clock.ms -= 3_600
    ledger.complete_refresh(KEY, 9_000, 1_000)
    before = ledger.snapshot(KEY)
    ledger.release_lease(KEY)
    ledger.restore_auth_lifecycle_snapshot(KEY, before, compensates=4)
    return attempt


@pytest.fixture
def incident(ledger: LeaseLedger, attempt: RefreshAttempt) -> Incident:
    return Incident.select(ledger)


def test_a_replay_goes_forward_and_backward_over_the_same_states(incident: Incident) -> None:
    replay = incident.replay()
    forward = [replay.states()]
    while replay.forward():
        forward.append(replay.states())
    backward = [replay.states()]
    while replay.back():
        backward.append(replay.states())
    assert [*backward, replay.states()][: len(forward)] == forward[::-1]
    assert replay.step is None
    assert all(state.version == 0 for state in replay.states().values())


def test_a_step_tells_the_lease_before_the_event_after_and_what_changed(incident: Incident) -> None:
    step = incident.replay().go_to_position(4)
    assert step is not None
    assert step.recorded.event.tag == "lease.refreshed"
    assert (step.before.phase, step.after.phase) == (AuthLeasePhase.REFRESHING, AuthLeasePhase.VALID)
    assert {"phase", "generation", "expires_at", "published_by", "attempt"} <= set(step.changed)
    assert step.clock_back_ms == 3_600


def test_a_replay_jumps_to_a_number_a_position_and_an_event(incident: Incident, attempt: RefreshAttempt) -> None:
    replay = incident.replay()
    for step in (replay.go_to(3), replay.go_to_position(3), replay.go_to_event(attempt.id[:12])):
        assert step is not None and step.recorded.event.id == attempt.id
    assert replay.go_to(0) is None
    nowheres: tuple[Callable[[], object], ...] = (
        lambda: replay.go_to(7),
        lambda: replay.go_to_position(99),
        lambda: replay.go_to_event("zz"),
    )
    for nowhere in nowheres:
        with pytest.raises(NoSuchStep):
            nowhere()


@pytest.mark.parametrize(
    ("condition", "numbers"),
    [
        ("tag=refreshed", [4]),
        ("tag=lease.refreshed", [4]),
        ("tag!=acquired", [3, 4, 5, 6]),
        ("phase=valid", [1, 2, 4, 6]),
        ("phase=none", [5]),
        ("generation>=2", [4, 5, 6]),
        ("generation>1,phase=valid", [4, 6]),
        ("key=dev:github", [2]),
        ("version<=1", [1, 2]),
        ("position<3", [1, 2]),
        ("expires_at=9000", [4, 6]),
        ("credential_present=false", [5]),
        ("changed=generation", [1, 2, 4]),
        ("attempt!=none", [3, 4]),
        ("error=none", [1, 2, 3, 4, 5, 6]),
    ],
)
def test_a_condition_holds_at_these_steps(incident: Incident, condition: str, numbers: list[int]) -> None:
    assert [step.number for step in incident.find(parse_condition(condition))] == numbers


def test_a_replay_stops_where_a_condition_holds_in_either_direction(incident: Incident) -> None:
    replay, valid = incident.replay(), parse_condition("phase=valid")
    found = [replay.forward_until(valid), replay.forward_until(valid), replay.forward_until(valid)]
    assert [step.number for step in found if step] == [1, 2, 4]
    assert replay.forward_until(parse_condition("phase=expiring")) is None
    assert replay.done == 4
    back = replay.back_until(valid)
    assert back is not None and back.number == 2


@pytest.mark.parametrize("text", ["", "phase", "colour=red", "generation>=many", "phase=valid;tag=x,"])
def test_a_condition_that_is_none_is_refused_with_how_one_looks(text: str) -> None:
    with pytest.raises(NoSuchCondition):
        parse_condition(text)


def test_an_unchanged_history_is_accepted_as_it_was(incident: Incident) -> None:
    result = incident.what_if(Change())
    assert result.first_refusal is None
    assert result.differences == ()
    assert [outcome.result for outcome in result.outcomes] == ["accepted"] * 6


def test_without_its_beginning_a_refresh_is_refused(incident: Incident) -> None:
    result = incident.what_if(Change(without=[3]))
    assert result.first_refusal is not None
    assert (result.first_refusal.position, result.first_refusal.tag) == (4, "lease.refreshed")
    assert "the lease is valid at version 1; this needs phase refreshing" in (result.first_refusal.reason or "")


def test_a_refused_attempt_leaves_the_older_credential_in_force(incident: Incident, attempt: RefreshAttempt) -> None:
    result = incident.what_if(Change(refused_attempts=[attempt.id[:8]]))
    assert [outcome.position for outcome in result.outcomes if outcome.result == "left out"] == [3, 4]
    # The restore still brings back what was captured after the refresh.
    assert result.first_refusal is None
    assert [outcome.version for outcome in result.outcomes if outcome.position == 6] == [3]


def test_an_undoing_of_what_never_happened_is_refused(incident: Incident) -> None:
    result = incident.what_if(Change(without=[5]))
    assert result.first_refusal is not None and result.first_refusal.position == 6
    assert result.first_refusal.reason == "event 4, which it undoes, did not happen"
    assert result.differences == ()


def test_a_logout_moved_before_the_refresh_fences_it(incident: Incident) -> None:
    result = incident.what_if(Change(moved=[(5, 3)], without=[6]))
    assert [outcome.position for outcome in result.outcomes] == [1, 2, 3, 5, 4, 6]
    assert result.first_refusal is not None and result.first_refusal.position == 4
    assert "holds no lease" in (result.first_refusal.reason or "")
    assert result.states[str(KEY)].phase is None
    fields = {difference.field: difference for difference in result.differences}
    assert (fields["phase"].real, fields["phase"].changed) == (AuthLeasePhase.VALID, None)


def test_a_command_that_nobody_gave_is_decided_like_any_other(incident: Incident) -> None:
    added = [Insertion(3, KEY, MarkReauthRequired("what if")), Insertion(3, KEY, MarkReauthRequired())]
    result = incident.what_if(Change(insertions=added, without=[5, 6]))
    tags = [(outcome.result, outcome.tag) for outcome in result.outcomes if outcome.position is None]
    assert tags == [("accepted", "lease.reauth_required"), ("refused", "MarkReauthRequired")]
    assert result.states[str(KEY)].phase is AuthLeasePhase.REAUTH_REQUIRED


def test_a_command_may_come_before_everything(incident: Incident) -> None:
    first = incident.what_if(Change(insertions=[Insertion(0, OTHER, Release())])).outcomes[0]
    assert (first.position, first.result, first.version) == (None, "accepted", 1)


def test_a_publication_after_a_left_out_login_takes_the_next_generation(incident: Incident) -> None:
    result = incident.what_if(Change(insertions=[Insertion(1, KEY, Release())]))
    assert [outcome.position for outcome in result.outcomes if outcome.result == "refused"] == [3, 4]


def test_a_change_of_something_that_is_not_there_is_an_error(incident: Incident) -> None:
    for change in (
        Change(without=[99]),
        Change(moved=[(1, 99)]),
        Change(insertions=[Insertion(99, KEY, Release())]),
        Change(insertions=[Insertion(1, LeaseKey("no", "body"), Release())]),
        Change(refused_attempts=["zz"]),
        Change(refused_attempts=[""]),
    ):
        with pytest.raises(NoSuchStep):
            incident.what_if(change)


COMMANDS = ("acquire", "expire", "begin", "complete", "fail", "refuse", "reauth", "release", "restore")


def perform(ledger: LeaseLedger, key: LeaseKey, command: str) -> None:
    """One command, whatever comes of it."""
    match command:
        case "acquire":
            ledger.acquire_lease(key, 5_000)
        case "expire":
            ledger.mark_expiring(key)
        case "begin":
            ledger.begin_refresh(key)
        case "complete":
            ledger.complete_refresh(key, 9_000, 10)
        case "fail" | "refuse":
            ledger.refresh_failed(key, command == "refuse", error="invalid_grant")
        case "reauth":
            ledger.mark_reauth_required(key)
        case "release":
            ledger.release_lease(key)
        case _:
            before = ledger.snapshot(key)
            ledger.release_lease(key)
            ledger.restore_auth_lifecycle_snapshot(key, before, compensates=(before.version or 0) + 1)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from((KEY, OTHER)), st.sampled_from(COMMANDS), st.integers(-50, 100)), max_size=30)
)
def test_replayed_unchanged_every_history_ends_as_it_did(history: list[tuple[LeaseKey, str, int]]) -> None:
    clock = Moving()
    with LeaseLedger.open("memory://", clock=clock, actor="agent") as ledger:
        ledger.acquire_lease(KEY, 5_000)
        for key, command, moved_ms in history:
            clock.ms += moved_ms
            try:
                perform(ledger, key, command)
            except LeaseTransitionError:
                continue
        incident = Incident.select(ledger)
        result = incident.what_if(Change())
        assert result.first_refusal is None
        assert result.differences == ()
        for first, second in itertools.pairwise(incident.steps):
            assert first.recorded.position < second.recorded.position
        for recorded in incident.events:
            if isinstance(recorded.event, LeaseRefreshed):
                assert incident.explain(recorded.key, version=recorded.version).proof[-1] == recorded
