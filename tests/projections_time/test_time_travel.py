"""Any moment of any lease equals a fold of the events up to it, whatever the clocks did."""

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.errors import LeaseTransitionError
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.reading import RecordedEvent
from ledger.state import EMPTY_STATE, LeaseState, evolve, fold
from projections.audit import AuditLog
from projections.time_travel import At, LedgerStreams, NoSuchMoment, as_of
from projections.time_travel.changes import FIELDS

KEY = LeaseKey.parse("dev:openai:work")
KEYS = (KEY, LeaseKey.parse("dev:github"), LeaseKey.parse("prod:openai"))
START_MS = 1_000_000
ACTIONS = ("acquire", "expire", "begin", "complete", "fail", "refuse", "release")


class Moving:
    """A clock that is told where to go."""

    ms = START_MS

    def __call__(self) -> int:
        return self.ms


def perform(ledger: LeaseLedger, key: LeaseKey, action: str) -> None:
    match action:
        case "acquire":
            ledger.acquire_lease(key, 5_000, correlation_id=f"c{ledger.clock() % 3}")
        case "expire":
            ledger.mark_expiring(key)
        case "begin":
            ledger.begin_refresh(key)
        case "complete":
            ledger.complete_refresh(key, 6_000, 10)
        case "fail" | "refuse":
            ledger.refresh_failed(key, action == "refuse", error="invalid_grant")
        case _:
            ledger.release_lease(key)


HISTORIES = st.lists(
    st.tuples(
        st.sampled_from(KEYS),
        st.sampled_from(ACTIONS),
        st.one_of(st.integers(-200, 400), st.sampled_from([-(10**7), 2**63, 0])),
    ),
    min_size=1,
    max_size=40,
)


def recorded_history(ledger: LeaseLedger, clock: Moving, history: list[tuple[LeaseKey, str, int]]) -> None:
    for key, action, moved_ms in history:
        clock.ms = min(clock.ms + moved_ms, 2**64 - 2)
        try:
            perform(ledger, key, action)
        except LeaseTransitionError:
            continue


def included(ledger: LeaseLedger, key: LeaseKey, at_ms: int) -> list[RecordedEvent]:
    """The events of a lease that "at" a time includes, by the definition."""
    found, running = [], None
    for recorded in ledger.read(key):
        running = recorded.event.at if running is None else max(running, recorded.event.at)
        if running <= at_ms:
            found.append(recorded)
    return found


def folded(events: list[RecordedEvent]) -> LeaseState:
    return fold(recorded.event for recorded in events)


def moments(ledger: LeaseLedger) -> list[int]:
    """The times at which anything may change, and their neighbours."""
    times = {recorded.event.at for recorded in ledger.read_all()}
    return sorted({at_ms + near for at_ms in times for near in (-1, 0, 1)})


@settings(max_examples=60, deadline=None)
@given(HISTORIES)
def test_any_moment_equals_the_fold_of_the_events_up_to_it(history: list[tuple[LeaseKey, str, int]]) -> None:
    clock = Moving()
    with LeaseLedger.open("memory://", clock=clock) as ledger, AuditLog.open(ledger) as audit:
        recorded_history(ledger, clock, history)
        for at_ms in moments(ledger):
            whole = {row.key: row for row in audit.leases(at=at_ms)}
            for key in KEYS:
                events = included(ledger, key, at_ms)
                found = audit.as_of(key, at=at_ms)
                assert (found.version, found.state) == (len(events), folded(events))
                assert found.last == (events[-1] if events else None)
                assert found == as_of(LedgerStreams(ledger), key, At(at_ms))
                later = list(ledger.read(key, after=len(events)))
                assert found.dated_before == tuple(one.version for one in later if one.event.at <= at_ms)[:20]
                row = whole.pop(str(key), None)
                assert (row is None) == (not events)
                if row is not None:
                    state = found.state
                    assert (row.version, row.phase, row.generation) == (state.version, state.phase, state.generation)
                    assert (row.expires_at, row.published_by) == (state.expires_at, state.published_by)
                    assert row.attempt == (None if state.attempt is None else state.attempt.id)
                    assert row.clock_back_ms == found.clock_back_ms
            assert not whole


