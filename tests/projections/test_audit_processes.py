"""The audit file among processes: several at once, some of them killed, some that may not write."""

import gc
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from projections.audit import AuditLog
from projections.audit_file import AuditFile
from projections.leases import select_leases

WORK = LeaseKey.parse("dev:openai:work")

Ask = Callable[..., subprocess.Popen[str]]
Live = Callable[..., None]
Contents = Callable[[AuditLog], dict[str, list[tuple[Any, ...]]]]


def _afresh(ledger: LeaseLedger, contents: Contents, folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    """What an audit file made in one go holds."""
    with AuditLog.open(ledger, folder / "afresh.db") as audit:
        audit.catch_up()
        return contents(audit)


MOMENTS_OF_A_CATCH_UP = [
    ("BEGIN IMMEDIATE", 1),
    ("INSERT INTO events", 1),
    ("INSERT INTO events", 7),
    ("INSERT OR REPLACE INTO leases", 1),
    ("INSERT OR REPLACE INTO leases", 2),
    ("REPLACE INTO checkpoint", 1),
    ("COMMIT", 1),
    ("COMMIT", 2),
    ("COMMIT", 3),
]

MOMENTS_OF_A_REBUILD = [
    ("BEGIN IMMEDIATE", 1),
    ("CREATE TABLE leases_being_rebuilt", 1),
    ("COMMIT", 1),
    ("INSERT INTO events_being_rebuilt", 1),
    ("INSERT INTO events_being_rebuilt", 20),
    ("COMMIT", 2),
    ("COMMIT", 3),
    ("INSERT OR REPLACE INTO leases_being_rebuilt", 1),
    ("DROP INDEX", 1),
    ("DROP TABLE IF EXISTS events", 2),
    ("DROP TABLE IF EXISTS leases", 2),
    ("ALTER TABLE", 1),
    ("ALTER TABLE", 2),
    ("REPLACE INTO checkpoint", 1),
    ("CREATE UNIQUE INDEX", 1),
    ("COMMIT", 5),
]


@pytest.mark.parametrize(("statement", "occurrence"), MOMENTS_OF_A_CATCH_UP)
def test_a_killed_catch_up_is_finished_by_the_next_question(
    statement: str,
    occurrence: int,
    ledger: LeaseLedger,
    path: Path,
    tmp_path: Path,
    live: Live,
    ask: Ask,
    contents: Contents,
) -> None:
    live(ledger)
    with AuditLog.open(ledger) as audit:
        audit.catch_up()
    live(ledger)
    assert ask("die-catching-up", path, statement, occurrence).wait() == -signal.SIGKILL
    with AuditLog.open(ledger) as audit:
        assert len(audit.history(WORK)) == ledger.snapshot(WORK).version
        assert contents(audit) == _afresh(ledger, contents, tmp_path)
        assert audit.verify().ok


@pytest.mark.parametrize(("statement", "occurrence"), MOMENTS_OF_A_REBUILD)
def test_a_killed_rebuild_leaves_the_old_contents_and_is_finished_by_the_next(
    statement: str,
    occurrence: int,
    ledger: LeaseLedger,
    path: Path,
    tmp_path: Path,
    live: Live,
    ask: Ask,
    contents: Contents,
) -> None:
    live(ledger, 2)
    with AuditLog.open(ledger) as audit:
        audit.catch_up()
        before = contents(audit)
    live(ledger)
    assert ask("die-rebuilding", path, statement, occurrence).wait() == -signal.SIGKILL
    with AuditLog.open(ledger) as audit:
        assert contents(audit) == before
        assert len(audit.history(WORK)) == ledger.snapshot(WORK).version
        assert contents(audit) == _afresh(ledger, contents, tmp_path)
        audit.rebuild()
        assert contents(audit) == _afresh(ledger, contents, tmp_path)
        assert audit.verify().ok


def test_a_rebuild_that_was_killed_right_after_the_swap_is_whole(
    ledger: LeaseLedger, path: Path, tmp_path: Path, live: Live, ask: Ask, contents: Contents
) -> None:
    live(ledger)
    AuditLog.open(ledger).catch_up()
    live(ledger)
    assert ask("die-rebuilding", path, "BEGIN", 7).wait() == -signal.SIGKILL
    with AuditLog.open(ledger) as audit:
        assert contents(audit) == _afresh(ledger, contents, tmp_path)


def test_processes_that_catch_up_at_once_leave_one_row_for_each_event(
    ledger: LeaseLedger, path: Path, tmp_path: Path, live: Live, ask: Ask, contents: Contents
) -> None:
    asking = [ask("follow", path, 150) for _ in range(4)]
    for process in asking:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in asking:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    live(ledger, 25)
    for process in asking:
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert int(output) > 0
    with AuditLog.open(ledger) as audit:
        audit.catch_up()
        assert contents(audit) == _afresh(ledger, contents, tmp_path)


def test_processes_that_make_the_file_at_once_make_one(ledger: LeaseLedger, path: Path, live: Live, ask: Ask) -> None:
    live(ledger)
    for _ in range(3):
        for file in path.parent.glob("auth.audit.db*"):
            file.unlink()
        asking = [ask("history", path, WORK) for _ in range(6)]
        for process in asking:
            output, errors = process.communicate(timeout=60)
            assert process.returncode == 0, errors
            assert json.loads(output) == [False, [1, 2, 3, 4, 5]]


def test_readers_see_the_old_contents_or_the_new_while_others_rebuild(
    ledger: LeaseLedger, path: Path, live: Live, ask: Ask
) -> None:
    live(ledger, 6)
    with AuditLog.open(ledger) as audit:
        expected_history, expected_leases = audit.history(WORK), audit.leases()
        rebuilding = [ask("rebuild", path, 12) for _ in range(2)]
        for process in rebuilding:
            assert process.stdout is not None
            assert process.stdin is not None
            assert process.stdout.readline() == "ready\n"
            process.stdin.write("go\n")
            process.stdin.flush()
        looks = 0
        while any(process.poll() is None for process in rebuilding) or looks < 50:
            assert audit.history(WORK) == expected_history
            assert audit.leases() == expected_leases
            looks += 1
        for process in rebuilding:
            output, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
            assert int(output) == ledger.recorder.last_position()


def test_threads_share_one_audit_log(ledger: LeaseLedger, tmp_path: Path, live: Live, contents: Contents) -> None:
    audit = AuditLog.open(ledger)
    failures: list[BaseException] = []
    live(ledger, 2)

    def work(rebuilds: bool) -> None:
        try:
            for _ in range(15):
                if rebuilds:
                    audit.rebuild()
                history = audit.history(WORK)
                assert [entry.version for entry in history] == list(range(1, len(history) + 1))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(turn == 0,)) for turn in range(4)]
    for thread in threads:
        thread.start()
    live(ledger, 10)
    for thread in threads:
        thread.join()
    assert failures == []
    audit.catch_up()
    assert contents(audit) == _afresh(ledger, contents, tmp_path)


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A folder that every user may look into, but only its owner may write to."""
    folder = Path(tempfile.mkdtemp(prefix="audit-for-all-"))
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def _as_nobody(ask: Ask, action: str, path: Path, *arguments: object) -> str:
    """What a process says that may write nowhere in that folder."""
    path.parent.chmod(0o555)
    for file in path.parent.iterdir():
        if not file.is_dir():
            file.chmod(0o444)
    process = ask(f"as-nobody-{action}", path, *arguments, cwd="/")
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return output


@pytest.mark.parametrize("audited_before", [True, False])
def test_a_reader_who_may_not_write_catches_up_in_a_copy_of_its_own(
    audited_before: bool, open_to_all: Path, live: Live, ask: Ask
) -> None:
    path = open_to_all / "auth.db"
    with LeaseLedger.open(f"sqlite:///{path}") as ledger:
        live(ledger)
        if audited_before:
            with AuditLog.open(ledger) as audit:
                audit.catch_up()
        live(ledger)
        names = {file.name for file in open_to_all.iterdir()}
        before = {name: (open_to_all / name).read_bytes() for name in names if "audit" in name}
        every_version = list(range(1, (ledger.snapshot(WORK).version or 0) + 1))
        assert json.loads(_as_nobody(ask, "history", path, WORK)) == [True, every_version]
        assert {file.name for file in open_to_all.iterdir()} == names
        assert {name: (open_to_all / name).read_bytes() for name in before} == before


def test_a_reader_who_may_not_write_is_refused_a_rebuild(open_to_all: Path, live: Live, ask: Ask) -> None:
    path = open_to_all / "auth.db"
    with LeaseLedger.open(f"sqlite:///{path}") as ledger:
        live(ledger)
        AuditLog.open(ledger).catch_up()
        assert "may not write it" in _as_nobody(ask, "try-to-rebuild", path)


def test_a_forked_child_leaves_the_private_copy_to_its_parent(ledger: LeaseLedger, path: Path, live: Live) -> None:
    live(ledger)
    with AuditLog.open(ledger) as audit:
        leases = audit.leases()
    file = AuditFile(path.with_name("auth.audit.db"), private=True)
    child = os.fork()
    if child == 0:
        del file
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    with file.reading() as one, file.reading() as another:
        assert len(select_leases(one)) == len(select_leases(another)) == len(leases)
    file.close()
