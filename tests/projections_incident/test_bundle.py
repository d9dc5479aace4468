"""An incident saved as one file: whole anywhere, and refused when anything in it was changed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from agents import CANARY
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from projections_explain import incidents
from projections_explain.scenes import KEY, Scene

from ledger.chain import event_digest
from ledger.errors import CorruptHistory
from ledger.events import LeaseEvent
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.recorders.base import NewEvent
from ledger.state import evolve
from projections.explain import VerdictCode
from projections.incident import BundleRefused, Incident, NothingSelected
from projections.incident.bundle import Bundle, encode, seal
from projections.incident.checking import decode
from projections.time_travel import NoSuchMoment

OTHER = LeaseKey.parse("dev:github")


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.close()


class Ticking:
    """A clock that goes on by a second with every look at it."""

    def __init__(self) -> None:
        self.ms = 1_000_000

    def __call__(self) -> int:
        self.ms += 1_000
        return self.ms


def a_ledger(folder: Path | None = None) -> LeaseLedger:
    """Two leases, the second in between the first's events, ten events in all."""
    url = "memory://" if folder is None else f"sqlite:///{folder / 'auth.db'}"
    ledger = LeaseLedger.open(url, clock=Ticking(), actor="agent", new_id=iter(f"{n:032x}" for n in range(99)).__next__)
    ledger.acquire_lease(KEY, 5_000, correlation_id="morning")
    ledger.acquire_lease(OTHER, 6_000)
    for status in (503, 500):
        ledger.begin_refresh(KEY, fingerprint="f" * 32, correlation_id="noon")
        ledger.refresh_failed(KEY, False, status=status, retry_after=1)
    ledger.mark_expiring(OTHER, correlation_id="noon")
    ledger.begin_refresh(KEY, fingerprint="f" * 32)
    ledger.complete_refresh(KEY, 9_000, 1_000)
    ledger.release_lease(OTHER)
    return ledger


@pytest.fixture(scope="module")
def saved() -> bytes:
    with a_ledger() as ledger:
        return encode(Incident.select(ledger).bundle)


def test_a_saved_incident_is_explained_where_its_ledger_is_not(scene: Scene, tmp_path: Path) -> None:
    verdict = incidents.a_crash_after_the_exchange(scene)
    ledger = scene.ledger("auditor")
    Incident.select(ledger, [KEY]).save(tmp_path / "incident.json")
    scene.close()
    (tmp_path / "auth.db").rename(tmp_path / "gone.db")
    loaded = Incident.load(tmp_path / "incident.json")
    told = loaded.explain(KEY)
    assert (told.code, told.text, told.proof) == (verdict.code, verdict.text, verdict.proof)
    assert CANARY.encode() not in (tmp_path / "incident.json").read_bytes()


def test_saving_the_same_incident_gives_the_same_bytes(tmp_path: Path, saved: bytes) -> None:
    path = tmp_path / "incident.json"
    path.write_bytes(saved)
    Incident.load(path).save(path)
    assert path.read_bytes() == saved
    assert [file.name for file in tmp_path.iterdir()] == ["incident.json"]


def test_a_bundle_with_any_one_byte_changed_is_refused(saved: bytes) -> None:
    decode(saved)
    for offset in range(len(saved)):
        changed = bytearray(saved)
        changed[offset] ^= 1 + offset % 3
        with pytest.raises(BundleRefused):
            decode(bytes(changed))


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_byte_changed_removed_or_added_anywhere_is_refused(saved: bytes, data: st.DataObject) -> None:
    offset = data.draw(st.integers(0, len(saved) - 1))
    byte = data.draw(st.binary(min_size=1, max_size=1).filter(lambda byte: byte != saved[offset : offset + 1]))
    for changed in (byte, b"", saved[offset : offset + 1] + byte):
        if saved[:offset] + changed + saved[offset + 1 :] != saved:
            with pytest.raises(BundleRefused):
                decode(saved[:offset] + changed + saved[offset + 1 :])


@pytest.mark.parametrize("number", range(10))
@pytest.mark.parametrize(("field", "value"), [("body", None), ("tag", "lease.expired"), ("digest", "0" * 64)])
def test_an_event_that_was_changed_is_named(saved: bytes, number: int, field: str, value: str | None) -> None:
    bundle = msgspec.json.decode(saved, type=Bundle)
    event = bundle.events[number]
    new = event.body.replace('"actor":"agent"', '"actor":"agenT"') if value is None else value
    assert new != getattr(event, field)
    events = list(bundle.events)
    events[number] = msgspec.structs.replace(event, **{field: new})
    with pytest.raises(BundleRefused) as refused:
        decode(encode(msgspec.structs.replace(bundle, events=tuple(events))))
    first = refused.value.findings[0]
    assert (first.position, first.key, first.version) == (event.position, event.key, event.version)
    assert f"event {event.version} of {event.key} (position {event.position})" in str(refused.value)


def test_a_byte_changed_inside_an_event_names_it_even_when_it_is_json_no_more(saved: bytes) -> None:
    lines = saved.splitlines(keepends=True)
    for number, line in enumerate(lines):
        if b'"body"' in line:
            position = int(lines[number - 4].split(b":")[1].strip(b" ,\n"))
            changed = b"".join([*lines[:number], line.replace(b'"body":', b'"body";'), *lines[number + 1 :]])
            with pytest.raises(BundleRefused, match=f"at or near the event at position {position}"):
                decode(changed)


def test_a_removed_swapped_or_repeated_event_is_refused_though_every_digest_is_made_anew(saved: bytes) -> None:
    bundle = msgspec.json.decode(saved, type=Bundle)
    first, *rest = bundle.events
    for events in (rest, [first, *rest[1:]], [*rest, first], [first, first, *rest], rest[::-1]):
        with pytest.raises(BundleRefused):
            decode(encode(seal(msgspec.structs.replace(bundle, events=tuple(events)))))


