"""What holds for every sequence of commands, whoever gives them and however often the ledger is opened again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.errors import LeaseTransitionError, LedgerStorageError
from ledger.execution import OPTIMISTIC_TRIES
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.recorders.base import IntegrityError, LeaseRecorder, NewEvent, StreamRow
from ledger.recorders.memory import MemoryLeaseRecorder
from ledger.snapshot import MAX_U64, AuthLeasePhase, AuthLeaseSnapshot
from ledger.state import LeaseState, evolve, snapshot_of

KEYS = [LeaseKey.parse("dev:openai"), LeaseKey.parse("dev:openai:work")]
WRITERS = 3

numbers = st.sampled_from([0, 1, 500, 2**63, MAX_U64 - 1, MAX_U64])
snapshots = st.builds(
    AuthLeaseSnapshot,
    phase=st.sampled_from([None, *AuthLeasePhase]),
    expires_at=st.none() | numbers,
    credential_present=st.booleans(),
    generation=st.sampled_from([0, 1, 5, MAX_U64]),
    credential_published_at_millis=st.none() | st.sampled_from([0, 7, 10_000, MAX_U64 - 3]),
)


@dataclass(frozen=True)
class Step:
    """One command, the writer that gives it, and where that writer's clock stands."""

    name: str
    writer: int
    key: LeaseKey
    now_ms: int
    arguments: dict[str, Any]


def _step(name: str, **arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Step]:
    return st.builds(
        Step,
        st.just(name),
        st.integers(0, WRITERS - 1),
        st.sampled_from(KEYS),
        st.sampled_from([0, 5, 1_000, 2_000]),
        st.fixed_dictionaries(dict(arguments)),
    )


steps = st.one_of(
    _step("acquire_lease", expires_at=numbers),
    _step("mark_expiring"),
    _step("begin_refresh"),
    _step("begin_refresh"),
    _step("complete_refresh", new_expires_at=numbers, now=numbers),
    _step("refresh_failed", permanent=st.booleans(), retry_after=st.none() | st.sampled_from([0, 1.5])),
    _step("mark_reauth_required"),
    _step("release_lease"),
    _step("release_credential_lifecycle"),
    _step("restore_auth_lifecycle_snapshot", snapshot=snapshots, expires_at=st.none() | numbers),
)


class Writers:
    """Several ledger objects on one file, and what every accepted command left behind."""

    def __init__(self, path: Path) -> None:
        self.url = f"sqlite:///{path}?synchronous=normal"
        self.now_ms = 0
        self.ledgers = [self.open() for _ in range(WRITERS)]
        self.accepted = 0

    def open(self) -> LeaseLedger:
        return LeaseLedger.open(self.url, clock=lambda: self.now_ms, actor="tester")

    def perform(self, step: Step) -> None:
        """Give the command and check what must hold after any one of them."""
        ledger = self.ledgers[step.writer]
        before, position = ledger.state(step.key), ledger.recorder.last_position()
        self.now_ms = step.now_ms
        try:
            getattr(ledger, step.name)(step.key, **step.arguments)
        except LeaseTransitionError:
            assert ledger.recorder.last_position() == position
            assert ledger.state(step.key) == before
            return
        self.accepted += 1
        after = ledger.state(step.key)
        assert ledger.recorder.last_position() == position + 1
        assert after.version == before.version + 1
        _check_growth(before, after)

    def close(self) -> None:
        for ledger in self.ledgers:
            ledger.close()


def _check_growth(before: LeaseState, after: LeaseState) -> None:
    assert after.generation >= before.generation
    assert after.latest_published_at >= before.latest_published_at
    if after.published_by not in (None, before.published_by) and after.generation == before.generation + 1:
        assert after.latest_published_at > before.latest_published_at or after.latest_published_at == MAX_U64


