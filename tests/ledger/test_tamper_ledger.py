"""Every column, row, object and page of a ledger file changed, one at a time: each is found, and named.

The changes are generated from the file itself. Guard triggers and the schema's text stand there again afterwards, so
that only the change can be what is found.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tampering import (
    HOME,
    OTHER,
    WORK,
    Specimen,
    around_the_guards,
    judge,
    make_specimen,
    open_at,
    put,
    raw_connection,
    use_in_every_other_way,
)

from ledger.chain import event_digest, fold_digest, genesis_digest
from ledger.codec import EventCodec
from ledger.errors import CorruptHistory, LedgerStorageError, NotALedger
from ledger.recorders.schema import EVENTS_INDEX
from ledger.state import EMPTY_STATE, evolve
from ledger.verification import Finding

Change = Callable[[sqlite3.Connection], object]

SMALL_PAGE_BYTES = 1_024


class Event(NamedTuple):
    position: int
    stream: str
    version: int
    tag: str
    body: str


@pytest.fixture(scope="module")
def specimen(tmp_path_factory: pytest.TempPathFactory) -> Specimen:
    return make_specimen(tmp_path_factory.mktemp("specimen"))


@pytest.fixture(scope="module")
def finely_paged(tmp_path_factory: pytest.TempPathFactory) -> Specimen:
    return make_specimen(tmp_path_factory.mktemp("finely_paged"), page_bytes=SMALL_PAGE_BYTES)


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


def _is_changed(specimen: Specimen, path: Path, change: Change) -> bool:
    """Change a fresh copy of the file; whether it is another afterwards, for not every value can be stored."""
    put(path, specimen.content)
    with around_the_guards(path) as connection:
        before = _dump(connection)
        change(connection)
        return _dump(connection) != before


def _dump(connection: sqlite3.Connection) -> list[Any]:
    queries = (
        "SELECT rowid, quote(originator_id), quote(originator_version), quote(topic), quote(state), typeof(topic) "
        "FROM stored_events",
        "SELECT quote(stream), quote(version), quote(fold), quote(digest), quote(state) FROM stored_folds",
        "SELECT quote(ledger_id), quote(format), quote(lowest_reader) FROM ledger_meta",
    )
    connection.text_factory = bytes
    try:
        return [connection.execute(query).fetchall() for query in queries]
    finally:
        connection.text_factory = str


def _findings(path: Path, specimen: Specimen | None = None) -> tuple[Finding, ...]:
    """What verifying finds, against the checkpoint kept of the specimen if one is given."""
    with open_at(path) as ledger:
        return ledger.verify(specimen.checkpoint if specimen else None).findings


def _set(table: str, column: str, new: "NewValue", where: str) -> Change:
    stored = "CAST(? AS TEXT)" if new.as_text else "?"
    changed = f"UPDATE OR IGNORE {table} SET {column} = {stored} WHERE {where}"
    return lambda connection: connection.execute(changed, (new.value,))


class NewValue(NamedTuple):
    value: object
    as_text: bool = False


def _other_values(value: object) -> list[NewValue]:
    """Values of every kind that a column could hold instead."""
    found: list[object] = [None, 7, -7, 2.5, 2**62, "", "text", b"\x00\xff"]
    if isinstance(value, int):
        found += [value + 1, value - 1, str(value) + " ", float(value) + 0.5, value + 2**32]
    if isinstance(value, str):
        found += [value[:-1], value + " ", value.swapcase(), value.encode() + b"\xff"]
    return [*(NewValue(other) for other in found if other != value), NewValue(b"\xff\xfe", as_text=True)]


# Events


@pytest.mark.parametrize("column", ["originator_id", "originator_version", "topic", "state"])
def test_whatever_else_stands_in_an_events_column_is_found_and_the_event_named(
    specimen: Specimen, path: Path, column: str
) -> None:
    events = _events(specimen, path)
    index = {"originator_id": 1, "originator_version": 2, "topic": 3, "state": 4}[column]
    tried = 0
    for event in _chosen(events):
        for new in _other_values(event[index]):
            if not _is_changed(specimen, path, _set("stored_events", column, new, f"rowid = {event.position}")):
                continue
            findings = _findings(path, specimen)
            named = {finding.position for finding in findings if finding.witness != "storage"}
            assert named & {event.position, _next_of_stream(events, event)}, (event, new, findings)
            tried += 1
    assert tried > 100


def test_an_event_at_another_position_is_found(specimen: Specimen, path: Path) -> None:
    events = _events(specimen, path)
    for event in _chosen(events):
        for position in (-1, 0, len(events) + 1, len(events) + 9, 2**62):
            change = _set("stored_events", "rowid", NewValue(position), f"rowid = {event.position}")
            assert _is_changed(specimen, path, change)
            findings = _findings(path, specimen)
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
    (finding,) = _findings(path, specimen)
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
    (finding,) = _findings(path, specimen)
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
    change = _set("stored_events", "state", NewValue(body, as_text=True), f"rowid = {last.position}")
    assert _is_changed(specimen, path, change)
    (finding,) = _findings(path)
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
            change = _set("stored_events", "state", NewValue(body), f"rowid = {event.position}")
            assert _is_changed(specimen, path, change)
            findings = _findings(path, specimen)
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
                _set("stored_events", "state", NewValue(body), f"rowid = {event.position}")(connection)
                _forge_chain(connection, specimen.checkpoint.ledger_id, event.stream)

            assert _is_changed(specimen, path, forge)
            findings = _findings(path, specimen)
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

        if not _is_changed(specimen, path, change):
            continue
        findings = _findings(path, specimen)
        touched = {event.stream, elsewhere.stream if how.startswith("moved") else event.stream}
        if how == "swapped":
            touched |= {other.stream for other in events[at - 1 : at + 2]}
        assert touched & {finding.key for finding in findings}, (event, findings)
        assert {"chain", "order", "checkpoint"} & {finding.witness for finding in findings}


# Stored folds


def test_whatever_else_stands_in_a_folds_column_is_found_or_changes_no_answer(specimen: Specimen, path: Path) -> None:
    put(path, specimen.content)
    with raw_connection(path) as connection:
        found = connection.execute("SELECT stream, version, fold, digest, state FROM stored_folds").fetchall()
    columns = ("stream", "version", "fold", "digest", "state")
    assert found
    named = 0
    for row in found:
        where = f"stream = '{row[0]}' AND version = {row[1]}"
        for column, value in zip(columns, row, strict=True):
            for new in _other_values(value):
                if not _is_changed(specimen, path, _set("stored_folds", column, new, where)):
                    continue
                verification, answers = judge(path)
                assert verification is not None
                folds = [finding for finding in verification.findings if finding.witness == "fold"]
                # Fold code before today's is void, so that a fold said to be of it is nobody's answer.
                assert folds or (column == "fold" and answers == specimen.answers), (column, new)
                assert all(finding.object_name == "stored_folds" for finding in folds)
                assert answers is None or answers == specimen.answers, (column, new)
                named += bool(folds)
    assert named > 60


def test_without_its_folds_a_ledger_is_well_and_answers_the_same(specimen: Specimen, path: Path) -> None:
    put(path, specimen.content)
    with raw_connection(path) as connection:
        connection.execute("DELETE FROM stored_folds")
    verification, answers = judge(path, specimen.checkpoint)
    assert verification is not None
    assert (verification.findings, answers) == ((), specimen.answers)


# Identity


@pytest.mark.parametrize("column", ["ledger_id", "format", "lowest_reader"])
def test_whatever_else_the_ledger_says_of_itself_is_found_or_refused(
    specimen: Specimen, path: Path, column: str
) -> None:
    put(path, specimen.content)
    with raw_connection(path) as connection:
        ((value,),) = connection.execute(f"SELECT {column} FROM ledger_meta")
    for new in _other_values(value):
        if not _is_changed(specimen, path, _set("ledger_meta", column, new, "TRUE")):
            continue
        try:
            findings = _findings(path, specimen)
        except LedgerStorageError as error:
            assert str(path) in str(error)
            continue
        if column == "ledger_id":
            firsts = {finding.position for finding in findings if finding.witness == "chain"}
            assert firsts >= {1, 2, 3}
            assert any("another ledger" in finding.detail for finding in findings if finding.witness == "checkpoint")
        else:
            assert ("storage", f"ledger_meta.{column}") in {(f.witness, f.object_name) for f in findings}, new


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("DELETE FROM ledger_meta", "no row"),
        ("INSERT INTO ledger_meta SELECT * FROM ledger_meta", "more than one row"),
        ("INSERT INTO ledger_meta VALUES ('another', 1, 1)", "more than one row"),
        ("UPDATE ledger_meta SET ledger_id = x'00'", "another type"),
        ("UPDATE ledger_meta SET lowest_reader = 'one'", "another type"),
        ("UPDATE ledger_meta SET lowest_reader = 9", "upgrade"),
    ],
)
def test_a_file_that_does_not_say_whose_ledger_it_is_is_refused(
    specimen: Specimen, path: Path, statement: str, reason: str
) -> None:
    put(path, specimen.content)
    with around_the_guards(path) as connection:
        connection.execute(statement)
    with pytest.raises(NotALedger, match=reason):
        open_at(path)


def test_a_file_whose_first_page_lists_nothing_is_refused_and_not_written_over(specimen: Specimen, path: Path) -> None:
    damaged = bytearray(specimen.content)
    damaged[103:105] = b"\0\0"
    put(path, bytes(damaged))
    with pytest.raises(NotALedger, match="holds data but no table"):
        open_at(path)
    assert path.read_bytes() == damaged


def test_a_second_identity_written_under_an_open_ledger_is_found(specimen: Specimen, path: Path) -> None:
    put(path, specimen.content)
    with open_at(path) as ledger:
        with raw_connection(path) as connection:
            connection.execute("INSERT INTO ledger_meta VALUES ('another', 1, 1)")
        assert "ledger_meta" in {finding.object_name for finding in ledger.verify().findings}


@pytest.mark.parametrize("setting", ["application_id", "user_version"])
@pytest.mark.parametrize("value", [1, -1, 0x4C4C4545])
def test_another_number_in_the_files_header_is_named(specimen: Specimen, path: Path, setting: str, value: int) -> None:
    put(path, specimen.content)
    with raw_connection(path) as connection:
        connection.execute(f"PRAGMA {setting} = {value}")
    (finding,) = _findings(path)
    assert (finding.witness, finding.object_name) == ("storage", setting)


# Schema


class Object(NamedTuple):
    kind: str
    name: str
    sql: str | None


def _objects(path: Path) -> list[Object]:
    with raw_connection(path) as connection:
        return [Object._make(row) for row in connection.execute("SELECT type, name, sql FROM sqlite_schema")]


def _untouched_objects(specimen: Specimen, path: Path) -> list[Object]:
    put(path, specimen.content)
    return _objects(path)


def test_every_table_index_view_and_trigger_that_is_gone_is_named_or_refused(specimen: Specimen, path: Path) -> None:
    objects = _untouched_objects(specimen, path)
    assert {kind for kind, *_ in objects} == {"table", "index", "view", "trigger"}
    for kind, name, _ in objects:
        put(path, specimen.content)
        with raw_connection(path) as connection:
            # Below SQL: the rest of the file stays as it is, pages of the object included.
            connection.execute("DELETE FROM sqlite_schema WHERE type = ? AND name = ?", (kind, name))
        _assert_named_or_refused(path, name)
    for kind, name, sql in objects:
        if sql is None:
            continue
        put(path, specimen.content)
        with raw_connection(path) as connection:
            connection.execute(f"DROP {kind} {name}")
        _assert_named_or_refused(path, name)


def _assert_named_or_refused(path: Path, name: str) -> None:
    verification = judge(path).verification
    if verification is None:
        with pytest.raises(LedgerStorageError):
            open_at(path)
    else:
        named = {finding.object_name for finding in verification.findings if finding.witness == "storage"}
        assert name in named, verification.findings


def _other_texts(kind: str, name: str, sql: str) -> Iterator[str]:
    yield sql + " "
    yield sql.replace("\n", "\n ", 1) if "\n" in sql else sql.replace(" ", "  ", 1)
    yield sql + " -- another"
    match kind:
        case "trigger":
            head = sql[: sql.index("BEGIN")]
            yield f"{head}BEGIN SELECT 1; END"
            yield f"{head}BEGIN SELECT RAISE(IGNORE); END"
            yield sql.replace("RAISE(ABORT", "RAISE(IGNORE")
        case "view":
            yield sql + " WHERE originator_version = 1"
            yield sql.replace("topic AS tag", "'lease.acquired' AS tag")
        case "table":
            yield sql.replace(name, f"{name} /* another */", 1)


def test_every_other_text_of_a_table_view_or_trigger_is_named_or_refused(specimen: Specimen, path: Path) -> None:
    tried = 0
    for kind, name, sql in _untouched_objects(specimen, path):
        if sql is None:
            continue
        for other in dict.fromkeys(_other_texts(kind, name, sql)):
            assert other != sql
            put(path, specimen.content)
            with raw_connection(path) as connection:
                changed = "UPDATE sqlite_schema SET sql = ? WHERE type = ? AND name = ?"
                connection.execute(changed, (other, kind, name))
            _assert_named_or_refused(path, name)
            tried += 1
    assert tried > 40


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE stored_events ADD COLUMN more",
        "ALTER TABLE stored_folds ADD COLUMN more",
        "ALTER TABLE ledger_meta ADD COLUMN more",
    ],
)
def test_a_column_more_is_named(specimen: Specimen, path: Path, statement: str) -> None:
    put(path, specimen.content)
    with raw_connection(path) as connection:
        connection.execute(statement)
    assert statement.split()[2] in {finding.object_name for finding in _findings(path)}


ADDED = {
    "a table": "CREATE TABLE added (a)",
    "an index": "CREATE INDEX added ON stored_events (topic)",
    "a partial index": "CREATE INDEX added ON stored_events (originator_id) WHERE topic = 'lease.acquired'",
    "an index of folds": "CREATE INDEX added ON stored_folds (fold)",
    "a view": "CREATE VIEW added AS SELECT 1",
    "a trigger that swallows": "CREATE TRIGGER added BEFORE INSERT ON stored_events BEGIN SELECT RAISE(IGNORE); END",
    "a trigger that swallows logouts": (
        "CREATE TRIGGER added BEFORE INSERT ON stored_events WHEN NEW.topic = 'lease.released' "
        "BEGIN SELECT RAISE(IGNORE); END"
    ),
    "a trigger on folds": "CREATE TRIGGER added AFTER INSERT ON stored_folds BEGIN DELETE FROM stored_folds; END",
    "a trigger on a view": "CREATE TRIGGER added INSTEAD OF INSERT ON lease_events BEGIN SELECT 1; END",
}


@pytest.mark.parametrize("what", ADDED)
def test_an_object_more_is_named(specimen: Specimen, path: Path, what: str) -> None:
    put(path, specimen.content)
    with raw_connection(path) as connection:
        connection.execute(ADDED[what])
    verification, answers = judge(path, specimen.checkpoint)
    assert verification is not None
    assert [(f.witness, f.object_name) for f in verification.findings] == [("storage", "added")]
    assert answers == specimen.answers


def test_statistics_that_sqlite_gathers_are_named_too(specimen: Specimen, path: Path) -> None:
    put(path, specimen.content)
    with raw_connection(path) as connection:
        connection.execute("ANALYZE")
    gathered = {thing.name for thing in _objects(path) if thing.name.startswith("sqlite_stat")}
    assert gathered
    assert {finding.object_name for finding in _findings(path)} == gathered


# Appends that never arrive


SWALLOWING = {
    "before": ("CREATE TRIGGER added BEFORE INSERT ON stored_events BEGIN SELECT RAISE(IGNORE); END",),
    "before a logout": (ADDED["a trigger that swallows logouts"],),
    "after": (
        "DROP TRIGGER stored_events_no_delete",
        "CREATE TRIGGER added AFTER INSERT ON stored_events "
        "BEGIN DELETE FROM stored_events WHERE rowid = NEW.rowid; END",
    ),
    "by a guard that is altered": (
        "DROP TRIGGER stored_events_next_version",
        "CREATE TRIGGER stored_events_next_version BEFORE INSERT ON stored_events BEGIN SELECT RAISE(IGNORE); END",
    ),
    "changed on its way": (
        "DROP TRIGGER stored_events_no_update",
        "CREATE TRIGGER added AFTER INSERT ON stored_events BEGIN "
        "UPDATE stored_events SET topic = 'lease.expiring' WHERE rowid = NEW.rowid; END",
    ),
}


@pytest.mark.parametrize("how", SWALLOWING)
def test_an_event_that_does_not_arrive_as_it_was_sent_is_never_acknowledged(
    specimen: Specimen, path: Path, how: str
) -> None:
    put(path, specimen.content)
    with raw_connection(path) as connection:
        for statement in SWALLOWING[how]:
            connection.execute(statement)
    with open_at(path) as ledger:
        with pytest.raises(LedgerStorageError):
            ledger.release_lease(OTHER)
        assert {finding.witness for finding in ledger.verify(specimen.checkpoint).findings} == {"storage"}


# The index


def _pages_of_tree(content: bytes, root: int, page_bytes: int) -> list[int]:
    """The numbers of a tree's pages: root, inner pages, leaves."""
    page = content[(root - 1) * page_bytes : root * page_bytes]
    if page[0] in (10, 13):
        return [root]
    cells = int.from_bytes(page[3:5], "big")
    pointers = [int.from_bytes(page[12 + 2 * n : 14 + 2 * n], "big") for n in range(cells)]
    children = [int.from_bytes(page[at : at + 4], "big") for at in pointers] + [int.from_bytes(page[8:12], "big")]
    return [root, *(number for child in children for number in _pages_of_tree(content, child, page_bytes))]


