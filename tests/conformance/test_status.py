"""Every recorded status, with and without a clock, and what is shown beside it."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from conformance.replay import recorded, snapshot_from

from ledger.snapshot import AuthLeaseSnapshot
from ledger.status import (
    AuthStatusPhase,
    lease_snapshot_expires_at_datetime,
    project_published_auth_status,
)
from ledger.tokens import PersistedAuthMode, PersistedTokens


def test_every_recorded_status_is_the_recorded_one() -> None:
    assert list(_mismatches()) == []


def _mismatches() -> Iterator[tuple[Any, str, object]]:
    for case in recorded("status"):
        now, snapshot = datetime.fromisoformat(case["now"]), snapshot_from(case["snapshot"])
        stored = _stored(case)
        projected = project_published_auth_status(now, stored, snapshot)
        found = {
            "status": AuthStatusPhase.from_lease_snapshot(now, snapshot),
            "status_from_phase_only": AuthStatusPhase.from_lease_phase(snapshot.phase),
            "status_from_expires_at_only": AuthStatusPhase.from_lease_expires_at(now, snapshot.expires_at),
            "lease_expires_at_rfc3339": _text(lease_snapshot_expires_at_datetime(snapshot)),
            "projected": {
                "expires_at": _text(projected.expires_at),
                "phase": projected.phase,
                "tokens_present": projected.tokens is not None,
            },
        }
        for name, value in found.items():
            if value != _within_datetime(name, case, snapshot):
                yield case["id"], name, value
        if projected.tokens not in (None, stored):
            yield case["id"], "tokens", projected.tokens


def _stored(case: dict[str, Any]) -> PersistedTokens | None:
    if case["stored"] == "none":
        return None
    return PersistedTokens(
        PersistedAuthMode.CHATGPT_OAUTH, primary_secret="s3cret", expires_at=case["stored_expires_at"]
    )


def _text(date: datetime | None) -> str | None:
    return None if date is None else date.isoformat()


def _within_datetime(name: str, case: dict[str, Any], snapshot: AuthLeaseSnapshot) -> Any:
    """The recorded value, where a date beyond Python's range gives way as an absent one does."""
    value = case[name]
    recorded_date = case["lease_expires_at_rfc3339"]
    if recorded_date is None or not recorded_date.startswith("+"):
        return value
    if name == "lease_expires_at_rfc3339":
        return None
    if name == "projected" and value["phase"] != "unknown":
        instead = case["stored_expires_at"]
        date = None if instead is None else datetime.fromtimestamp(instead, tz=UTC)
        return {**value, "expires_at": _text(date)}
    return value
