"""The audit file as a witness: it names whatever event was tampered with, before and after rebuilds."""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.verification import Finding
from projections import catch_up
from projections.audit import AuditLog
from projections.audit_checkpoint import AuditCheckpoint, RebuildReason

OPENAI, WORK = LeaseKey.parse("dev:openai"), LeaseKey.parse("dev:openai:work")
CHANGED_ACTOR = "UPDATE stored_events SET state = json_set(state, '$.actor', 'somebody else') WHERE rowid = ?"

OpenLedger = Callable[[Path], LeaseLedger]
Around = Callable[[], Any]


@pytest.fixture
def audited(ledger: LeaseLedger) -> AuditLog:
    """Nine events, two leases taking turns; the audit file has seen all of them."""
    for key in (OPENAI, WORK):
        ledger.acquire_lease(key, 500)
    for key in (OPENAI, WORK):
        ledger.begin_refresh(key)
    for key in (OPENAI, WORK):
        ledger.complete_refresh(key, 900, 800)
    for key in (OPENAI, WORK, OPENAI):
        ledger.acquire_lease(key, 700)
    audit = AuditLog.open(ledger)
    assert audit.catch_up() == 9
    return audit


def _swap(raw: sqlite3.Connection, one: int, other: int, columns: tuple[str, ...]) -> None:
    raw.execute("DROP INDEX IF EXISTS stored_events_idx")
    select = f"SELECT {', '.join(columns)} FROM stored_events WHERE rowid = ?"
    update = f"UPDATE stored_events SET {', '.join(f'{column} = ?' for column in columns)} WHERE rowid = ?"
    first, second = (raw.execute(select, (position,)).fetchone() for position in (one, other))
    for position, values in ((one, tuple(f"{value}~" if isinstance(value, str) else -value for value in first)),):
        raw.execute(update, (*values, position))
    raw.execute(update, (*first, other))
    raw.execute(update, (*second, one))


def _change(position: int) -> Callable[[sqlite3.Connection], object]:
    return lambda raw: raw.execute(CHANGED_ACTOR, (position,))


def _remove(position: int, *, close_the_gap: bool) -> Callable[[sqlite3.Connection], None]:
    def remove(raw: sqlite3.Connection) -> None:
        raw.execute("DELETE FROM stored_events WHERE rowid = ?", (position,))
        if close_the_gap:
            raw.execute("UPDATE stored_events SET rowid = rowid - 1 WHERE rowid > ?", (position,))

    return remove


def _insert(position: int) -> Callable[[sqlite3.Connection], None]:
    def insert(raw: sqlite3.Connection) -> None:
        raw.execute("UPDATE stored_events SET rowid = -rowid WHERE rowid >= ?", (position,))
        raw.execute("UPDATE stored_events SET rowid = 1 - rowid WHERE rowid < 0")
        body = """{"id":"f","at":1,"actor":"x","prev":""}"""
        raw.execute(
            "INSERT INTO stored_events (rowid, originator_id, originator_version, topic, state) "
            "VALUES (?, 'dev:other', 1, 'lease.released', ?)",
            (position, body),
        )

    return insert


TAMPERINGS = {
    "the first changed": (_change(1), (1, "dev:openai", 1), "changed"),
    "one in the middle changed": (_change(4), (4, "dev:openai:work", 2), "changed"),
    "the last of a stream changed": (_change(8), (8, "dev:openai:work", 4), "changed"),
    "the last of all changed": (_change(9), (9, "dev:openai", 5), "changed"),
    "one removed": (_remove(5, close_the_gap=False), (5, "dev:openai", 3), "removed"),
    "one removed and the gap closed": (_remove(5, close_the_gap=True), (5, "dev:openai", 3), "removed"),
    "the last of all removed": (_remove(9, close_the_gap=False), (9, "dev:openai", 5), "removed"),
    "one inserted": (_insert(4), (4, "dev:other", 1), "inserted"),
    "two neighbours swapped": (
        lambda raw: _swap(raw, 3, 4, ("originator_id", "originator_version", "topic", "state")),
        (3, "dev:openai:work", 2),
        "swapped",
    ),
    "two far apart swapped": (
        lambda raw: _swap(raw, 3, 8, ("originator_id", "originator_version", "topic", "state")),
        (3, "dev:openai:work", 4),
        "swapped",
    ),
    "two bodies swapped": (lambda raw: _swap(raw, 7, 9, ("topic", "state")), (7, "dev:openai", 4), "changed"),
    "a kind changed": (
        lambda raw: raw.execute("UPDATE stored_events SET topic = 'lease.released' WHERE rowid = 2") and None,
        (2, "dev:openai:work", 1),
        "changed",
    ),
    "a key changed": (
        lambda raw: raw.execute("UPDATE stored_events SET originator_id = 'dev:evil' WHERE rowid = 9") and None,
        (9, "dev:evil", 5),
        "swapped",
    ),
    "a body no text": (
        lambda raw: raw.execute("UPDATE stored_events SET state = NULL WHERE rowid = 6") and None,
        (6, "dev:openai:work", 3),
        "changed",
    ),
}


def _by_audit(findings: tuple[Finding, ...]) -> list[Finding]:
    return [finding for finding in findings if finding.witness == "audit"]


@pytest.mark.parametrize("name", TAMPERINGS)
def test_the_audit_file_names_the_event(name: str, audited: AuditLog, going_around_the_guards: Around) -> None:
    tamper, (position, key, version), what = TAMPERINGS[name]
    assert audited.verify().ok
    with going_around_the_guards() as raw:
        try:
            tamper(raw)
        except sqlite3.IntegrityError:
            pytest.skip("the table itself refuses it")
    outcome = audited.verify()
    first, *others = _by_audit(outcome.findings)
    assert len(others) == (name in ("two far apart swapped", "two bodies swapped"))
    assert (first.position, first.key, first.version) == (position, key, version)
    assert what in first.detail
    assert outcome.witnesses == ("chain", "audit")