def _rebuilt(ledger: LeaseLedger) -> dict[LeaseKey, LeaseState]:
    states = dict.fromkeys(KEYS, LeaseState())
    for recorded in ledger.read_all():
        states[recorded.key] = evolve(states[recorded.key], recorded.event)
        assert states[recorded.key].version == recorded.version
    return states


@settings(max_examples=60, deadline=None)
@given(st.lists(steps, max_size=45))
def test_live_reopened_and_rebuilt_a_lease_is_the_same(sequence: list[Step]) -> None:
    with TemporaryDirectory() as folder:
        writers = Writers(Path(folder, "auth.db"))
        for step in sequence:
            writers.perform(step)
        with writers.open() as reopened:
            rebuilt = _rebuilt(reopened)
            for key in KEYS:
                for ledger in (*writers.ledgers, reopened):
                    assert ledger.snapshot(key) == snapshot_of(rebuilt[key])
                    assert ledger.state(key) == rebuilt[key]
            positions = [recorded.position for recorded in reopened.read_all()]
            assert positions == list(range(1, writers.accepted + 1))
            ids = [recorded.event.id for recorded in reopened.read_all()]
            assert len(set(ids)) == len(ids)
            assert reopened.verify(reopened.checkpoint()).ok
        writers.close()


@settings(max_examples=25, deadline=None)
@given(st.lists(steps, min_size=5, max_size=30), st.data())
def test_the_state_as_of_any_version_is_the_fold_up_to_it(sequence: list[Step], data: st.DataObject) -> None:
    ledger = LeaseLedger.open("memory://", clock=lambda: 5)
    for step in sequence:
        try:
            getattr(ledger, step.name)(step.key, **step.arguments)
        except LeaseTransitionError:
            continue
    key = data.draw(st.sampled_from(KEYS))
    version = data.draw(st.integers(0, ledger.state(key).version))
    expected = LeaseState()
    for recorded in ledger.read(key):
        if recorded.version <= version:
            expected = evolve(expected, recorded.event)
    assert ledger.state(key, version) == expected


# Faults between the ledger and its log


class Wrapped:
    """A recorder that something goes wrong in, around one that works."""

    def __init__(self, inner: LeaseRecorder) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class StoresAndConflicts(Wrapped):
    """Stores every event, loses the answer, tries again, and reports the conflict with itself."""

    def append(self, event: NewEvent) -> int:
        self.inner.append(event)
        raise IntegrityError("stored already")


class StoresAndLosesTheConnection(Wrapped):
    """Stores every event and never says so."""

    def append(self, event: NewEvent) -> int:
        self.inner.append(event)
        raise LedgerStorageError("the connection was lost")


class RivalIsFirst(Wrapped):
    """Lets a rival act right before the next optimistic appends, and before an exclusive one."""

    def __init__(self, inner: LeaseRecorder, *rivals: Callable[[], object]) -> None:
        super().__init__(inner)
        self.rivals, self.exclusive = list(rivals), 0
        self.before_exclusive: Callable[[], object] = lambda: None

    def append(self, event: NewEvent) -> int:
        if self.rivals:
            self.rivals.pop(0)()
        return self.inner.append(event)

    def append_exclusively(self, stream: str, after: int, build: Callable[[Sequence[StreamRow]], NewEvent]) -> int:
        self.exclusive += 1
        self.before_exclusive()
        return self.inner.append_exclusively(stream, after, build)


KEY = KEYS[1]


def _ledger(recorder: object) -> LeaseLedger:
    return LeaseLedger(cast(LeaseRecorder, recorder), actor="tester")


def _recorder() -> MemoryLeaseRecorder:
    return MemoryLeaseRecorder("11" * 16)


def test_an_event_of_ones_own_that_was_stored_without_a_word_is_recognised() -> None:
    recorder = _recorder()
    ledger = _ledger(StoresAndConflicts(recorder))
    transition = ledger.acquire_lease(KEY, 500)
    attempt = ledger.begin_refresh(KEY)
    refreshed = ledger.complete_refresh(KEY, 900, 800, attempt)
    ids = [recorded.event.id for recorded in ledger.read(KEY)]
    assert ids == [transition.event_id, attempt.id, refreshed.event_id]
    assert (transition.version, attempt.version, refreshed.version) == (1, 2, 3)
    assert ledger.verify().ok