def _index_pages(specimen: Specimen, path: Path, page_bytes: int) -> list[int]:
    put(path, specimen.content)
    with raw_connection(path) as connection:
        ((root,),) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (EVENTS_INDEX,))
    return _pages_of_tree(specimen.content, root, page_bytes)


def test_every_key_that_is_another_in_the_index_is_found_and_its_event_named(
    finely_paged: Specimen, path: Path
) -> None:
    pages = _index_pages(finely_paged, path, SMALL_PAGE_BYTES)
    assert len(pages) > 2
    content, tried = finely_paged.content, 0
    for key in (WORK, HOME, OTHER):
        name = str(key).encode()
        for page in pages:
            at = content.find(name, (page - 1) * SMALL_PAGE_BYTES, page * SMALL_PAGE_BYTES)
            while at != -1:
                changed = bytearray(content)
                changed[at + len(name) - 1] ^= 3
                put(path, bytes(changed))
                verification, answers = judge(path)
                assert verification is not None
                of_index = [finding for finding in verification.findings if finding.object_name == EVENTS_INDEX]
                assert {finding.witness for finding in of_index} == {"storage"}
                named = {(finding.key, finding.version, finding.position) for finding in of_index}
                stored = {(str(event.key), event.version, event.position) for event in finely_paged.answers.log}
                assert named & stored, verification.findings
                assert answers != finely_paged.answers
                tried += 1
                at = content.find(name, at + 1, page * SMALL_PAGE_BYTES)
    assert tried == finely_paged.checkpoint.position


