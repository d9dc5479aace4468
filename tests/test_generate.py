"""Made ledgers are whole, eventful and the same for the same seed."""

import collections
from pathlib import Path

import pytest
from click.testing import CliRunner
from generate_parts import Generator
from generate_parts.__main__ import main

from ledger import LeaseLedger
from ledger.events import EVENT_TYPES
from ledger.verification import Checkpoint

EVENTS = 8_000
LEASES = 200


def _checkpoint(path: Path, *sizes: int, seed: int = 1) -> Checkpoint:
    with Generator(path, LEASES, seed) as generator:
        for size in sizes:
            generator.write(size)
    with LeaseLedger.open(f"sqlite:///{path}") as ledger:
        return ledger.checkpoint()


def test_a_made_ledger_verifies_and_every_kind_of_event_happens_in_it(tmp_path: Path) -> None:
    _checkpoint(tmp_path / "made.db", EVENTS)
    with LeaseLedger.open(f"sqlite:///{tmp_path}/made.db") as ledger:
        outcome = ledger.verify()
        assert outcome.findings == ()
        assert outcome.checkpoint.position == EVENTS
        assert len(ledger.keys()) == LEASES
        events = [recorded.event for recorded in ledger.read_all()]
        assert ledger.recorder.stored_folds()
    tags = collections.Counter(event.tag for event in events)
    assert set(tags) == {kind.tag for kind in EVENT_TYPES}
    assert tags["lease.refreshed"] > EVENTS / 4
    assert len({event.actor for event in events}) > 10


def test_clocks_go_back_now_and_then(tmp_path: Path) -> None:
    _checkpoint(tmp_path / "made.db", EVENTS)
    with LeaseLedger.open(f"sqlite:///{tmp_path}/made.db") as ledger:
        times: dict[object, list[int]] = collections.defaultdict(list)
        for recorded in ledger.read_all():
            times[recorded.key].append(recorded.event.at)
    assert any(times_of_one != sorted(times_of_one) for times_of_one in times.values())


def test_the_same_seed_makes_the_same_ledger_however_it_is_written(tmp_path: Path) -> None:
    first = _checkpoint(tmp_path / "first.db", 1_000)
    assert _checkpoint(tmp_path / "second.db", 300, 700) == first
    assert _checkpoint(tmp_path / "third.db", 1_000, seed=2) != first


def test_a_file_that_exists_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "made.db"
    arguments = [str(path), "--events", "100", "--leases", "5"]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert "made.db: 100 events" in done.output
    before = path.read_bytes()
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 1
    assert "exists already" in again.output
    assert path.read_bytes() == before


def test_a_ledger_that_exists_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "made.db").touch()
    with pytest.raises(FileExistsError):
        Generator(tmp_path / "made.db", LEASES)
