"""What every ledger backend promises, in one suite that runs on each of them."""

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from eventsourcing.persistence import StoredEvent
from pgserver import fresh_schema

from ledger.codec import EventCodec
from ledger.commands import Publication
from ledger.errors import LeaseTransitionError, LedgerStorageError, UnknownEventTag
from ledger.events import Holder, LeaseAcquired, LeaseReleased
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.recorders.base import IntegrityError, LeaseRecorder, NewEvent, StoredFold, StreamRow
from ledger.recorders.memory import MemoryLeaseRecorder
from ledger.snapshot import AuthLeasePhase, AuthLeaseSnapshot

KEY = LeaseKey.parse("dev:openai:work")
OTHER = LeaseKey.parse("dev:anthropic")


@dataclass
class Backend:
    """One kind of storage, and the ledger objects a test opened on it."""

    open_another: Callable[[], LeaseLedger]
    opened: list[LeaseLedger] = field(default_factory=list)

    def open(self) -> LeaseLedger:
        """One more ledger object on the same storage, as another process would have it."""
        self.opened.append(self.open_another())
        return self.opened[-1]


def _sqlite(folder: Path, options: str) -> Backend:
    times = itertools.count(1_000)
    url = f"sqlite:///{folder}/auth.db{options}"
    return Backend(lambda: LeaseLedger.open(url, clock=lambda: next(times), actor="tester"))


def _memory(_: Path) -> Backend:
    times = itertools.count(1_000)
    recorder = MemoryLeaseRecorder("00" * 16)
    return Backend(lambda: LeaseLedger(recorder, clock=lambda: next(times), actor="tester"))


def _postgres(folder: Path) -> Backend:
    times = itertools.count(1_000)
    url = fresh_schema(folder)
    return Backend(lambda: LeaseLedger.open(url, clock=lambda: next(times), actor="tester"))


BACKENDS: dict[str, Callable[[Path], Backend]] = {
    "sqlite full": lambda folder: _sqlite(folder, ""),
    "sqlite normal": lambda folder: _sqlite(folder, "?synchronous=normal"),
    "memory": _memory,
    "postgres": _postgres,
}


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    made = BACKENDS[request.param](tmp_path)
    yield made
    for ledger in made.opened:
        ledger.close()


@pytest.fixture
def ledger(backend: Backend) -> LeaseLedger:
    return backend.open()


@pytest.fixture
def recorder(ledger: LeaseLedger) -> LeaseRecorder:
    return ledger.recorder


def _released(version: int) -> bytes:
    event = LeaseReleased(id=f"e{version}", at=version, actor="tester", prev="")
    return EventCodec().encode(event)


def _new(stream: str, version: int) -> NewEvent:
    return NewEvent(stream, version, "lease.released", _released(version))


# Commands and snapshots


def test_an_accepted_command_is_one_event_and_shows_in_the_snapshot(ledger: LeaseLedger) -> None:
    transition = ledger.acquire_lease(KEY, 500)
    (recorded,) = ledger.read(KEY)
    assert isinstance(recorded.event, LeaseAcquired)
    assert (recorded.position, recorded.key, recorded.version) == (1, KEY, 1)
    assert (transition.event_id, transition.version) == (recorded.event.id, 1)
    assert ledger.snapshot(KEY) == AuthLeaseSnapshot(
        AuthLeasePhase.VALID, 500, True, 1, transition.credential_published_at_millis
    )


def test_a_refused_command_records_nothing(ledger: LeaseLedger) -> None:
    with pytest.raises(LeaseTransitionError):
        ledger.mark_expiring(KEY)
    assert (list(ledger.read_all()), ledger.keys(), ledger.recorder.last_position()) == ([], [], 0)


def test_a_key_that_holds_nothing_has_an_empty_snapshot(ledger: LeaseLedger) -> None:
    assert ledger.snapshot(KEY) == AuthLeaseSnapshot()
    assert ledger.snapshot(KEY).version == 0


def test_what_one_ledger_object_records_another_sees_at_once(backend: Backend) -> None:
    writer, reader = backend.open(), backend.open()
    assert reader.snapshot(KEY).phase is None
    for expires_at in range(5):
        writer.acquire_lease(KEY, expires_at)
        assert reader.snapshot(KEY) == writer.snapshot(KEY)
        reader.mark_expiring(KEY)
        assert writer.snapshot(KEY).phase == AuthLeasePhase.EXPIRING