@settings(max_examples=60, deadline=None)
@given(HISTORIES, st.data())
def test_any_version_and_any_difference_equals_what_the_folds_say(
    history: list[tuple[LeaseKey, str, int]], data: st.DataObject
) -> None:
    clock = Moving()
    with LeaseLedger.open("memory://", clock=clock) as ledger, AuditLog.open(ledger) as audit:
        recorded_history(ledger, clock, history)
        events = list(ledger.read(KEY))
        states = [EMPTY_STATE]
        for recorded in events:
            states.append(evolve(states[-1], recorded.event))
        for version, state in enumerate(states):
            assert audit.as_of(KEY, version=version).state == state
        a, b = (data.draw(st.integers(0, len(events))) for _ in range(2))
        found = audit.diff(KEY, a, b)
        assert (found.before, found.after) == (states[a], states[b])
        differing = [name for name in FIELDS if getattr(states[a], name) != getattr(states[b], name)]
        assert [change.field for change in found.changes] == differing
        for change in found.changes:
            versions = [
                version
                for version in range(min(a, b) + 1, max(a, b) + 1)
                if getattr(states[version - 1], change.field) != getattr(states[version], change.field)
            ]
            assert change.versions == tuple(versions)
            assert change.by == events[versions[-1] - 1]
        assert not set(found.passing) & set(differing)


@settings(max_examples=40, deadline=None)
@given(HISTORIES, st.sampled_from(FIELDS))
def test_who_last_changed_a_field_is_the_last_event_that_did(
    history: list[tuple[LeaseKey, str, int]], field: str
) -> None:
    clock = Moving()
    with LeaseLedger.open("memory://", clock=clock) as ledger, AuditLog.open(ledger) as audit:
        recorded_history(ledger, clock, history)
        expected: list[RecordedEvent | None] = [None]
        state = EMPTY_STATE
        for recorded in ledger.read(KEY):
            before, state = state, evolve(state, recorded.event)
            expected.append(recorded if getattr(before, field) != getattr(state, field) else expected[-1])
        for version, event in enumerate(expected):
            change = audit.last_change(KEY, field, version=version)
            assert (None if change is None else change.by) == event
        now = audit.last_change(KEY, field)
        assert (None if now is None else now.by) == expected[-1]


@settings(max_examples=60, deadline=None)
@given(HISTORIES, st.data())
def test_a_timeline_in_pages_is_every_event_that_answers_in_order(
    history: list[tuple[LeaseKey, str, int]], data: st.DataObject
) -> None:
    clock = Moving()
    with LeaseLedger.open("memory://", clock=clock, actor="one") as ledger, AuditLog.open(ledger) as audit:
        recorded_history(ledger, clock, history)
        times = st.sampled_from(moments(ledger) or [0])
        keys = data.draw(st.none() | st.lists(st.sampled_from(KEYS), max_size=3))
        since, until = data.draw(st.none() | times), data.draw(st.none() | times)
        tags = data.draw(st.none() | st.sampled_from([["lease.acquired"], ["lease.released", "lease.refreshed"]]))
        correlation_id = data.draw(st.none() | st.sampled_from(["c0", "c1"]))
        expected: list[tuple[int, int]] = []
        running: dict[LeaseKey, int] = {}
        for recorded in ledger.read_all():
            event, key = recorded.event, recorded.key
            running[key] = max(running.get(key, event.at), event.at)
            if (
                (keys is None or key in keys)
                and (since is None or running[key] >= since)
                and (until is None or running[key] <= until)
                and (tags is None or event.tag in tags)
                and (correlation_id is None or event.correlation_id == correlation_id)
            ):
                expected.append((recorded.position, running[key] - event.at))
        found, after = [], 0
        for _ in range(100):
            page = audit.timeline(
                keys, since=since, until=until, tags=tags, correlation_id=correlation_id, after=after, limit=3
            )
            found += [(entry.position, entry.clock_back_ms) for entry in page.entries]
            if page.next is None:
                break
            assert len(page.entries) == 3
            after = page.next
        assert found == expected


@pytest.fixture
def clock() -> Moving:
    return Moving()


@pytest.fixture
def ledger(clock: Moving) -> Iterator[LeaseLedger]:
    with LeaseLedger.open("memory://", clock=clock, actor="one") as ledger:
        yield ledger


@pytest.fixture
def audit(ledger: LeaseLedger) -> Iterator[AuditLog]:
    with AuditLog.open(ledger) as audit:
        yield audit


