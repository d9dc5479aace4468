"""What runs where no signal handler does, and what stays of it: nothing that anybody would have to wait for."""

import gc
import os
import threading
import weakref
from pathlib import Path

import pytest

from ledger import threads
from ledger.recorders import sqlite_connections
from ledger.recorders.sqlite_connections import SQLiteConnections
from ledger.threads import Job, StopRequest, finished, uninterrupted


class Made:
    pass


@pytest.mark.parametrize("by", ["a new worker", "one that waits"])
def test_what_a_call_returned_is_gone_when_its_caller_drops_it(by: str) -> None:
    threads._idle.clear()
    if by == "one that waits":
        uninterrupted(Made)
    made = weakref.ref(uninterrupted(Made))
    gc.collect()
    assert made() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_a_forked_child_waits_at_its_end_for_nothing_that_its_parent_does() -> None:
    go_on, stop = threading.Event(), StopRequest()
    stop.worth_waiting_s = 60.0
    job = Job(go_on.wait, stop)
    job.start()
    while job not in threads._running:
        go_on.wait(0.001)
    child = os.fork()
    if child == 0:
        os._exit(len(threads._running))
    go_on.set()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert finished(job)


def test_a_fork_that_waited_in_vain_gives_back_nothing_that_others_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_connections, "FORK_PATIENCE_S", 0.01)
    connections = SQLiteConnections(tmp_path / "any.db", f"file:{tmp_path}/any.db", "normal")
    with connections._opening:
        connections.before_fork()
        connections.after_fork_in_parent()
        assert connections._opening.locked()
    connections.before_fork()
    connections.after_fork_in_parent()
    assert not connections._opening.locked()
