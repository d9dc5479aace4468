"""One SQLite ledger and many real processes: at its birth, under load, and when they are killed."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from workers import Worker, WorkerFailed

from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger

KEY = LeaseKey.parse("dev:openai:work")


@pytest.fixture(scope="module")
def eight() -> Iterator[list[Worker]]:
    workers = [Worker() for _ in range(8)]
    yield workers
    for worker in workers:
        worker.close()


@pytest.fixture
def one() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.close()


def _url(folder: Path, synchronous: str = "full") -> str:
    return f"sqlite:///{folder}/auth.db?synchronous={synchronous}"


def test_processes_that_open_a_new_file_at_once_share_one_ledger(eight: list[Worker], tmp_path: Path) -> None:
    for number in range(20):
        url = f"sqlite:///{tmp_path}/{number}.db"
        at = time.time() + 0.01
        for worker in eight:
            worker.tell("open", url=url, at=at)
        assert len({worker.answer() for worker in eight}) == 1
        for worker in eight:
            worker.tell("acquire", key=str(KEY))
        assert sorted(worker.answer() for worker in eight) == list(range(1, 9))
        for worker in eight:
            worker.do("close")
        with LeaseLedger.open(url) as ledger:
            assert ledger.verify().ok


@pytest.mark.parametrize("synchronous", ["full", "normal"])
def test_eight_writers_lose_nothing_and_fail_nowhere(eight: list[Worker], synchronous: str, tmp_path: Path) -> None:
    each = 40
    for worker in eight:
        worker.do("open", url=_url(tmp_path, synchronous))
    for number, worker in enumerate(eight):
        worker.tell("acquire", key=str(KEY), times=each)
        worker.tell("acquire", key=f"dev:own-{number}", times=each)
    shared_generations = [worker.answer() for worker in eight]
    assert max(shared_generations) == 8 * each
    assert [worker.answer() for worker in eight] == [each] * 8
    with LeaseLedger.open(_url(tmp_path)) as ledger:
        assert ledger.snapshot(KEY).generation == 8 * each
        assert [recorded.version for recorded in ledger.read(KEY)] == list(range(1, 8 * each + 1))
        assert [recorded.position for recorded in ledger.read_all()] == list(range(1, 16 * each + 1))
        assert len(ledger.keys()) == 9
        assert ledger.verify().ok
    for worker in eight:
        worker.do("close")


def test_what_one_process_records_another_sees_in_its_next_answer(one: Worker, tmp_path: Path) -> None:
    one.do("open", url=_url(tmp_path))
    with LeaseLedger.open(_url(tmp_path)) as ledger:
        for generation in range(1, 51):
            assert one.do("acquire", key=str(KEY)) == generation
            assert ledger.snapshot(KEY).generation == generation
            ledger.begin_refresh(KEY)
            assert one.do("snapshot", key=str(KEY)) == ["refreshing", generation]
    one.do("close")


@pytest.mark.parametrize("synchronous", ["full", "normal"])
def test_what_was_acknowledged_survives_a_kill_in_the_middle_of_appends(synchronous: str, tmp_path: Path) -> None:
    url = _url(tmp_path, synchronous)
    acknowledged = 0
    for round_number in range(1, 5):
        worker = Worker()
        worker.do("open", url=url)
        worker.tell("acquire_forever", key=str(KEY))
        for _ in range(20 * round_number):
            acknowledged = worker.answer()
        acknowledged = max([acknowledged, *worker.kill()])
        with LeaseLedger.open(url) as ledger:
            stored = ledger.snapshot(KEY).generation
            # The one append that was under way may have been stored without a word.
            assert acknowledged <= stored <= acknowledged + 1
            assert [recorded.position for recorded in ledger.read_all()] == list(range(1, stored + 1))
            assert ledger.verify().ok
            assert ledger.acquire_lease(KEY, 500).generation == stored + 1


def test_a_writer_that_is_killed_does_not_stop_the_others(one: Worker, tmp_path: Path) -> None:
    one.do("open", url=_url(tmp_path))
    for _ in range(3):
        doomed = Worker()
        doomed.do("open", url=_url(tmp_path))
        doomed.tell("acquire_forever", key="dev:doomed")
        before = one.do("acquire", key=str(KEY))
        for _ in range(10):
            doomed.answer()
        one.tell("acquire", key=str(KEY), times=20)
        doomed.kill()
        assert one.answer() == before + 20
    with LeaseLedger.open(_url(tmp_path)) as ledger:
        assert ledger.verify().ok
    one.do("close")


def test_a_full_disk_is_an_error_that_says_so_and_passes_when_there_is_room(one: Worker, tmp_path: Path) -> None:
    one.do("open", url=_url(tmp_path))
    stored = one.do("acquire", key=str(KEY), times=3)
    one.do("limit_file_size", size=(tmp_path / "auth.db-wal").stat().st_size + 10_000)
    with pytest.raises(WorkerFailed) as failed:
        one.do("acquire", key=str(KEY), times=200)
    kind, text = failed.value.args
    assert kind == "LedgerStorageError"
    assert "check the disk" in text or "disk is full" in text
    assert str(tmp_path / "auth.db") in text
    one.do("limit_file_size", size=None)
    with LeaseLedger.open(_url(tmp_path)) as ledger:
        stored = ledger.snapshot(KEY).generation
        assert ledger.verify().ok
    assert one.do("acquire", key=str(KEY)) == stored + 1
    one.do("close")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_sees_what_its_parent_records_after_the_fork(tmp_path: Path) -> None:
    """Also where both know the lease already, and however much was recorded before."""
    with LeaseLedger.open(_url(tmp_path, "normal")) as ledger:
        for generation in range(1, 4):
            ledger.acquire_lease(KEY, 500)
            assert ledger.snapshot(KEY).generation == generation * 2 - 1
            go_on, recorded = os.pipe()
            child = os.fork()
            if child == 0:
                os.read(go_on, 1)
                os._exit(0 if ledger.snapshot(KEY).generation == generation * 2 else 1)
            ledger.acquire_lease(KEY, 500)
            os.write(recorded, b"x")
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            os.close(go_on)
            os.close(recorded)
