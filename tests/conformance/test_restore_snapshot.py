"""Every recorded restore after a boundary that could not be finished, on a handle with and without its own restore."""

from pathlib import Path
from typing import Any

import pytest
from conformance.recording import DefaultingHandle, RestoringHandle
from conformance.replay import PublicationClock, recorded, shown, snapshot_from

from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.lifecycle import restore_token_lifecycle_snapshot
from ledger.tokens import PersistedAuthMode, PersistedTokens

CASES = recorded("restore_snapshot")
KEY = LeaseKey.parse("dev:openai")


@pytest.mark.parametrize("start", range(0, len(CASES), 110))
def test_every_recorded_restore_makes_the_recorded_calls_and_lease(start: int, tmp_path: Path) -> None:
    for case in CASES[start : start + 110]:
        url = f"sqlite:///{tmp_path}/{case['id']}.db?synchronous=normal"
        clock = PublicationClock()
        with LeaseLedger.open(url, clock=clock, actor="tester") as ledger:
            _bring_about(case["pre"], ledger, clock)
            assert shown(ledger.snapshot(KEY)) == case["before"], case["id"]
            handle = (RestoringHandle if case["handle"] == "runtime" else DefaultingHandle)(ledger)
            assert case["result"] == {"ok": None}
            restore_token_lifecycle_snapshot(handle, KEY, snapshot_from(case["snapshot"]), _previous(case))
            assert handle.calls == case["calls"], case["id"]
            assert shown(ledger.snapshot(KEY)) == case["after"], case["id"]
        with LeaseLedger.open(url) as reopened:
            assert shown(reopened.snapshot(KEY)) == case["after"], case["id"]
            assert reopened.verify().ok, case["id"]


def _bring_about(pre: str, ledger: LeaseLedger, clock: PublicationClock) -> None:
    if pre == "unseen":
        return
    for expires_at in (5, 6):
        ledger.acquire_lease(KEY, expires_at)
        clock.now_ms += 1
    if pre == "released_gen2":
        ledger.release_lease(KEY)


def _previous(case: dict[str, Any]) -> PersistedTokens | None:
    expiry = {"none": None, "without_expiry": None, "with_expiry": 1_850_000_000, "pre_1970": -5}
    if case["previous_tokens"] == "none":
        return None
    return PersistedTokens(PersistedAuthMode.CHATGPT_OAUTH, "s3cret", expires_at=expiry[case["previous_tokens"]])