# Pages


BYTE_CLASSES: dict[str, Callable[[int], int]] = {
    "lowest bit": lambda byte: byte ^ 1,
    "highest bit": lambda byte: byte ^ 0x80,
    "zero": lambda byte: 0,
    "all ones": lambda byte: 0xFF,
}


def _assert_found_refused_or_unchanged(specimen: Specimen, path: Path, content: bytes, what: object) -> bool:
    put(path, content)
    verification, answers = judge(path, specimen.checkpoint)
    told = verification is None or not verification.ok
    assert told or answers == specimen.answers, what
    return told


def _places(page: int, page_bytes: int, byte_class: int) -> Iterator[int]:
    """Bytes of a page to change: the file's header and the page's in whole, of the rest some from everywhere."""
    header = 108 if page == 0 else 8
    yield from range(header)
    yield from range(header + page * 5 % 53 + byte_class * 53, page_bytes, 4 * 53)


@pytest.mark.parametrize("byte_class", BYTE_CLASSES)
def test_a_changed_byte_of_any_page_is_found_or_refused_or_changes_no_answer(
    finely_paged: Specimen, path: Path, byte_class: str
) -> None:
    content, pages = finely_paged.content, len(finely_paged.content) // SMALL_PAGE_BYTES
    mattered = 0
    for page in range(pages):
        for place in _places(page, SMALL_PAGE_BYTES, list(BYTE_CLASSES).index(byte_class)):
            at = page * SMALL_PAGE_BYTES + place
            byte = BYTE_CLASSES[byte_class](content[at])
            if byte != content[at]:
                damaged = content[:at] + bytes([byte]) + content[at + 1 :]
                mattered += _assert_found_refused_or_unchanged(finely_paged, path, damaged, (page, place, byte))
    assert mattered > 200


