"""Runs recorded operations of the reference runtime against a ledger, and reads the recorded files."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ledger.errors import LeaseTransitionError
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.snapshot import NEVER_EXPIRES, AuthLeasePhase, AuthLeaseSnapshot

DATA = Path(__file__).parent / "data"


class PublicationClock:
    """Reads n while the nth credential publication is made: the clock the recordings were taken with."""

    def __init__(self) -> None:
        self.now_ms = 1

    def __call__(self) -> int:
        return self.now_ms


def recorded(name: str) -> list[dict[str, Any]]:
    """Every line of one recorded file."""
    return [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text("utf-8").split("\n") if line]


def snapshot_from(fields: dict[str, Any]) -> AuthLeaseSnapshot:
    """A recorded snapshot as a value."""
    return AuthLeaseSnapshot(
        phase=None if fields["phase"] is None else AuthLeasePhase(fields["phase"]),
        expires_at=fields["expires_at"],
        credential_present=fields["credential_present"],
        generation=fields["generation"],
        credential_published_at_millis=fields["published"],
    )


def shown(snapshot: AuthLeaseSnapshot) -> dict[str, Any]:
    """A snapshot in the recorded form."""
    return {
        "phase": snapshot.phase,
        "expires_at": snapshot.expires_at,
        "credential_present": snapshot.credential_present,
        "generation": snapshot.generation,
        "published": snapshot.credential_published_at_millis,
    }


def perform(ledger: LeaseLedger, clock: PublicationClock, key: LeaseKey, op: dict[str, Any]) -> dict[str, Any]:
    """Perform one recorded operation and return its result in the recorded form, without a refusal's wording."""
    try:
        match op["op"]:
            case "acquire":
                transition = ledger.acquire_lease(key, op["expires_at"])
            case "complete_refresh":
                transition = ledger.complete_refresh(key, op["new_expires_at"], op["now"])
            case name:
                _perform_silent(ledger, key, name, op)
                return {"ok": None}
    except LeaseTransitionError as error:
        return {"error": error.kind}
    clock.now_ms += 1
    return {"ok": {"generation": transition.generation, "published": transition.credential_published_at_millis}}


def _perform_silent(ledger: LeaseLedger, key: LeaseKey, name: str, op: dict[str, Any]) -> None:
    match name:
        case "mark_expiring":
            ledger.mark_expiring(key)
        case "begin_refresh":
            ledger.begin_refresh(key)
        case "refresh_failed":
            ledger.refresh_failed(key, op["permanent"])
        case "mark_reauth_required":
            ledger.mark_reauth_required(key)
        case "release":
            ledger.release_lease(key)
        case "release_credential_lifecycle":
            ledger.release_credential_lifecycle(key)
        case "restore":
            ledger.restore_auth_lifecycle_snapshot(key, snapshot_from(op["snapshot"]), op["expires_at"])
        case "snapshot":
            ledger.snapshot(key)
        case _:
            raise AssertionError(f"unknown recorded operation {name!r}")


def expected(op: dict[str, Any]) -> dict[str, Any]:
    """The recorded result, without a refusal's wording."""
    result: dict[str, Any] = op["result"]
    return {"error": result["error"]["kind"]} if "error" in result else result


def mismatches(ledger: LeaseLedger, clock: PublicationClock, case: dict[str, Any]) -> Iterator[str]:
    """Perform a recorded case and say where the ledger does something else."""
    keys = [LeaseKey.parse(text) for text in case["keys"]]
    for number, op in enumerate(case["ops"]):
        key = keys[op["key"]]
        result = perform(ledger, clock, key, op)
        if result != expected(op):
            yield f"op {number} {op['op']}: {result} instead of {expected(op)}"
        if shown(ledger.snapshot(key)) != op["after"]:
            yield f"op {number} {op['op']}: {shown(ledger.snapshot(key))} instead of {op['after']}"


__all__ = ["DATA", "NEVER_EXPIRES", "PublicationClock", "mismatches", "recorded", "shown", "snapshot_from"]
