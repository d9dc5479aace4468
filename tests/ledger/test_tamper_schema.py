"""Every object of a ledger file's schema taken away, altered or added to: named, and no append is swallowed by one."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from tampering import (
    OTHER,
    Specimen,
    findings_of,
    judge,
    make_specimen,
    open_at,
    put,
    raw_connection,
)

from ledger.errors import LedgerStorageError


@pytest.fixture(scope="module")
def specimen(tmp_path_factory: pytest.TempPathFactory) -> Specimen:
    return make_specimen(tmp_path_factory.mktemp("specimen"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "auth.db"


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
    assert statement.split()[2] in {finding.object_name for finding in findings_of(path)}


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
    assert {finding.object_name for finding in findings_of(path)} == gathered


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