@pytest.mark.parametrize("name", ["one in the middle changed", "the last of all changed", "the last of all removed"])
def test_a_rebuild_does_not_hide_it(name: str, audited: AuditLog, going_around_the_guards: Around) -> None:
    tamper, place, what = TAMPERINGS[name]
    with going_around_the_guards() as raw:
        tamper(raw)
    for _ in range(3):
        audited.leases()
        audited.rebuild()
    audited.close()
    with AuditLog.open(audited.ledger) as reopened:
        (finding,) = _by_audit(reopened.verify().findings)
        assert (finding.position, finding.key, finding.version) == place
        assert what in finding.detail
        assert "set aside" in finding.detail
        tables = [name for name in reopened._file().db.table_names() if name.startswith("set_aside_")]
        assert tables == ["set_aside_1_events"]
    assert audited.path is not None
    for file in audited.path.parent.glob("auth.audit.db*"):
        file.unlink()
    with AuditLog.open(audited.ledger) as fresh:
        fresh.catch_up()
        assert _by_audit(fresh.verify().findings) == []


def test_what_others_took_in_while_a_rebuild_ran_is_evidence_too(
    audited: AuditLog, going_around_the_guards: Around, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = catch_up._contradiction

    def meanwhile(*checkpoints: AuditCheckpoint) -> RebuildReason | None:
        audited.ledger.release_lease(WORK)
        with AuditLog.open(audited.ledger) as other:
            assert other.catch_up() == 10
        with going_around_the_guards() as raw:
            _change(10)(raw)
        return compare(*checkpoints)

    monkeypatch.setattr(catch_up, "_contradiction", meanwhile)
    audited.rebuild()
    (finding,) = _by_audit(audited.verify().findings)
    assert (finding.position, finding.key, finding.version) == (10, str(WORK), 5)
    assert "set aside" in finding.detail


def test_a_question_answers_from_the_ledger_as_it_is_now(audited: AuditLog, going_around_the_guards: Around) -> None:
    with going_around_the_guards() as raw:
        _change(9)(raw)
    assert audited.history(OPENAI)[-1].actor == "somebody else"


def test_what_the_audit_file_never_saw_it_cannot_vouch_for(audited: AuditLog, going_around_the_guards: Around) -> None:
    audited.ledger.release_lease(WORK)
    with going_around_the_guards() as raw:
        _change(10)(raw)
    assert _by_audit(audited.verify().findings) == []


def test_a_ledger_put_back_from_a_backup_is_told_from_the_newer_one(
    path: Path, tmp_path: Path, open_ledger: OpenLedger, live: Callable[..., None]
) -> None:
    ledger = open_ledger(path)
    ledger.acquire_lease(WORK, 5)
    ledger.close()
    shutil.copy(path, tmp_path / "backup.db")
    ledger = open_ledger(path)
    ledger.begin_refresh(WORK)
    ledger.complete_refresh(WORK, 9, 8)
    with AuditLog.open(ledger) as audit:
        audit.catch_up()
    ledger.close()
    shutil.copy(tmp_path / "backup.db", path)

    restored = open_ledger(path)
    with AuditLog.open(restored) as audit:
        assert [finding.position for finding in _by_audit(audit.verify().findings)] == [2, 3]
        restored.release_lease(WORK)
        audit.leases()
        assert [(finding.position, finding.version) for finding in _by_audit(audit.verify().findings)] == [
            (2, 2),
            (3, 3),
        ]


def test_an_audit_file_that_was_changed_itself_accuses_nobody_else(audited: AuditLog) -> None:
    audited._file().db.execute("UPDATE events SET digest = ? WHERE position = 5", ("0" * 64,))
    (finding,) = audited.verify().findings
    assert finding.witness == "audit"
    assert "the audit file itself was changed" in finding.detail
    assert (finding.position, finding.key, finding.version) == (5, "dev:openai", 3)


def test_verification_makes_no_audit_file_and_leaves_one_as_it_was(
    ledger: LeaseLedger, path: Path, live: Callable[..., None]
) -> None:
    live(ledger)
    audit = AuditLog.open(ledger)
    assert audit.verify().witnesses == ("chain",)
    assert not path.with_name("auth.audit.db").exists()
    seen = audit.catch_up()
    live(ledger)
    assert audit.verify().ok
    with audit._file().reading() as db:
        assert db.execute("SELECT position FROM checkpoint").fetchone() == (seen,)


def test_a_file_that_followed_another_ledger_is_no_witness(
    tmp_path: Path, open_ledger: OpenLedger, live: Callable[..., None]
) -> None:
    one, other = open_ledger(tmp_path / "one.db"), open_ledger(tmp_path / "other.db")
    live(one)
    live(other, 2)
    with AuditLog.open(one) as audit:
        audit.catch_up()
    outcome = AuditLog.open(other, audit.path).verify()
    assert outcome.ok
    assert outcome.witnesses == ("chain",)


def test_a_kept_checkpoint_and_the_audit_file_speak_together(
    audited: AuditLog, going_around_the_guards: Around
) -> None:
    kept = audited.ledger.checkpoint()
    with going_around_the_guards() as raw:
        _change(9)(raw)
    outcome = audited.verify(kept)
    assert outcome.witnesses == ("chain", "checkpoint", "audit")
    assert {(finding.witness, finding.position) for finding in outcome.findings} >= {("checkpoint", 9), ("audit", 9)}
