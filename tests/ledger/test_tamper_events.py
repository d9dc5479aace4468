"""Every column, field and row of the events of a ledger file changed, one at a time: each is found, and named.

The changes are generated from the file itself. Guard triggers and the schema's text stand there again afterwards, so
that only the change can be what is found.
"""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tampering import (
    HOME,
    OTHER,
    WORK,
    NewValue,
    Specimen,
    around_the_guards,
    findings_of,
    is_changed,
    make_specimen,
    open_at,
    other_values,
    put,
    raw_connection,
    set_to,
)

from ledger.chain import event_digest, fold_digest, genesis_digest
from ledger.codec import EventCodec
from ledger.errors import CorruptHistory
from ledger.state import EMPTY_STATE, evolve


class Event(NamedTuple):
    position: int
    stream: str
    version: int
    tag: str
    body: str


@pytest.fixture(scope="module")
def specimen(tmp_path_factory: pytest.TempPathFactory) -> Specimen:
    return make_specimen(tmp_path_factory.mktemp("specimen"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "auth.db"


def _events(specimen: Specimen, path: Path) -> list[Event]:
    put(path, specimen.content)
    with raw_connection(path) as connection:
        query = "SELECT rowid, originator_id, originator_version, topic, state FROM stored_events ORDER BY rowid"
        return [Event._make(row) for row in connection.execute(query)]


def _chosen(events: list[Event]) -> list[Event]:
    """One event of every tag, and the first and the last of every stream."""
    firsts = {event.stream: event for event in reversed(events)}
    lasts = {event.stream: event for event in events}
    tags = {event.tag: event for event in events}
    return sorted({*firsts.values(), *lasts.values(), *tags.values()})


def _next_of_stream(events: list[Event], event: Event) -> int | None:
    later = (other.position for other in events if other.stream == event.stream and other.version == event.version + 1)
    return next(later, None)


@pytest.mark.parametrize("column", ["originator_id", "originator_version", "topic", "state"])
def test_whatever_else_stands_in_an_events_column_is_found_and_the_event_named(
    specimen: Specimen, path: Path, column: str
) -> None:
    events = _events(specimen, path)
    index = {"originator_id": 1, "originator_version": 2, "topic": 3, "state": 4}[column]
    tried = 0
    for event in _chosen(events):
        for new in other_values(event[index]):
            if not is_changed(specimen, path, set_to("stored_events", column, new, f"rowid = {event.position}")):
                continue
            findings = findings_of(path, specimen)
            named = {finding.position for finding in findings if finding.witness != "storage"}
            assert named & {event.position, _next_of_stream(events, event)}, (event, new, findings)
            tried += 1
    assert tried > 100


def test_an_event_at_another_position_is_found(specimen: Specimen, path: Path) -> None:
    events = _events(specimen, path)
    for event in _chosen(events):
        for position in (-1, 0, len(events) + 1, len(events) + 9, 2**62):
            change = set_to("stored_events", "rowid", NewValue(position), f"rowid = {event.position}")
            assert is_changed(specimen, path, change)
            findings = findings_of(path, specimen)
            # The last event at the end of the log is where it belongs but for the gap that it left.
            assert any(
                (finding.key, finding.version) == (event.stream, event.version)
                or finding.position in (position, event.position + 1)
                for finding in findings
            ), (event, position, findings)


@pytest.mark.parametrize("position", [0, -7])
def test_an_event_before_the_first_position_is_named_though_the_log_does_not_show_it(
    specimen: Specimen, path: Path, position: int
) -> None:
    head = specimen.checkpoint.heads[str(OTHER)]
    body = json.dumps({"id": "forged", "at": 1, "actor": "tester", "prev": head.digest})
    put(path, specimen.content)
    with around_the_guards(path) as connection:
        connection.execute(
            "INSERT INTO stored_events (rowid, originator_id, originator_version, topic, state) VALUES (?, ?, ?, ?, ?)",
            (position, str(OTHER), head.version + 1, "lease.released", body),
        )
    (finding,) = findings_of(path, specimen)
    assert (finding.witness, finding.position, finding.key, finding.version) == (
        "storage",
        position,
        str(OTHER),
        head.version + 1,
    )


def _append(connection: sqlite3.Connection, stream: str, version: int, body: str) -> None:
    insert = "INSERT INTO stored_events (originator_id, originator_version, topic, state) VALUES (?, ?, ?, ?)"
    connection.execute(insert, (stream, version, "lease.released", body))


def test_a_stream_that_is_no_leases_is_named_though_its_chain_holds(specimen: Specimen, path: Path) -> None:
    prev = genesis_digest(specimen.checkpoint.ledger_id, "nobody")
    put(path, specimen.content)
    with around_the_guards(path) as connection:
        _append(connection, "nobody", 1, json.dumps({"id": "forged", "at": 1, "actor": "tester", "prev": prev}))
    (finding,) = findings_of(path, specimen)
    assert (finding.witness, finding.key, finding.version) == ("body", "nobody", 1)
    with open_at(path) as ledger:
        for ask in (ledger.keys, lambda: list(ledger.read_all())):
            with pytest.raises(CorruptHistory, match="its stream is no lease"):
                ask()


def test_bytes_that_are_no_text_where_no_field_is_read_are_found_in_the_last_event_too(
    specimen: Specimen, path: Path
) -> None:
    last = _events(specimen, path)[-1]
    body = last.body[:-1].encode() + b',"n\xffw":1}'
    change = set_to("stored_events", "state", NewValue(body, as_text=True), f"rowid = {last.position}")
    assert is_changed(specimen, path, change)
    (finding,) = findings_of(path)
    assert (finding.witness, finding.position) == ("body", last.position)


@pytest.mark.parametrize("version", [2, 20])
def test_a_stream_with_an_event_missing_in_its_middle_is_not_answered_from(
    specimen: Specimen, path: Path, version: int
) -> None:
    put(path, specimen.content)
    with around_the_guards(path) as connection:
        missing = "DELETE FROM stored_events WHERE originator_id = ? AND originator_version = ?"
        connection.execute(missing, (str(WORK), version))
        connection.execute("DELETE FROM stored_folds")
    with open_at(path) as ledger:
        asked = (
            lambda: ledger.state(WORK),
            lambda: ledger.snapshot(WORK),
            lambda: list(ledger.read(WORK)),
            lambda: ledger.acquire_lease(WORK, 5),
        )
        for ask in asked:
            with pytest.raises(CorruptHistory, match=f"event {version} of {WORK} is corrupt: it is missing"):
                ask()


def _other_field(value: object) -> Iterator[object]:
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield from (value + 1, -1, 2**70)
    elif isinstance(value, str):
        yield from (value + "x", "")
    elif isinstance(value, dict):
        for name in value:
            yield from ({**value, name: other} for other in _other_field(value[name]))


def _other_bodies(body: str) -> Iterator[str]:
    """The body with each of its fields changed to each kind of value, left out, or repeated, one at a time."""
    fields = json.loads(body)
    for name, value in fields.items():
        for other in (*_other_field(value), None, [], {"other": 1}):
            yield json.dumps({**fields, name: other}, separators=(",", ":"))
        yield json.dumps({other: fields[other] for other in fields if other != name}, separators=(",", ":"))
        yield body[:-1] + f",{json.dumps(name)}:0}}"
    yield body[:-1] + ',"more":1}'
    yield body + " "


def test_a_changed_field_of_a_body_is_found_and_the_event_named(specimen: Specimen, path: Path) -> None:
    events = _events(specimen, path)
    tried = 0
    for event in _chosen(events):
        for body in _other_bodies(event.body):
            change = set_to("stored_events", "state", NewValue(body), f"rowid = {event.position}")
            assert is_changed(specimen, path, change)
            findings = findings_of(path, specimen)
            named = {finding.position for finding in findings if finding.witness in ("body", "chain", "checkpoint")}
            assert named & {event.position, _next_of_stream(events, event)}, (event, body, findings)
            tried += 1
    assert tried > 400


def _forge_chain(connection: sqlite3.Connection, ledger_id: str, stream: str) -> None:
    """Link a stream's events anew and fold them anew, as somebody who can rewrite the file and knows how would."""
    codec, state, digest = EventCodec(), EMPTY_STATE, genesis_digest(ledger_id, stream)
    query = "SELECT rowid, originator_version, topic, state FROM stored_events WHERE originator_id = ? ORDER BY 2"
    for position, version, tag, body in connection.execute(query, (stream,)).fetchall():
        event = codec.decode(tag, json.dumps({**json.loads(body), "prev": digest}))
        encoded = codec.encode(event)
        connection.execute("UPDATE stored_events SET state = ? WHERE rowid = ?", (encoded.decode(), position))
        digest, state = event_digest(ledger_id, stream, version, tag, encoded), evolve(state, event, stream)
        folded = json.dumps(json.loads(_encoded(state)), separators=(",", ":"), ensure_ascii=False)
        connection.execute(
            "UPDATE stored_folds SET state = ?, digest = ? WHERE stream = ? AND version = ?",
            (folded, fold_digest(digest, folded.encode()), stream, version),
        )


def _encoded(state: Any) -> bytes:
    return EventCodec().encode(state)


def _forged_bodies(body: str) -> Iterator[str]:
    fields = json.loads(body)
    for name, value in fields.items():
        if name == "prev":
            continue
        if isinstance(value, bool):
            yield json.dumps({**fields, name: not value})
        elif isinstance(value, int | float):
            yield json.dumps({**fields, name: value + 1})
        elif isinstance(value, str):
            yield json.dumps({**fields, name: value + "x"})


def test_a_change_with_everything_after_it_forged_is_found_by_a_kept_checkpoint_alone(
    specimen: Specimen, path: Path
) -> None:
    events = _events(specimen, path)
    invisible = 0
    for event in _chosen(events):
        for body in _forged_bodies(event.body):

            def forge(connection: sqlite3.Connection, event: Event = event, body: str = body) -> None:
                set_to("stored_events", "state", NewValue(body), f"rowid = {event.position}")(connection)
                _forge_chain(connection, specimen.checkpoint.ledger_id, event.stream)

            assert is_changed(specimen, path, forge)
            findings = findings_of(path, specimen)
            assert ("checkpoint", event.stream) in {(f.witness, f.key) for f in findings}, (event, body, findings)
            invisible += {finding.witness for finding in findings} == {"checkpoint"}
    assert invisible > 50


def _renumbered(connection: sqlite3.Connection, events: list[Event]) -> None:
    """Lay all events down anew, with the positions and versions that their order gives them."""
    connection.execute("DELETE FROM stored_events")
    versions: dict[str, int] = {}
    for position, event in enumerate(events, 1):
        version = versions[event.stream] = versions.get(event.stream, 0) + 1
        connection.execute(
            "INSERT INTO stored_events (rowid, originator_id, originator_version, topic, state) VALUES (?, ?, ?, ?, ?)",
            (position, event.stream, version, event.tag, event.body),
        )


@pytest.mark.parametrize("how", ["removed", "removed and closed", "doubled", "swapped", "moved to another stream"])
def test_events_removed_doubled_or_moved_are_found_and_their_lease_named(
    specimen: Specimen, path: Path, how: str
) -> None:
    events = _events(specimen, path)
    for event in _chosen(events):
        at = event.position - 1
        others = events[:at] + events[at + 1 :]
        elsewhere = event._replace(stream=str(HOME if event.stream == str(WORK) else WORK))
        before, after = others[: at + 1], others[at + 1 :]
        reordered = {
            "removed and closed": others,
            "doubled": [*events[: at + 1], event, *events[at + 1 :]],
            "swapped": [*before, event, *after] if after else [*others[:-1], event, others[-1]],
            "moved to another stream": [*events[:at], elsewhere, *events[at + 1 :]],
        }

        def change(connection: sqlite3.Connection, event: Event = event, reordered: Any = reordered) -> None:
            if how == "removed":
                connection.execute("DELETE FROM stored_events WHERE rowid = ?", (event.position,))
            else:
                _renumbered(connection, reordered[how])

        if not is_changed(specimen, path, change):
            continue
        findings = findings_of(path, specimen)
        touched = {event.stream, elsewhere.stream if how.startswith("moved") else event.stream}
        if how == "swapped":
            touched |= {other.stream for other in events[at - 1 : at + 2]}
        assert touched & {finding.key for finding in findings}, (event, findings)
        assert {"chain", "order", "checkpoint"} & {finding.witness for finding in findings}
