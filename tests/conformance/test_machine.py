"""Every recorded sequence of commands, through the durable ledger and after reopening its file."""

from pathlib import Path
from typing import Any

import pytest
from conformance.replay import PublicationClock, mismatches, recorded, shown

from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger

CASES = recorded("machine")


@pytest.mark.parametrize("start", range(0, len(CASES), 100))
def test_every_recorded_sequence_gives_the_recorded_results(start: int, tmp_path: Path) -> None:
    for case in CASES[start : start + 100]:
        url = f"sqlite:///{tmp_path}/{case['id']}.db?synchronous=normal"
        clock = PublicationClock()
        with LeaseLedger.open(url, clock=clock, actor="test") as ledger:
            assert list(mismatches(ledger, clock, case)) == [], case["id"]
        with LeaseLedger.open(url, clock=clock, actor="test") as reopened:
            assert _final(reopened, case) == case["final"], case["id"]
            assert reopened.verify().ok, case["id"]


def _final(ledger: LeaseLedger, case: dict[str, Any]) -> list[dict[str, Any]]:
    return [shown(ledger.snapshot(LeaseKey.parse(text))) for text in case["keys"]]


def test_every_recorded_sequence_gives_the_same_in_memory() -> None:
    for case in CASES:
        clock = PublicationClock()
        ledger = LeaseLedger.open("memory://", clock=clock, actor="test")
        assert list(mismatches(ledger, clock, case)) == [], case["id"]
        assert _final(ledger, case) == case["final"], case["id"]
