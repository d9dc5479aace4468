"""The tamper table of the audit file as a file: its tables, indexes, views and triggers, and the bytes of its pages."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

import pytest
from audit_scene import OPENAI, WORK, Scene, audited_scene

from ledger.errors import LedgerStorageError
from projections.audit import AuditLog
from projections.audit_file import AuditFileDamaged

PAGE_SIZE: Final = 4096

TABLES: Final = ("checkpoint", "set_aside", "events", "leases", "set_aside_1_events")
INDEXES: Final = (
    "events_by_lease",
    "events_by_moment",
    "events_by_attempt",
    "events_set_back",
    "events_by_fingerprint",
)
VIEWS: Final = ("attempts", "sessions")

REWRITE: Final = "UPDATE sqlite_schema SET sql = replace(sql, '{old}', '{new}') WHERE name = '{name}'"

TAMPERINGS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    **{f"{name} dropped": (name, (f"DROP VIEW {name}",)) for name in VIEWS},
    **{f"{name} dropped": (name, (f"DROP INDEX {name}",)) for name in INDEXES},
    **{f"{name} dropped": (name, (f"DROP TABLE {name}",)) for name in TABLES[:4]},
    **{
        f"{name} replaced": (
            name,
            (f"DROP VIEW {name}", f"CREATE VIEW {name} AS SELECT key, 'open' AS ended FROM leases"),
        )
        for name in VIEWS
    },
    **{
        f"{name} replaced": (name, (f"DROP INDEX {name}", f"CREATE INDEX {name} ON events (key) WHERE position > 9"))
        for name in INDEXES
    },
    **{
        f"{name} rewritten": (
            name,
            ("PRAGMA writable_schema = ON", REWRITE.format(name=name, old=" -- ", new=" /**/ -- ")),
        )
        for name in TABLES
    },
    **{
        f"a trigger on {table}": (
            "watcher",
            (f"CREATE TRIGGER watcher BEFORE INSERT ON {table} BEGIN SELECT RAISE(IGNORE); END",),
        )
        for table in TABLES
    },
    **{
        f"a trigger on {view}": (
            "watcher",
            (f"CREATE TRIGGER watcher INSTEAD OF INSERT ON {view} BEGIN SELECT RAISE(IGNORE); END",),
        )
        for view in VIEWS
    },
    "one more table": ("diary", ("CREATE TABLE diary (entry)",)),
    "one more view": ("diary", ("CREATE VIEW diary AS SELECT * FROM events",)),
    "one more index": ("diary", ("CREATE INDEX diary ON leases (phase)",)),
    "a column more": ("leases", ("ALTER TABLE leases ADD COLUMN remark",)),
    "a table in place of a view": ("attempts", ("DROP VIEW attempts", "CREATE TABLE attempts (key, outcome)")),
    "a view in place of a table": (
        "leases",
        ("ALTER TABLE leases RENAME TO old", "CREATE VIEW leases AS SELECT * FROM old"),
    ),
    "a version for others": ("user_version", ("PRAGMA user_version = 7",)),
}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The scene whose audit file is copied and changed."""
    with audited_scene(tmp_path_factory.mktemp("tampered")) as made:
        with closing(sqlite3.connect(made.audit_path)) as raw:
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        yield made


@pytest.fixture
def copy(scene: Scene, tmp_path: Path) -> AuditLog:
    """An audit log on a copy of the file."""
    return AuditLog.open(scene.ledger, shutil.copy(scene.audit_path, tmp_path / "copy.db"))


def _answers(audit: AuditLog) -> list[Any]:
    return [audit.leases(), audit.history(OPENAI), audit.history(WORK), audit.attempts(), audit.sessions()]