def test_a_command_on_what_another_has_changed_is_decided_afresh(backend: Backend) -> None:
    mine, theirs = backend.open(), backend.open()
    mine.acquire_lease(KEY, 500)
    theirs.release_lease(KEY)
    with pytest.raises(LeaseTransitionError) as refused:
        mine.begin_refresh(KEY)
    assert refused.value.kind == "no_matching_transition"
    theirs.acquire_lease(KEY, 500)
    mine.begin_refresh(KEY)


def test_everything_is_there_after_opening_again(backend: Backend) -> None:
    first = backend.open()
    first.acquire_lease(KEY, 500)
    first.begin_refresh(KEY)
    first.acquire_lease(OTHER, 600)
    second = backend.open()
    assert second.ledger_id == first.ledger_id
    assert second.snapshot(KEY) == first.snapshot(KEY)
    assert second.state(KEY) == first.state(KEY)
    assert list(second.read_all()) == list(first.read_all())
    assert second.acquire_lease(KEY, 700).generation == 2


# Reading


def test_one_lease_is_read_from_any_version_on(ledger: LeaseLedger) -> None:
    for expires_at in range(6):
        ledger.acquire_lease(KEY, expires_at)
        ledger.acquire_lease(OTHER, expires_at)
    assert [recorded.version for recorded in ledger.read(KEY, after=4)] == [5, 6]
    assert [recorded.position for recorded in ledger.read(KEY)] == [1, 3, 5, 7, 9, 11]
    assert list(ledger.read(KEY, after=6)) == []


def test_all_leases_are_read_in_the_order_they_were_recorded(ledger: LeaseLedger) -> None:
    for key in (KEY, OTHER, OTHER, KEY):
        ledger.acquire_lease(key, 500)
    everything = [(r.position, r.key, r.version) for r in ledger.read_all()]
    assert everything == [(1, KEY, 1), (2, OTHER, 1), (3, OTHER, 2), (4, KEY, 2)]
    assert [(r.position, r.key, r.version) for r in ledger.read_all(after=2)] == everything[2:]


def test_a_log_of_several_pages_is_read_whole(recorder: LeaseRecorder, ledger: LeaseLedger) -> None:
    recorder.insert_events([StoredEvent("dev:a", n, "lease.released", _released(n)) for n in range(1, 4_002)])
    assert [recorded.position for recorded in ledger.read_all()] == list(range(1, 4_002))
    assert [recorded.version for recorded in ledger.read(LeaseKey.parse("dev:a"))] == list(range(1, 4_002))


def test_an_event_recorded_while_reading_is_read_too(ledger: LeaseLedger) -> None:
    ledger.acquire_lease(KEY, 500)
    reading = ledger.read_all()
    next(reading)
    ledger.mark_expiring(KEY)
    assert [recorded.position for recorded in ledger.read_all(after=1)] == [2]


def test_the_state_as_of_every_version_is_that_of_the_time(ledger: LeaseLedger) -> None:
    ledger.acquire_lease(KEY, 500)
    states = [ledger.state(KEY)]
    for number in range(70):
        ledger.acquire_lease(KEY, number)
        states.append(ledger.state(KEY))
    assert [ledger.state(KEY, version) for version in range(1, 72)] == states
    assert ledger.state(KEY, 0).version == 0


def test_keys_are_those_that_ever_had_an_event(ledger: LeaseLedger) -> None:
    for key in (KEY, OTHER):
        ledger.acquire_lease(key, 500)
    ledger.release_lease(KEY)
    assert ledger.keys() == [OTHER, KEY]


def test_an_event_is_found_by_its_id(ledger: LeaseLedger) -> None:
    wanted = ledger.acquire_lease(KEY, 500)
    ledger.mark_expiring(KEY)
    assert wanted.event_id is not None
    found = ledger.find(KEY, wanted.event_id)
    assert found == next(iter(ledger.read(KEY)))
    assert ledger.find(OTHER, wanted.event_id) is None
    assert ledger.find(KEY, wanted.event_id[:-1]) is None