def test_an_event_dated_back_comes_after_the_moment_it_claims_and_both_are_shown(
    ledger: LeaseLedger, audit: AuditLog, clock: Moving
) -> None:
    ledger.acquire_lease(KEY, 5_000)
    clock.ms += 1_000
    ledger.mark_expiring(KEY)
    clock.ms -= 500
    ledger.release_lease(KEY)
    between = audit.as_of(KEY, at=START_MS + 700)
    assert (between.version, between.dated_before, between.clock_back_ms) == (1, (3,), 0)
    last = audit.as_of(KEY, at=START_MS + 1_000)
    assert (last.version, last.dated_before, last.clock_back_ms) == (3, (), 500)
    assert [entry.clock_back_ms for entry in audit.timeline().entries] == [0, 0, 500]
    assert [row.clock_back_ms for row in audit.leases(at=START_MS + 1_000)] == [500]


def test_a_time_may_be_a_datetime_with_a_zone(ledger: LeaseLedger, audit: AuditLog) -> None:
    ledger.acquire_lease(KEY, 5_000)
    moment = datetime.fromtimestamp(START_MS / 1000, UTC)
    assert audit.as_of(KEY, at=moment).version == 1
    assert len(audit.leases(at=moment)) == 1
    assert audit.diff(KEY, 0, moment).after.generation == 1
    for ask in (
        lambda: audit.as_of(KEY, at=moment.replace(tzinfo=None)),
        lambda: audit.diff(KEY, 0, datetime(2025, 1, 1)),
    ):
        with pytest.raises(ValueError, match="time zone"):
            ask()


def test_a_moment_that_is_none_is_refused_with_what_there_is(ledger: LeaseLedger, audit: AuditLog) -> None:
    with pytest.raises(NoSuchMoment, match="has no events"):
        audit.as_of(KEY, version=1)
    ledger.acquire_lease(KEY, 5_000)
    with pytest.raises(NoSuchMoment, match="has no version 7; its last is 1"):
        audit.as_of(KEY, version=7)
    with pytest.raises(ValueError, match="counts from 0"):
        audit.as_of(KEY, version=-1)
    with pytest.raises(ValueError, match="not both"):
        audit.as_of(KEY, version=1, at=2)
    with pytest.raises(ValueError, match="has no field 'colour'"):
        audit.last_change(KEY, "colour")
    with pytest.raises(ValueError, match="not"):
        audit.timeline(limit=0)
    with pytest.raises(ValueError, match="not"):
        audit.timeline(after=-1)


def test_without_a_moment_a_lease_is_as_it_is_now(ledger: LeaseLedger, audit: AuditLog) -> None:
    assert audit.as_of(KEY).state == EMPTY_STATE
    ledger.acquire_lease(KEY, 5_000)
    assert audit.as_of(KEY).state == ledger.state(KEY)


def test_a_difference_names_what_changed_and_came_back(ledger: LeaseLedger, audit: AuditLog) -> None:
    ledger.acquire_lease(KEY, 5_000)
    ledger.begin_refresh(KEY)
    ledger.complete_refresh(KEY, 6_000, 10)
    found = audit.diff(KEY, 1, 3)
    assert {change.field for change in found.changes} == {
        "expires_at",
        "generation",
        "published_at",
        "latest_published_at",
        "published_by",
    }
    assert set(found.passing) == {"phase", "attempt", "refreshing_since"}
    assert all(change.versions == (3,) for change in found.changes)
    backwards = audit.diff(KEY, 3, 1)
    pairs = [(change.after, change.before) for change in backwards.changes]
    assert pairs == [(change.before, change.after) for change in found.changes]


def test_a_long_stream_is_looked_at_from_both_ends_without_reading_it_whole(
    ledger: LeaseLedger, audit: AuditLog, clock: Moving
) -> None:
    ledger.acquire_lease(KEY, 5_000)
    for _ in range(700):
        clock.ms += 10
        ledger.begin_refresh(KEY)
        ledger.refresh_failed(KEY, False, status=503)
    change = audit.last_change(KEY, "generation")
    assert change is not None and change.by.version == 1
    for version, at_ms in itertools.zip_longest((0, 1, 3, 1401), (START_MS - 1, START_MS, START_MS + 10, clock.ms)):
        assert audit.as_of(KEY, at=at_ms).version == version
        assert LedgerStreams(ledger).times.version_at(KEY, at_ms) == version