def test_an_event_of_ones_own_is_recognised_though_a_rival_came_right_after_it() -> None:
    recorder = _recorder()
    rival = _ledger(recorder)

    class AndThenARival(StoresAndConflicts):
        def append(self, event: NewEvent) -> int:
            try:
                return super().append(event)
            finally:
                rival.release_lease(KEY)

    ledger = _ledger(AndThenARival(recorder))
    transition = ledger.acquire_lease(KEY, 500)
    assert (transition.version, transition.generation) == (1, 1)
    assert ledger.snapshot(KEY) == rival.snapshot(KEY) == AuthLeaseSnapshot(generation=1)
    assert recorder.last_position() == 2


def test_a_rivals_equal_event_is_not_taken_for_ones_own() -> None:
    recorder = _recorder()
    rival = _ledger(recorder)
    wrapped = RivalIsFirst(recorder, lambda: rival.acquire_lease(KEY, 500))
    transition = _ledger(wrapped).acquire_lease(KEY, 500)
    assert (transition.version, transition.generation) == (2, 2)


def test_a_lost_connection_is_an_error_and_the_event_can_be_found_by_its_planned_id() -> None:
    recorder = _recorder()
    ledger = _ledger(StoresAndLosesTheConnection(recorder))
    plan = ledger.plan_publication(KEY)
    with pytest.raises(LedgerStorageError, match="connection was lost"):
        ledger.acquire_lease(KEY, 500, publication=plan)
    found = ledger.find(KEY, plan.event_id)
    assert found is not None
    assert ledger.snapshot(KEY).published_by == plan.event_id
    with pytest.raises(LeaseTransitionError):
        ledger.acquire_lease(KEY, 500, publication=plan)
    assert recorder.last_position() == 1


def test_whoever_loses_every_try_gets_a_turn_inside_the_write_transaction() -> None:
    recorder = _recorder()
    rival = _ledger(recorder)
    wrapped = RivalIsFirst(recorder, *[lambda: rival.acquire_lease(KEY, 600)] * 3 * OPTIMISTIC_TRIES)
    ledger = _ledger(wrapped)
    for turn in range(1, 4):
        transition = ledger.acquire_lease(KEY, 500)
        assert wrapped.exclusive == turn
        assert transition.version == turn * (OPTIMISTIC_TRIES + 1)
        assert ledger.snapshot(KEY).published_by == transition.event_id
    assert ledger.verify().ok


def test_a_command_that_a_rival_made_impossible_is_refused_on_fresh_state() -> None:
    recorder = _recorder()
    rival = _ledger(recorder)
    rival.acquire_lease(KEY, 500)
    wrapped = RivalIsFirst(recorder, lambda: rival.begin_refresh(KEY))
    with pytest.raises(LeaseTransitionError, match="the lease is refreshing at version 2"):
        _ledger(wrapped).begin_refresh(KEY)
    assert recorder.last_position() == 2


def test_a_refusal_inside_the_write_transaction_records_nothing() -> None:
    recorder = _recorder()
    rival = _ledger(recorder)
    rival.acquire_lease(KEY, 500)
    wrapped = RivalIsFirst(recorder, *[lambda: rival.acquire_lease(KEY, 500)] * OPTIMISTIC_TRIES)
    wrapped.before_exclusive = lambda: rival.begin_refresh(KEY)
    with pytest.raises(LeaseTransitionError, match="is refreshing"):
        _ledger(wrapped).begin_refresh(KEY)
    assert [recorded.event.tag for recorded in rival.read(KEY)][-1] == "lease.refresh_started"
    assert rival.owns(rival.state(KEY))
