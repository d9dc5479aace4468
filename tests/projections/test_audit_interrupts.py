"""Interrupts in the middle of questions, at instruction after instruction: the next question works, nothing is held.

What a signal handler raises comes out between any two instructions of the main thread. So the instructions of the
modules concerned are counted, and the same question is asked again and again, interrupted at another one each time.
"""

import contextlib
import shutil
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final

import pytest
from filelock import FileLock, Timeout

import ledger.threads
import projections
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.threads import StopRequest
from projections import audit_file, catch_up
from projections.audit import AuditLog

WORK: Final = LeaseKey.parse("dev:openai:work")
WATCHED: Final = (str(Path(projections.__file__).parent), ledger.threads.__file__, contextlib.__file__)
UNWATCHED: Final = ("typed_rows.py", "wide_integers.py", "history.py", "leases.py", "sql_questions.py", "sql_limits.py")
"""What holds nothing, or has tests of its own for interrupts while SQLite computes."""

Live = Callable[..., None]


class Interrupter:
    """Sends this process a signal before the nth instruction that a call runs in the watched modules."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.passed = 0
        self.sent = False

    def __call__(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "call":
            file = frame.f_code.co_filename
            if not file.startswith(WATCHED) or file.endswith(UNWATCHED):
                return None
            frame.f_trace_opcodes = True
            return self
        if event == "opcode":
            self.passed += 1
            if self.passed == self.at:
                if _is_finalizing(frame):
                    # Whatever is raised there, Python only prints.
                    self.at += 1
                else:
                    self.sent = True
                    signal.raise_signal(signal.SIGINT)
        return self

    def interrupts(self, question: Callable[[], object]) -> bool:
        """Ask, and tell whether the interrupt came out."""
        sys.settrace(self)
        try:
            question()
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(None)
        return False


def _is_finalizing(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None


def _instructions(question: Callable[[], object]) -> int:
    counting = Interrupter(0)
    assert not counting.interrupts(question)
    return counting.passed


class Case:
    """A question, and an audit file for it that is as it was for each time it is asked."""

    def __init__(self, ledger: LeaseLedger, before: Path | None, folder: Path) -> None:
        self.ledger = ledger
        self._before = before
        self._folder = folder
        self._asked = 0

    def audit(self) -> AuditLog:
        self._asked += 1
        path = self._folder / f"{self._asked}.db"
        if self._before is not None:
            shutil.copy(self._before, path)
        return AuditLog.open(self.ledger, path)


def _held_after(audit: AuditLog, versions: list[int]) -> str | None:
    """What an interrupted question left behind; ``None`` if nothing."""
    assert audit.path is not None
    answers: list[list[int]] = []

    def ask() -> None:
        answers.append([entry.version for entry in audit.history(WORK)])

    other = threading.Thread(target=ask, daemon=True)
    other.start()
    other.join(2)
    if answers != [versions]:
        return "another thread's question is not answered"
    ask()
    if answers[-1] != versions:
        return "the next question is answered wrong"
    file = audit._file()
    if file.private:
        return "the file is out of reach"
    with contextlib.closing(sqlite3.connect(audit.path, timeout=0, isolation_level=None)) as raw:
        try:
            raw.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return "a transaction is open"
    try:
        with FileLock(f"{audit.path}.lock", timeout=0, preserve_lock_file=True):
            pass
    except Timeout:
        return "the lock of rebuilds is held"
    return None


def _broken(case: Case, question: Callable[[AuditLog], object], every: int) -> Iterator[str]:
    counted = case.audit()
    versions = list(range(1, (case.ledger.snapshot(WORK).version or 0) + 1))
    instructions = _instructions(lambda: question(counted))
    counted.close()
    assert instructions > 50
    for at in range(1, instructions + 1, every):
        audit = case.audit()
        interrupter = Interrupter(at)
        came_out = interrupter.interrupts(partial(question, audit))
        if interrupter.sent and not came_out:
            yield f"instruction {at}: the interrupt was swallowed"
        left = _held_after(audit, versions)
        if left is not None:
            yield f"instruction {at}: {left}"
        audit.close()


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for what an interrupt left held does not wait for long."""
    monkeypatch.setattr(audit_file, "TURN_TIMEOUT_S", 1.0)
    monkeypatch.setattr("projections.audit_place.BUSY_TIMEOUT_S", 1.0)


@pytest.fixture
def behind(ledger: LeaseLedger, live: Live, tmp_path: Path) -> Path:
    """An audit file that has not seen the latest events."""
    live(ledger)
    path = tmp_path / "behind.db"
    with AuditLog.open(ledger, path) as audit:
        audit.catch_up()
    live(ledger)
    return path


def _ask_and_close(audit: AuditLog) -> None:
    audit.leases()
    audit.close()


QUESTIONS: Final[dict[str, tuple[bool, int, Callable[[AuditLog], object]]]] = {
    "make the file": (False, 11, lambda audit: audit.history(WORK)),
    "catch up": (True, 11, lambda audit: audit.history(WORK)),
    "ask twice": (True, 19, lambda audit: (audit.leases(), audit.leases(), audit.attempts(WORK))),
    "rebuild": (True, 11, lambda audit: audit.rebuild()),
    "verify": (True, 43, lambda audit: audit.verify()),
    "close": (True, 23, _ask_and_close),
}
"""Whether there is a file already, every how manieth instruction is interrupted, and what is asked."""


@pytest.mark.parametrize("name", QUESTIONS)
def test_no_interrupt_leaves_anything_held(name: str, ledger: LeaseLedger, behind: Path, tmp_path: Path) -> None:
    has_file, every, question = QUESTIONS[name]
    case = Case(ledger, behind if has_file else None, tmp_path)
    assert list(_broken(case, question, every)) == []
    assert [thread for thread in threading.enumerate() if not thread.daemon] == [threading.main_thread()]


def test_the_interrupts_show_what_is_torn_where_no_worker_shields_it(
    ledger: LeaseLedger, behind: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (catch_up, audit_file):
        monkeypatch.setattr(module, "stoppable", lambda call: call(StopRequest()))
    case = Case(ledger, behind, tmp_path)
    assert next(_broken(case, lambda audit: audit.rebuild(), 11), None) is not None