@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_each_change_of_the_schema_is_found_refused_and_mended_by_a_rebuild(
    tampering: str, scene: Scene, copy: AuditLog
) -> None:
    name, statements = TAMPERINGS[tampering]
    answers, findings = _answers(copy), copy.verify().findings
    copy.close()
    assert copy.path is not None
    with closing(sqlite3.connect(copy.path, isolation_level=None)) as raw:
        for statement in statements:
            raw.execute(statement)
    outcome = copy.verify()
    assert {finding.object_name for finding in outcome.findings if finding not in findings} >= {name}
    assert {finding.witness for finding in outcome.findings} == {"audit"}
    assert outcome.witnesses == ("chain", "audit")
    if name != "user_version":
        for question in (copy.leases, copy.attempts, lambda: copy.history(WORK)):
            with pytest.raises(AuditFileDamaged, match="lease-ledger rebuild"):
                question()
    copy.rebuild()
    assert _answers(copy) == answers
    left = [finding for finding in copy.verify().findings if finding not in findings]
    assert {finding.object_name for finding in left} <= {"user_version"}
    copy.close()


def test_a_change_made_while_the_file_is_open_is_refused_by_the_next_question(copy: AuditLog) -> None:
    copy.leases()
    assert copy.path is not None
    with closing(sqlite3.connect(copy.path, isolation_level=None)) as raw:
        raw.execute("DROP VIEW attempts")
        raw.execute("CREATE VIEW attempts AS SELECT 'x' AS key")
    with pytest.raises(AuditFileDamaged, match="the view attempts is not as this version writes it"):
        copy.attempts()
    copy.close()


def _offsets(page: int) -> Iterator[tuple[str, range]]:
    yield "all of it", range(PAGE_SIZE)
    for start in range(0, 12, 1):
        yield f"byte {start}", range(start, start + 1)
    for start in range(12 + page % 7, PAGE_SIZE, 331):
        yield f"byte {start}", range(start, start + 1)


def _contents(path: Path) -> dict[str, Any]:
    with closing(sqlite3.connect(path)) as raw:
        tables = [name for (name,) in raw.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY 1")]
        return {table: raw.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for table in tables}


def test_each_damaged_page_is_a_finding_or_one_clear_error_and_no_question_breaks(scene: Scene, tmp_path: Path) -> None:
    whole, true, known = scene.audit_path.read_bytes(), _contents(scene.audit_path), None
    path, shown, tried = tmp_path / "damaged.db", 0, 0
    with AuditLog.open(scene.ledger) as audit:
        known = audit.verify().findings
    for page in range(len(whole) // PAGE_SIZE):
        for what, offsets in _offsets(page):
            damaged = bytearray(whole)
            for offset in offsets:
                damaged[page * PAGE_SIZE + offset] ^= 0xFF
            path.write_bytes(damaged)
            tried += 1
            with AuditLog.open(scene.ledger, path) as audit:
                try:
                    outcome = audit.verify()
                except LedgerStorageError:
                    shown += 1
                else:
                    if outcome.findings == known:
                        assert _contents(path) == true, f"page {page}, {what}: nothing was said"
                    shown += outcome.findings != known
            if what != "all of it" and page % 3:
                continue
            with AuditLog.open(scene.ledger, path) as audit:
                for question in (audit.leases, lambda: audit.history(OPENAI), audit.attempts, audit.rebuild):
                    try:
                        question()
                    except LedgerStorageError:
                        continue
            for file in tmp_path.glob("damaged.db-*"):
                file.unlink()
    assert shown > tried / 4


@pytest.mark.parametrize("length", [1, 16, 100, 512, 4095, 4096, 4097, 12_288])
def test_a_truncated_file_is_a_finding_or_one_clear_error(length: int, scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "short.db"
    path.write_bytes(scene.audit_path.read_bytes()[:length])
    with AuditLog.open(scene.ledger, path) as audit:
        with suppress(LedgerStorageError):
            assert [finding for finding in audit.verify().findings if "an earlier audit file" not in finding.detail]
        with pytest.raises(LedgerStorageError, match="audit file"):
            audit.leases()
