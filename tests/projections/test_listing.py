"""Listings one after another: the same as whole lists, over as many pages as it takes, holding none of them."""

from collections.abc import Iterator
from itertools import count

import pytest
from click.testing import CliRunner

import ledger.lease_ledger
import projections.audit
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from projections.audit import AuditLog
from projections.cli.app import lease_ledger

KEYS = [LeaseKey.parse(f"dev:provider-{number}") for number in range(7)]
START_MS = 1_790_000_000_000


@pytest.fixture
def ledger_of_seven() -> Iterator[LeaseLedger]:
    times = count(START_MS, 1000)
    with LeaseLedger.open("memory://", clock=lambda: next(times), actor="ada") as opened:
        for key in KEYS:
            opened.acquire_lease(key, 4_000_000_000)
        for _ in range(3):
            opened.acquire_lease(KEYS[3], 4_000_000_000)
        yield opened


@pytest.fixture(params=[1, 2, 7, 100])
def page_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    size: int = request.param
    monkeypatch.setattr(projections.audit, "_ROWS_AT_ONCE", size)
    monkeypatch.setattr(ledger.lease_ledger, "_KEYS_AT_ONCE", size)
    return size


@pytest.mark.usefixtures("page_size")
def test_one_after_another_is_the_same_list(ledger_of_seven: LeaseLedger) -> None:
    assert list(ledger_of_seven.each_key()) == ledger_of_seven.keys() == KEYS
    with AuditLog.open(ledger_of_seven) as audit:
        assert list(audit.each_lease()) == audit.leases()
        for at in (0, START_MS + 3000, START_MS + 10**6):
            assert list(audit.each_lease(at=at)) == audit.leases(at=at)
        for key in (KEYS[3], KEYS[0], LeaseKey.parse("no:body")):
            assert list(audit.each_entry(key)) == audit.history(key)
            for last in range(6):
                assert list(audit.each_entry(key, last)) == audit.history(key, last)


def test_a_page_is_read_when_it_is_asked_for(ledger_of_seven: LeaseLedger, page_size: int) -> None:
    with AuditLog.open(ledger_of_seven) as audit:
        listing = audit.each_lease()
        assert next(listing).key == str(KEYS[0])
        ledger_of_seven.release_lease(KEYS[-1])
        audit.catch_up()
        assert list(listing)[-1].tag == ("lease.acquired" if page_size >= len(KEYS) else "lease.released")


def test_a_count_of_events_that_is_negative_is_refused(ledger_of_seven: LeaseLedger) -> None:
    with AuditLog.open(ledger_of_seven) as audit, pytest.raises(ValueError, match="number of events"):
        next(audit.each_entry(KEYS[0], -1))


@pytest.mark.parametrize("command", ["status", "leases"])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_the_commands_hold_no_whole_list(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, command: str, options: list[str]
) -> None:
    database = tmp_path_factory.mktemp("ledger") / "auth.db"
    with LeaseLedger.open(f"sqlite:///{database}") as opened:
        for key in KEYS:
            opened.acquire_lease(key, 4_000_000_000)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the whole list was asked for")

    monkeypatch.setattr(LeaseLedger, "keys", refuse)
    monkeypatch.setattr(AuditLog, "leases", refuse)
    result = CliRunner().invoke(lease_ledger, ["--db", str(database), command, *options])
    assert result.exit_code == 0, result.stderr
    assert [str(key) for key in KEYS if f"{key}" not in result.stdout] == []
