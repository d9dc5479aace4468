"""A ledger that holds every kind of event, in its least and its largest shape, with texts that mean harm."""

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from ledger import NEVER_EXPIRES, LeaseKey, LeaseLedger

START_MS = 1_790_000_000_000
WORK = LeaseKey.parse("dev:openai:work")
CI = LeaseKey.parse("prod:anthropic")
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
HOSTILE = '=HYPERLINK("//x")\u2028\u0085\n</script><img src=x onerror=alert(1)>'
SCHEMAS = Path(__file__).parents[1] / "schemas"


class Clock:
    """A clock that tests set; each look takes a second."""

    def __init__(self, now_ms: int = START_MS) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        self.now_ms += 1000
        return self.now_ms


def every_kind_of_event(actor: str = "agent@host pid 1") -> LeaseLedger:
    """Two leases that between them went through everything that can happen."""
    ledger = LeaseLedger.open("memory://", clock=Clock(), actor=actor)
    ledger.acquire_lease(WORK, NEVER_EXPIRES, cause=HOSTILE, correlation_id=TRACE)
    ledger.mark_expiring(WORK, correlation_id="job-1")
    attempt = ledger.begin_refresh(WORK, fingerprint=ledger.fingerprint("a secret"))
    ledger.complete_refresh(WORK, 2**64 - 2, START_MS // 1000, attempt, recovered=True)
    ledger.acquire_lease(CI, 1_900_000_000, store="digest")
    attempt = ledger.begin_refresh(CI)
    before = ledger.snapshot(CI)
    ledger.refresh_failed(CI, False, attempt=attempt, error="timeout", status=504, retry_after=1.5)
    ledger.restore_auth_lifecycle_snapshot(CI, before, compensates=3)
    ledger.refresh_failed(CI, False, attempt=attempt, abandoned=True)
    attempt = ledger.begin_refresh(CI)
    ledger.refresh_failed(CI, True, attempt=attempt, error="invalid_grant", status=400)
    ledger.acquire_lease(CI, 2**53 + 1)
    ledger.mark_reauth_required(CI, reason="@SUM(A1)", cause="+cause")
    before = ledger.snapshot(CI)
    ledger.release_lease(CI)
    ledger.restore_auth_lifecycle_snapshot(CI, before)
    ledger.release_credential_lifecycle(CI)
    ledger.restore_auth_lifecycle_snapshot(CI, ledger.snapshot(LeaseKey.parse("no:lease")))
    return ledger


def validator(name: str) -> Draft202012Validator:
    """The validator of one of the schemas here, itself checked."""
    schema: dict[str, Any] = json.loads((SCHEMAS / name).read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