def test_an_event_of_a_newer_version_stops_readers_unless_they_ask_to_skip_it(ledger: LeaseLedger) -> None:
    ledger.acquire_lease(KEY, 500)
    ledger.recorder.append(NewEvent(str(KEY), 2, "lease.teleported", b'{"id":"x"}'))
    ledger.acquire_lease(OTHER, 500)
    with pytest.raises(UnknownEventTag, match=r"lease\.teleported"):
        list(ledger.read_all())
    with pytest.raises(UnknownEventTag):
        ledger.snapshot(KEY)
    assert [recorded.position for recorded in ledger.read_all(skip_unknown=True)] == [1, 3]


# Verification


def test_a_ledger_nobody_touched_verifies(ledger: LeaseLedger) -> None:
    for number in range(70):
        ledger.acquire_lease(KEY if number % 3 else OTHER, number)
    verification = ledger.verify(ledger.checkpoint())
    assert verification.findings == ()
    assert verification.checkpoint == ledger.checkpoint()
    assert verification.witnesses == ("chain", "checkpoint")


def test_an_event_that_does_not_follow_from_the_last_is_found(ledger: LeaseLedger) -> None:
    ledger.acquire_lease(KEY, 500)
    ledger.recorder.append(_new(str(KEY), 2))
    (finding,) = ledger.verify().findings
    assert (finding.witness, finding.position, finding.key, finding.version) == ("chain", 2, str(KEY), 2)


# The recorder, through its own lean path


def test_positions_count_over_all_streams_and_versions_within_each(recorder: LeaseRecorder) -> None:
    places = [("a", 1), ("b", 1), ("a", 2), ("a", 3), ("b", 2)]
    assert [recorder.append(_new(stream, version)) for stream, version in places] == [1, 2, 3, 4, 5]
    assert recorder.last_position() == 5
    assert (recorder.last_version("a"), recorder.last_version("b"), recorder.last_version("c")) == (3, 2, 0)
    assert recorder.streams() == ["a", "b"]
    assert [recorder.streams_after(stream, 1) for stream in ("", "a", "aa", "b")] == [["a"], ["b"], ["b"], []]
    assert recorder.streams_after("", 9) == ["a", "b"]
    assert [tuple(row[1:3]) for row in recorder.log(0, 10)] == places
    assert [row[0] for row in recorder.log(1, 2)] == [2, 3]


def test_rows_are_those_between_two_versions(recorder: LeaseRecorder) -> None:
    for version in range(1, 6):
        recorder.append(_new("a", version))
    assert [row.version for row in recorder.rows("a", 1, 3)] == [2, 3]
    assert recorder.rows("a", 4)[0] == StreamRow(5, 5, "lease.released", _released(5))
    assert (recorder.rows("a", 5), recorder.rows("a", 3, 2), recorder.rows("b")) == ([], [], [])


@pytest.mark.parametrize("version", [0, 1, 2, 4, 5, -1])
def test_a_version_that_is_taken_or_leaves_a_gap_is_refused(recorder: LeaseRecorder, version: int) -> None:
    recorder.append(_new("a", 1))
    recorder.append(_new("a", 2))
    with pytest.raises(IntegrityError):
        recorder.append(_new("a", version))
    assert (recorder.last_position(), recorder.last_version("a")) == (2, 2)
    assert recorder.append(_new("a", 3)) == 3


@pytest.mark.parametrize("version", [0, 2, -1])
def test_a_stream_begins_with_version_one(recorder: LeaseRecorder, version: int) -> None:
    with pytest.raises(IntegrityError):
        recorder.append(_new("a", version))
    assert (recorder.streams(), recorder.last_position()) == ([], 0)


def test_an_exclusive_append_sees_the_stream_as_it_is(recorder: LeaseRecorder) -> None:
    recorder.append(_new("a", 1))
    recorder.append(_new("a", 2))
    seen: list[int] = []

    def build(rows: object) -> NewEvent:
        assert isinstance(rows, list)
        seen.extend(row.version for row in rows)
        return _new("a", 3)

    assert recorder.append_exclusively("a", 1, build) == 3
    assert (seen, recorder.last_version("a")) == ([2], 3)


def test_an_exclusive_append_that_is_called_off_writes_nothing(recorder: LeaseRecorder) -> None:
    def build(_: object) -> NewEvent:
        raise LookupError("called off")

    with pytest.raises(LookupError, match="called off"):
        recorder.append_exclusively("a", 0, build)
    with pytest.raises(IntegrityError):
        recorder.append_exclusively("a", 0, lambda _: _new("a", 2))
    assert recorder.last_position() == 0
    assert recorder.append(_new("a", 1)) == 1