def test_a_changed_edge_is_refused_though_the_digest_is_made_anew(saved: bytes) -> None:
    bundle = msgspec.json.decode(saved, type=Bundle)
    for edge in ("before", "after"):
        for stream in bundle.streams:
            old = getattr(stream, edge)
            new = msgspec.structs.replace(old, state=msgspec.structs.replace(old.state, expires_at=7))
            streams = tuple(
                msgspec.structs.replace(one, **{edge: new}) if one is stream else one for one in bundle.streams
            )
            with pytest.raises(BundleRefused, match=stream.key):
                decode(encode(seal(msgspec.structs.replace(bundle, streams=streams))))


def test_a_bundle_of_a_later_format_is_refused(saved: bytes) -> None:
    bundle = msgspec.structs.replace(msgspec.json.decode(saved, type=Bundle), format="lease-ledger incident 2")
    with pytest.raises(BundleRefused, match="this version reads"):
        decode(encode(seal(bundle)))


def test_what_a_forger_with_every_digest_could_do_shows_against_the_ledger() -> None:
    with a_ledger() as ledger:
        incident = Incident.select(ledger, [OTHER])
        assert incident.verify(ledger) == ()
        last = incident.bundle.events[-1]
        body = last.body.replace('"actor":"agent"', '"actor":"nobody"')
        digest = event_digest(ledger.ledger_id, last.key, last.version, last.tag, body.encode())
        (stream,) = incident.bundle.streams
        forged = msgspec.structs.replace(
            incident.bundle,
            events=(*incident.bundle.events[:-1], msgspec.structs.replace(last, body=body, digest=digest)),
            streams=(msgspec.structs.replace(stream, after=msgspec.structs.replace(stream.after, digest=digest)),),
        )
        (finding,) = Incident(seal(forged)).verify(ledger)
        assert (finding.position, finding.version) == (last.position, last.version)
        with LeaseLedger.open("memory://") as other:
            (finding,) = incident.verify(other)
            assert "this one is" in finding.detail


def events_of(incident: Incident) -> list[tuple[str, int]]:
    return [(recorded.key.binding, recorded.version) for recorded in incident.events]


def test_an_incident_is_chosen_by_key_and_time() -> None:
    with a_ledger() as ledger:
        times = [recorded.event.at for recorded in ledger.read_all()]
        assert len(Incident.select(ledger).events) == 10
        chosen = Incident.select(ledger, [KEY], since=times[2], until=times[4])
        assert events_of(chosen) == [("openai", 2), ("openai", 3), ("openai", 4)]
        assert chosen.bundle.judged_at_ms == times[4]
        assert chosen.explain(KEY).code is VerdictCode.REFRESHING
        assert chosen.verify(ledger) == ()


def test_a_stretch_of_a_stream_starts_from_the_state_before_it(tmp_path: Path) -> None:
    with a_ledger(tmp_path) as ledger:
        times = [recorded.event.at for recorded in ledger.read_all()]
        incident = Incident.select(ledger, [KEY], since=times[4])
        incident.save(tmp_path / "incident.json")
        (stream,) = Incident.load(tmp_path / "incident.json").bundle.streams
        assert stream.before.version == 3
        assert stream.before.state == ledger.state(KEY, 3)
        assert incident.explain(KEY, version=3).code is VerdictCode.NOT_RECORDED_HERE
        assert "not part of what was asked" in incident.explain(KEY, version=3).text
        with pytest.raises(NoSuchMoment):
            incident.explain(KEY, version=2)


def test_an_incident_is_chosen_by_correlation_id_with_all_that_lies_between() -> None:
    with a_ledger() as ledger:
        assert events_of(Incident.select(ledger, correlation_id="noon")) == [
            ("openai", 2),
            ("openai", 3),
            ("openai", 4),
            ("github", 2),
        ]
        assert events_of(Incident.select(ledger, [OTHER], correlation_id="noon")) == [("github", 2)]


def test_an_incident_is_chosen_by_attempt_with_what_had_published_the_tokens_it_spent() -> None:
    with a_ledger() as ledger:
        third = [recorded for recorded in ledger.read(KEY) if recorded.event.tag == "lease.refresh_started"][2]
        incident = Incident.select(ledger, attempt=third.event.id)
        assert events_of(incident) == [("openai", version) for version in range(1, 8)]
        assert incident.explain(KEY).code is VerdictCode.VALID


def test_an_incident_without_events_is_none() -> None:
    with a_ledger() as ledger:
        nothings: list[dict[str, Any]] = [{"since": 10**13}, {"until": 1}, {"correlation_id": "night"}]
        for nothing in [*nothings, {"attempt": "none"}]:
            with pytest.raises(NothingSelected):
                Incident.select(ledger, **nothing)
        with pytest.raises(NothingSelected):
            Incident.select(ledger, ["dev:nobody"])


def test_every_state_of_an_incident_is_the_ledgers_own() -> None:
    with a_ledger() as ledger:
        for step in Incident.select(ledger).steps:
            recorded = step.recorded
            assert step.after == ledger.state(recorded.key, recorded.version)
            assert step.before == ledger.state(recorded.key, recorded.version - 1)
            event: LeaseEvent = recorded.event
            assert evolve(step.before, event) == step.after


def test_a_history_the_fold_refuses_cannot_be_chosen_as_an_incident() -> None:
    with a_ledger() as ledger:
        ledger.recorder.append(NewEvent(str(OTHER), 4, "lease.expiring", b'{"id":"x","at":1,"actor":"y","prev":"z"}'))
        with pytest.raises(CorruptHistory):
            Incident.select(ledger, [OTHER])
