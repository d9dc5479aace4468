"""Jobs: calls that no signal handler tears, and whoever waits for them."""

import contextvars
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ledger import threads
from ledger.threads import Job, Stopped, finished, uninterrupted

# No public name leads to a job alone; what uses them is tested by its own folder.


def interrupting(call: Callable[[], object], *, times: int = 1, after_s: float = 0.05) -> None:
    """Make a call while this process gets so many signals."""

    def send() -> None:
        for _ in range(times):
            time.sleep(after_s)
            os.kill(os.getpid(), signal.SIGINT)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        call()
    finally:
        sender.join()


def test_a_call_runs_elsewhere_and_its_outcome_comes_back() -> None:
    assert uninterrupted(threading.get_ident) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        uninterrupted(lambda: 1 // 0)


def test_in_another_thread_than_the_main_one_a_call_runs_right_there() -> None:
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(uninterrupted(threading.get_ident) == threading.get_ident()))
    thread.start()
    thread.join()
    assert found == [True]


def test_a_call_sees_the_context_variables_of_its_caller() -> None:
    who = contextvars.ContextVar[str]("who")
    who.set("the caller")
    assert uninterrupted(who.get) == "the caller"


def test_an_interrupt_comes_out_once_the_call_is_through() -> None:
    ended: list[float] = []

    def slow() -> None:
        time.sleep(0.3)
        ended.append(time.monotonic())

    with pytest.raises(KeyboardInterrupt):
        interrupting(lambda: uninterrupted(slow))
    assert len(ended) == 1


def test_an_interrupt_hides_no_failure_of_the_call() -> None:
    def fail() -> None:
        time.sleep(0.2)
        raise OSError("the disk is full")

    with pytest.raises(KeyboardInterrupt) as caught:
        interrupting(lambda: uninterrupted(fail))
    assert isinstance(caught.value.__cause__, OSError)


def test_a_job_that_is_asked_to_stop_may() -> None:
    job: Job[None]

    def until_asked() -> None:
        while True:
            job.stop.heed()
            time.sleep(0.005)

    job = Job(until_asked)
    with pytest.raises(KeyboardInterrupt) as caught:
        interrupting(lambda: finished(job))
    assert isinstance(job.failure, Stopped) and caught.value.__cause__ is None


def test_a_second_interrupt_comes_out_at_once_and_says_what_goes_on() -> None:
    let_go = threading.Event()
    job = Job(lambda: let_go.wait(10))
    with pytest.raises(KeyboardInterrupt) as caught:
        interrupting(lambda: finished(job), times=2)
    assert not job.done and job.stop.left_behind
    assert "recover" in " ".join(caught.value.__notes__)
    let_go.set()
    job.wait()
    assert job.result() is True


def test_what_is_irreplaceable_is_waited_for_through_a_second_interrupt() -> None:
    let_go = threading.Event()
    job = Job(lambda: let_go.wait(10))
    job.stop.irreplaceable = True
    threading.Timer(0.4, let_go.set).start()
    with pytest.raises(KeyboardInterrupt):
        interrupting(lambda: finished(job), times=2)
    assert job.result() is True


def test_an_interrupted_caller_is_patient_only_for_so_long() -> None:
    let_go = threading.Event()
    job = Job(lambda: let_go.wait(10))
    with pytest.raises(KeyboardInterrupt):
        interrupting(lambda: finished(job, patience_s=0.1))
    assert not job.done
    let_go.set()


def test_a_job_runs_once_however_often_it_is_handed_over() -> None:
    runs: list[int] = []
    job = Job(lambda: runs.append(1))
    for _ in range(5):
        job.start()
        job._started = False  # as after an interrupt between handing over and noting it
    job.wait()
    assert runs == [1]


def test_where_no_thread_is_to_be_had_the_job_runs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    threads._idle.clear()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert uninterrupted(threading.get_ident) == threading.get_ident()


PROGRAM = """
import sys, time
from ledger.threads import Job

job = Job(lambda: (time.sleep(0.5), open(sys.argv[1], "w").write("saved")))
job.stop.worth_waiting_s = float(sys.argv[2])
job.start()
"""


@pytest.mark.parametrize(("worth_s", "saved"), [(20.0, True), (0.0, False)])
def test_the_interpreter_waits_at_its_end_for_what_is_worth_it(tmp_path: Path, worth_s: float, saved: bool) -> None:
    subprocess.run([sys.executable, "-c", PROGRAM, tmp_path / "file", str(worth_s)], check=True, timeout=30)
    assert (tmp_path / "file").exists() == saved


def test_a_hung_job_keeps_no_interpreter_from_ending() -> None:
    program = "import threading; from ledger.threads import Job; Job(threading.Event().wait).start()"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


def test_a_forked_child_has_workers_of_its_own() -> None:
    program = (
        "import os; from ledger.threads import uninterrupted; uninterrupted(int)\n"
        "if os.fork() == 0: os._exit(uninterrupted(lambda: 7))\n"
        "assert os.waitstatus_to_exitcode(os.wait()[1]) == 7"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