def test_a_fold_is_stored_with_its_event_and_only_then(recorder: LeaseRecorder) -> None:
    fold = StoredFold(1, 7, "digest", b'{"version":1}')
    with pytest.raises(IntegrityError):
        recorder.append(_new("a", 2)._replace(fold=fold._replace(version=2)))
    recorder.append(_new("a", 1)._replace(fold=fold))
    recorder.append_exclusively("a", 1, lambda _: _new("a", 2)._replace(fold=fold._replace(version=2)))
    assert sorted(stored.version for _, stored in recorder.stored_folds()) == [1, 2]
    assert recorder.stored_fold("a", 7) == fold._replace(version=2)
    assert recorder.stored_fold("a", 7, upto=1) == fold
    assert (recorder.stored_fold("a", 8), recorder.stored_fold("b", 7), recorder.stored_fold("a", 7, 0)) == (None,) * 3


def test_the_change_token_grows_by_one_with_an_append_of_ones_own(recorder: LeaseRecorder) -> None:
    before = recorder.change_token()
    recorder.append(_new("a", 1))
    assert recorder.change_token() == before + 1
    recorder.append_exclusively("a", 1, lambda _: _new("a", 2))
    assert recorder.change_token() == before + 2


def test_a_head_kept_after_an_append_still_shows_what_others_did_right_before_and_after(backend: Backend) -> None:
    mine, theirs = backend.open(), backend.open()
    for key in (KEY, OTHER):
        mine.acquire_lease(key, 500)
        assert mine.snapshot(key).generation == 1
    theirs.acquire_lease(OTHER, 500)
    mine.acquire_lease(KEY, 500)
    theirs.acquire_lease(KEY, 500)
    assert (mine.snapshot(KEY).generation, mine.snapshot(OTHER).generation) == (3, 2)
    mine.release_lease(KEY)
    theirs.acquire_lease(OTHER, 500)
    assert (mine.snapshot(KEY).phase, mine.snapshot(OTHER).generation) == (None, 3)


def test_the_change_token_changes_with_every_commit_of_anybody(backend: Backend) -> None:
    mine, theirs = backend.open().recorder, backend.open().recorder
    tokens = [mine.change_token()]
    for version in range(1, 6):
        (mine if version % 2 else theirs).append(_new("a", version))
        tokens.append(mine.change_token())
    assert len(set(tokens)) == 6
    assert mine.change_token() == tokens[-1]


# The recorder, as the storage library's own tools use it


def test_the_library_reads_what_the_ledger_recorded(ledger: LeaseLedger, recorder: LeaseRecorder) -> None:
    ledger.acquire_lease(KEY, 500)
    ledger.mark_expiring(KEY)
    rows = recorder.rows(str(KEY))
    stored = recorder.select_events(str(KEY))
    assert [(e.originator_id, e.originator_version, e.topic, e.state) for e in stored] == [
        (str(KEY), row.version, row.tag, row.body) for row in rows
    ]
    assert [e.originator_version for e in recorder.select_events(str(KEY), gt=1)] == [2]
    assert [e.originator_version for e in recorder.select_events(str(KEY), desc=True, limit=1)] == [2]
    notifications = recorder.select_notifications(1, 10)
    assert [(n.id, n.originator_version, n.state) for n in notifications] == [
        (row.position, row.version, row.body) for row in rows
    ]
    assert [n.id for n in recorder.select_notifications(1, 10, topics=["lease.expiring"])] == [2]
    assert recorder.max_notification_id() == 2


def test_what_the_library_inserts_the_ledger_reads(ledger: LeaseLedger, recorder: LeaseRecorder) -> None:
    stored = [StoredEvent(str(KEY), version, "lease.released", _released(version)) for version in (1, 2)]
    assert list(recorder.insert_events(stored) or ()) == [1, 2]
    assert [row.body for row in recorder.rows(str(KEY))] == [_released(1), _released(2)]
    assert ledger.snapshot(KEY).version == 2


@pytest.mark.parametrize("versions", [[2], [1, 3], [1, 1], [0], [2, 1]])
def test_the_library_too_is_refused_gaps_and_taken_versions(recorder: LeaseRecorder, versions: list[int]) -> None:
    with pytest.raises(IntegrityError):
        recorder.insert_events([StoredEvent("a", version, "lease.released", b"{}") for version in versions])
    assert recorder.last_position() == 0
    assert recorder.append(_new("a", 1)) == 1


