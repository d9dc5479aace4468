"""What the reference runtime's trail does not tell is not known, and no verdict says otherwise."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from projections.audit import AuditLog
from projections.explain import Verdict, VerdictCode
from projections.importing import import_trail

KEY = LeaseKey.parse("dev:openai:work")
TRAIL = (
    ("acquire_lease", "Valid", "Valid"),
    ("mark_expiring", "Valid", "Expiring"),
    ("begin_refresh", "Expiring", "Refreshing"),
    ("refresh_failed_transient", "Refreshing", "Expiring"),
    ("begin_refresh", "Expiring", "Refreshing"),
    ("complete_refresh", "Refreshing", "Valid"),
    ("begin_refresh", "Valid", "Refreshing"),
    ("refresh_failed_permanent", "Refreshing", "ReauthRequired"),
)


def line(second: int, action: str, before: str, after: str) -> str:
    fields = {"lease_key": str(KEY), "realm": "dev", "binding": "openai", "profile": "work", "action": action}
    states = {"from_phase": before, "to_phase": after}
    return json.dumps(
        {
            "timestamp": f"2026-02-03T04:05:{second:02}Z",
            "level": "INFO",
            "fields": {"message": "auth lease transition", **fields, **states},
            "target": "meerkat::auth::audit",
        }
    )


@pytest.fixture
def audit(tmp_path: Path) -> Iterator[AuditLog]:
    trail = tmp_path / "trail.jsonl"
    trail.write_text("".join(f"{line(second, *told)}\n" for second, told in enumerate(TRAIL)))
    import_trail(trail, tmp_path / "imported.db")
    with LeaseLedger.open(f"sqlite:///{tmp_path / 'imported.db'}") as ledger, AuditLog.open(ledger) as audit:
        yield audit


def after(audit: AuditLog, action: str) -> Verdict:
    """The verdict right after the first line of that action."""
    version = [told[0] for told in TRAIL].index(action) + 1
    return audit.explain(KEY, version)


def test_when_an_imported_credential_expires_is_not_known(audit: AuditLog) -> None:
    for action, code in (("acquire_lease", VerdictCode.VALID), ("complete_refresh", VerdictCode.VALID)):
        verdict = after(audit, action)
        assert verdict.code is code
        assert verdict.text.endswith("when it expires is not known")
        assert "imported from another system's trail" in verdict.notes[0]


def test_of_an_imported_refresh_nobody_says_that_it_is_overdue(audit: AuditLog) -> None:
    verdict = after(audit, "begin_refresh")
    assert verdict.code is VerdictCode.REFRESHING
    assert "by whom and how long is not known" in verdict.text


def test_how_an_imported_refresh_failed_is_not_known(audit: AuditLog) -> None:
    assert "failed, and how is not known" in after(audit, "refresh_failed_transient").text
    verdict = audit.explain(KEY)
    assert verdict.code is VerdictCode.REFUSED
    assert verdict.text.endswith("for good (no details), why is not recorded")
