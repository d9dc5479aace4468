"""The tamper table of the audit file's rows: each value changed, one at a time; each is found, by what it is."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any, Final

import pytest
from audit_scene import OTHER, Scene, audited_scene
from sqlite_utils import Database

from ledger.verification import Finding
from projections.audit_rows import LEASE_COLUMNS, ROW_COLUMNS
from projections.recomputing import EVENT_TABLE_COLUMNS
from projections.witness import audit_findings


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The scene whose audit file is changed."""
    with audited_scene(tmp_path_factory.mktemp("tampered")) as made:
        yield made


@pytest.fixture
def raw(scene: Scene) -> Iterator[sqlite3.Connection]:
    """The audit file by a connection that tampers, and undoes what it did."""
    with closing(sqlite3.connect(scene.audit_path, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        yield connection


def _found(scene: Scene, raw: sqlite3.Connection) -> list[Finding]:
    return audit_findings(scene.ledger.recorder, Database(raw, execute_plugins=False)) or []


def test_the_scene_has_every_kind_of_row_and_shows_nothing_but_its_evidence(
    scene: Scene, raw: sqlite3.Connection
) -> None:
    kinds = {
        frozenset(name for name, value in zip(EVENT_TABLE_COLUMNS, row, strict=True) if value is not None)
        for row in raw.execute(f"SELECT {', '.join(EVENT_TABLE_COLUMNS)} FROM events")
    }
    assert len(kinds) >= len(ROW_COLUMNS)
    assert raw.execute("SELECT COUNT(DISTINCT tag) FROM events").fetchone() == (9,)
    for finding in _found(scene, raw):
        assert "an earlier audit file" in finding.detail
        assert finding.key == str(OTHER)


VALUES: Final[dict[str, Callable[[Any], Any]]] = {
    "nothing": lambda _: None,
    "another text": lambda value: f"{value}x",
    "no text": lambda _: "",
    "another number": lambda value: value + 1 if isinstance(value, int) else 7,
    "a number of another type": lambda value: float(value) if isinstance(value, int) else 0.5,
    "bytes": lambda value: str(value).encode(),
    "text that is none": lambda _: b"\xff\xfe",
}


def _changes(
    raw: sqlite3.Connection, table: str, columns: tuple[str, ...], row: tuple[Any, ...], turn: int | None = None
) -> Iterator[str]:
    """Change each column of a row to a value of each kind, or of two, taking turns; in between all is as it was."""
    place, kinds = f"{columns[0]} IS ?", list(VALUES.items())
    for number, (column, stored) in enumerate(zip(columns, row, strict=True)):
        first = 0 if turn is None else (turn + number) % len(kinds)
        for kind, value in (kinds + kinds)[first : first + (len(kinds) if turn is None else 2)]:
            to = "CAST(? AS TEXT)" if kind == "text that is none" else "?"
            changed = f"SELECT 1 FROM {table} WHERE {place} AND {column} IS ? AND typeof({column}) = ?"
            raw.execute("SAVEPOINT one")
            ((kept_as,),) = raw.execute(f"SELECT typeof({column}) FROM {table} WHERE {place}", (row[0],)).fetchall()
            with suppress(sqlite3.IntegrityError, sqlite3.OperationalError):
                raw.execute(f"UPDATE {table} SET {column} = {to} WHERE {place}", (value(stored), row[0]))
                if not raw.execute(changed, (row[0], stored, kept_as)).fetchall():
                    yield f"{table}.{column} = {stored!r}, made {kind}"
            raw.execute("ROLLBACK TO one")
            raw.execute("RELEASE one")


def _rows(raw: sqlite3.Connection, table: str, columns: tuple[str, ...]) -> list[tuple[Any, ...]]:
    return raw.execute(f"SELECT {', '.join(columns)} FROM {table} ORDER BY 1").fetchall()


def test_each_column_of_each_kind_of_event_is_recomputed_and_the_event_named(
    scene: Scene, raw: sqlite3.Connection
) -> None:
    by_kind = {tuple(value is None for value in row): row for row in _rows(raw, "events", EVENT_TABLE_COLUMNS)}
    baseline, tried = _found(scene, raw), 0
    for turn, row in enumerate(by_kind.values()):
        named = dict(zip(EVENT_TABLE_COLUMNS, row, strict=True))
        for change in _changes(raw, "events", EVENT_TABLE_COLUMNS, row, turn or None):
            tried += 1
            new = [finding for finding in _found(scene, raw) if finding not in baseline]
            places = {(finding.witness, finding.position, finding.key, finding.version) for finding in new}
            assert ("audit", named["position"], named["key"], named["version"]) in places, (change, new)
            assert {finding.object_name for finding in new} & {"events"}, (change, new)
    assert tried > 800


def test_each_column_of_each_lease_is_recomputed_and_the_lease_named(scene: Scene, raw: sqlite3.Connection) -> None:
    baseline, tried = _found(scene, raw), 0
    for row in _rows(raw, "leases", LEASE_COLUMNS):
        for change in _changes(raw, "leases", LEASE_COLUMNS, row):
            tried += 1
            new = [finding for finding in _found(scene, raw) if finding not in baseline]
            assert ("audit", row[0], "leases") in {(f.witness, f.key, f.object_name) for f in new}, (change, new)
    assert tried > 200


@pytest.mark.parametrize("table", ["checkpoint", "set_aside"])
def test_each_column_of_what_says_how_far_the_file_goes_is_checked(
    scene: Scene, raw: sqlite3.Connection, table: str
) -> None:
    columns = tuple(name for _, name, *_ in raw.execute(f"PRAGMA table_info({table})"))
    baseline, tried = _found(scene, raw), 0
    for row in _rows(raw, table, columns):
        for change in _changes(raw, table, columns, row):
            tried += 1
            new = [finding for finding in _found(scene, raw) if finding not in baseline]
            assert ("audit", table) in {(finding.witness, finding.object_name) for finding in new}, (change, new)
    assert tried > 20


def test_each_column_of_an_event_that_was_set_aside_is_recomputed(scene: Scene, raw: sqlite3.Connection) -> None:
    baseline, table, tried = _found(scene, raw), "set_aside_1_events", 0
    for row in _rows(raw, table, EVENT_TABLE_COLUMNS)[:1]:
        for change in _changes(raw, table, EVENT_TABLE_COLUMNS, row):
            tried += 1
            new = [finding for finding in _found(scene, raw) if finding not in baseline]
            assert "audit" in {finding.witness for finding in new if finding.key or finding.object_name}, (change, new)
    assert tried > 100