@pytest.mark.parametrize("page_bytes", [SMALL_PAGE_BYTES, 4_096])
def test_a_page_that_is_gone_blank_or_another_is_found_or_refused(
    specimen: Specimen, finely_paged: Specimen, path: Path, page_bytes: int
) -> None:
    chosen = finely_paged if page_bytes == SMALL_PAGE_BYTES else specimen
    content = chosen.content
    pages = [content[at : at + page_bytes] for at in range(0, len(content), page_bytes)]
    for number, page in enumerate(pages):
        other = pages[(number + 3) % len(pages)]
        for instead in (b"\0" * page_bytes, b"\xff" * page_bytes, other):
            if instead != page:
                damaged = b"".join([*pages[:number], instead, *pages[number + 1 :]])
                assert _assert_found_refused_or_unchanged(chosen, path, damaged, number), number
        for shorter in (number * page_bytes, number * page_bytes + page_bytes // 2):
            # Cut down to nothing it is a file that never held anything, and a new ledger.
            if shorter > 0:
                assert _assert_found_refused_or_unchanged(chosen, path, content[:shorter], shorter), shorter


def test_a_damaged_ledger_is_used_in_every_way_without_any_error_but_its_own(
    finely_paged: Specimen, path: Path
) -> None:
    content = finely_paged.content
    for number, at in enumerate(range(7, len(content), 311)):
        damaged = bytearray(content)
        change = list(BYTE_CLASSES.values())[number % len(BYTE_CLASSES)]
        damaged[at] = change(damaged[at])
        put(path, bytes(damaged))
        use_in_every_other_way(path)


def test_verification_goes_on_behind_a_page_that_cannot_be_read(specimen: Specimen, path: Path) -> None:
    put(path, specimen.content)
    with raw_connection(path) as connection:
        ((root,),) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'stored_events'")
    leaves = _pages_of_tree(specimen.content, root, 4_096)[1:]
    last = specimen.checkpoint.position
    damaged = bytearray(specimen.content)
    damaged[(leaves[0] - 1) * 4_096] = 0xFF
    put(path, bytes(damaged))
    with around_the_guards(path) as connection:
        connection.execute("UPDATE stored_events SET topic = 'lease.other' WHERE rowid = ?", (last,))
    verification = judge(path).verification
    assert verification is not None
    gap = next(finding for finding in verification.findings if finding.position == 1)
    assert (gap.witness, gap.object_name) == ("storage", "stored_events")
    beyond = [(finding.witness, finding.position) for finding in verification.findings if finding.witness != "storage"]
    assert beyond == [("body", last)]
