"""What a type checker tells users who ask a ledger's past. It also runs."""

from pathlib import Path
from typing import Any, assert_type

import pytest

from ledger import LeaseKey, LeaseLedger, MemoryTokenStore, RecordedEvent, Verification
from projections import (
    AuditLog,
    CurrentLease,
    HistoryEntry,
    Incident,
    LeaseAsOf,
    LeaseDifference,
    LeaseThen,
    StoredToken,
    Timeline,
    TimelineEntry,
    TokenFinding,
    Verdict,
    VerdictCode,
)
from projections.incident import Replay, Step
from projections.time_travel.changes import Change

KEY = LeaseKey.parse("dev:openai:work")


@pytest.fixture
def audit() -> Any:
    with LeaseLedger.open("memory://") as ledger, AuditLog.open(ledger) as opened:
        ledger.acquire_lease(KEY, 2_000_000_000)
        ledger.mark_expiring(KEY)
        yield opened


def test_questions_about_now(audit: AuditLog) -> None:
    assert_type(audit.history(KEY, last=1), list[HistoryEntry])
    assert_type(audit.leases(), list[CurrentLease])
    assert_type(audit.catch_up(), int)
    assert_type(audit.rebuild(), int)
    assert_type(audit.verify(), Verification)
    verdict = audit.explain(KEY)
    assert_type(verdict, Verdict)
    assert_type(verdict.code, VerdictCode)
    stored = audit.stale_markers(MemoryTokenStore())
    assert_type(stored, list[StoredToken])
    assert_type(stored[0].found, TokenFinding)


def test_questions_about_other_moments(audit: AuditLog) -> None:
    assert_type(audit.as_of(KEY, version=1), LeaseAsOf)
    assert_type(audit.leases(at=1_700_000_000_000), list[LeaseThen])
    assert_type(audit.diff(KEY, 1, 2), LeaseDifference)
    assert_type(audit.last_change(KEY, "phase"), Change | None)
    page = audit.timeline([KEY, "dev:other"], tags=["lease.expiring"])
    assert_type(page, Timeline)
    assert_type(page.entries, tuple[TimelineEntry, ...])
    assert_type(page.next, int | None)


def test_questions_in_sql(audit: AuditLog) -> None:
    assert_type(audit.query("SELECT position FROM events WHERE key = ?", [str(KEY)]), list[dict[str, Any]])
    assert_type(audit.attempts(KEY), list[dict[str, Any]])
    assert_type(audit.sessions(), list[dict[str, Any]])


def test_incidents(audit: AuditLog, tmp_path: Path) -> None:
    incident = Incident.select(audit.ledger, [KEY])
    assert_type(incident, Incident)
    incident.save(tmp_path / "incident.json")
    incident = Incident.load(tmp_path / "incident.json")
    assert_type(incident.keys, tuple[LeaseKey, ...])
    assert_type(incident.events, tuple[RecordedEvent, ...])
    assert_type(incident.steps, tuple[Step, ...])
    assert_type(incident.explain(KEY), Verdict)
    assert_type(incident.diff(KEY, 1, 2), LeaseDifference)
    replay = incident.replay()
    assert_type(replay, Replay)
    assert_type(replay.forward(), Step | None)
    assert_type(incident.find(lambda step: assert_type(step, Step) is incident.steps[0]), tuple[Step, ...])