# Many at once


def test_threads_that_share_a_ledger_lose_nothing(ledger: LeaseLedger) -> None:
    threads, each = 6, 15
    start = threading.Barrier(threads)

    def work(number: int) -> None:
        own = LeaseKey.parse(f"dev:own-{number}")
        start.wait()
        for expires_at in range(each):
            shared = ledger.acquire_lease(KEY, expires_at)
            assert ledger.snapshot(KEY).generation >= shared.generation
            ledger.acquire_lease(own, expires_at)
            assert ledger.snapshot(own).generation == expires_at + 1

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))
    assert ledger.snapshot(KEY).generation == threads * each
    assert ledger.recorder.last_position() == 2 * threads * each
    assert ledger.verify().ok


def test_of_many_that_ask_to_refresh_exactly_one_wins_each_time(backend: Backend) -> None:
    ledgers = [backend.open() for _ in range(4)]
    ledgers[0].acquire_lease(KEY, 500)
    start = threading.Barrier(len(ledgers))

    def ask(ledger: LeaseLedger) -> str | None:
        start.wait()
        try:
            return ledger.begin_refresh(KEY).id
        except LeaseTransitionError as refused:
            assert refused.kind == "guard_rejected"
            return None

    with ThreadPoolExecutor(len(ledgers)) as pool:
        for _ in range(8):
            (winner,) = [attempt for attempt in pool.map(ask, ledgers) if attempt]
            ledgers[0].complete_refresh(KEY, 900, 800, winner)
    assert ledgers[0].snapshot(KEY).generation == 9
    assert ledgers[0].verify().ok


# The end


def test_a_closed_ledger_says_so(ledger: LeaseLedger) -> None:
    ledger.acquire_lease(KEY, 500)
    ledger.close()
    ledger.close()
    for use in (ledger.snapshot, ledger.release_lease, lambda key: list(ledger.read(key)), lambda _: ledger.verify()):
        with pytest.raises(LedgerStorageError, match="closed"):
            use(KEY)


@pytest.mark.parametrize("text", ["a\0", "\0", "a\\\0b"])
def test_a_nul_is_refused_at_the_command_wherever_it_would_reach_an_event(ledger: LeaseLedger, text: str) -> None:
    attempts: list[Callable[[], object]] = [
        lambda: ledger.acquire_lease(KEY, 1, cause=text),
        lambda: ledger.acquire_lease(KEY, 1, correlation_id=text),
        lambda: ledger.acquire_lease(KEY, 1, attempt=text),
        lambda: ledger.acquire_lease(KEY, 1, store=text),
        lambda: ledger.acquire_lease(KEY, 1, publication=Publication(text, 2, 5_000)),
        lambda: ledger.begin_refresh(KEY, fingerprint=text),
        lambda: ledger.complete_refresh(KEY, 1, 1, text),
        lambda: ledger.refresh_failed(KEY, False, attempt=text),
        lambda: ledger.refresh_failed(KEY, False, error=text),
        lambda: ledger.mark_reauth_required(KEY, reason=text),
        lambda: ledger.mark_expiring(KEY, cause=text),
        lambda: ledger.release_lease(KEY, correlation_id=text),
        lambda: ledger.release_credential_lifecycle(KEY, cause=text),
        lambda: ledger.restore_auth_lifecycle_snapshot(KEY, ledger.snapshot(KEY), cause=text),
        lambda: LeaseLedger(ledger.recorder, actor=text),
        lambda: LeaseLedger(ledger.recorder, new_id=lambda: text).mark_expiring(KEY),
    ]
    ledger.acquire_lease(KEY, 1)
    for attempt in attempts:
        with pytest.raises(ValueError) as refused:
            attempt()
        assert "\0" not in str(refused.value) and "\n" not in str(refused.value)
    assert ledger.recorder.last_position() == 1
    ledger.mark_expiring(KEY, cause="a\\u0000 as plain text is none")
    assert ledger.verify().ok


def test_a_host_name_with_a_nul_is_refused_at_the_command(ledger: LeaseLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger.acquire_lease(KEY, 1)
    monkeypatch.setattr("ledger.lease_ledger.this_process", lambda instance: Holder("host\0", "boot", 1, "", instance))
    with pytest.raises(ValueError, match="NUL"):
        ledger.begin_refresh(KEY)
    assert ledger.recorder.last_position() == 1
