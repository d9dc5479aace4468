"""The tamper table of the audit file: each thing in it changed, one at a time; each is found, by what it is."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from sqlite_utils import Database

from ledger.errors import LeaseTransitionError, LedgerStorageError
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.verification import Finding
from projections.audit import AuditLog
from projections.audit_file import AuditFileDamaged, AuditFileError
from projections.audit_rows import LEASE_COLUMNS, ROW_COLUMNS
from projections.recomputing import EVENT_TABLE_COLUMNS
from projections.witness import audit_findings

OPENAI, WORK, OTHER = (LeaseKey.parse(text) for text in ("dev:openai", "dev:openai:work", "prod:anthropic"))
STORE: Final = "5" * 64

TABLES: Final = ("checkpoint", "set_aside", "events", "leases", "set_aside_1_events")
INDEXES: Final = ("events_by_lease", "events_by_moment", "events_by_attempt", "events_set_back")
VIEWS: Final = ("attempts", "sessions")


class Scene(NamedTuple):
    """A ledger with every kind of row, and a file with an audit of it that keeps evidence too."""

    ledger: LeaseLedger
    path: Path
    audit_path: Path


def _live(ledger: LeaseLedger) -> None:
    for cause in (None, "because"):
        ledger.acquire_lease(OPENAI, 2_000_000_000, cause=cause)
        ledger.mark_expiring(OPENAI, cause=cause)
        attempt = ledger.begin_refresh(OPENAI, cause=cause)
        ledger.complete_refresh(OPENAI, 2**63, 1_900_000_000, attempt, recovered=bool(cause), cause=cause)
        ledger.begin_refresh(OPENAI, cause=cause)
        ledger.refresh_failed(OPENAI, False, error="TimeoutError", status=503, retry_after=1.5, cause=cause)
        ledger.mark_reauth_required(OPENAI, reason="revoked", cause=cause)
        ledger.acquire_lease(OPENAI, 2_000_000_000, cause=cause)
        ledger.begin_refresh(OPENAI, cause=cause)
        ledger.refresh_failed(OPENAI, True, error="invalid_grant", status=400, cause=cause)
        captured = ledger.snapshot(OPENAI)
        ledger.release_credential_lifecycle(OPENAI, cause=cause)
        ledger.release_lease(OPENAI, cause=cause)
        ledger.restore_auth_lifecycle_snapshot(OPENAI, captured, cause=cause)
    ledger.acquire_lease(WORK, 2**64 - 1, correlation_id="ticket 7")
    ledger.begin_refresh(WORK)
    ledger.acquire_lease(OTHER, 5)


@contextmanager
def _around_the_guards(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        triggers = raw.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            raw.execute(f"DROP TRIGGER {name}")
        yield raw
        for _, statement in triggers:
            raw.execute(statement)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    path = tmp_path_factory.mktemp("tampered") / "auth.db"
    clock = iter(range(1_700_000_000_000, 1_800_000_000_000, 1_000))
    with LeaseLedger.open(f"sqlite:///{path}?synchronous=normal", clock=lambda: next(clock), actor="ada") as ledger:
        _live(ledger)
        last = ledger.recorder.last_position()
        with AuditLog.open(ledger) as audit:
            with _around_the_guards(path) as raw:
                ((true,),) = raw.execute("SELECT state FROM stored_events WHERE rowid = ?", (last,)).fetchall()
                change = "UPDATE stored_events SET state = ? WHERE rowid = ?"
                raw.execute(change, (true.replace('"ada"', '"eve"'), last))
                audit.catch_up()
                raw.execute(change, (true, last))
            audit.catch_up()
            audit.rebuild()
        yield Scene(ledger, path, path.with_name("auth.audit.db"))


@pytest.fixture
def raw(scene: Scene) -> Iterator[sqlite3.Connection]:
    """The audit file by a connection that tampers, and undoes what it did."""
    with closing(sqlite3.connect(scene.audit_path, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        yield connection


def _found(scene: Scene, raw: sqlite3.Connection) -> list[Finding]:
    return audit_findings(scene.ledger.recorder, Database(raw, execute_plugins=False)) or []


def test_the_scene_has_every_kind_of_row_and_shows_nothing_but_its_evidence(scene: Scene, raw: sqlite3.Connection) -> None:
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
    by_kind = {
        tuple(value is None for value in row): row for row in _rows(raw, "events", EVENT_TABLE_COLUMNS)
    }
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
