"""Calls that no signal handler can tear: they run in a worker thread, and the main thread merely waits for them.

Python runs signal handlers in the main thread, between any two instructions of it, and whatever a handler raises comes
out right there: between taking a lock and the ``try`` that gives it back, between a server's answer and the variable
it is put into. No ``try`` covers all of that. So what must not be torn runs in a thread that handlers never visit. The
main thread holds nothing while it waits: an interrupt there tears nothing.

Starting a thread is interruptible too, and may leave one behind that never gets to its work. So a job is handed over
again until a worker has it, and done by the first that gets to it; and workers are daemons, which keep no interpreter
from ending. What must not be cut off at its end is waited for by :func:`_before_exit`.
"""

import _thread
import atexit
import contextvars
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Final, Generic, TypeVar

__all__ = ["Job", "StopRequest", "Stopped", "finished", "in_main_thread", "left_behind", "uninterrupted"]

T = TypeVar("T")

IDLE_S: Final = 10.0
"""How long a worker waits for another job before it ends."""

_idle: Final[deque["SimpleQueue[Job[Any]]"]] = deque()
_running: Final[set["Job[Any]"]] = set()


class Stopped(BaseException):
    """A job came to an early end because its caller, who was interrupted, asked for it."""


class StopRequest:
    """What an interrupted caller asks of the job that it waits for: come to an end where nothing is lost by it.

    Attributes:
        asked: Whether it did.
        left_behind: Whether it went away without waiting for the job's end.
        irreplaceable: Whether the job now holds what nobody else has, such as tokens that no store has yet. A caller
            then waits even when interrupted a second time.
        worth_waiting_s: How long the end of the interpreter is put off for the job.
    """

    __slots__ = ("asked", "irreplaceable", "left_behind", "worth_waiting_s")

    def __init__(self) -> None:
        self.asked: bool = False
        self.irreplaceable: bool = False
        self.left_behind: bool = False
        self.worth_waiting_s: float = 0.0

    def heed(self) -> None:
        """Stop here, if that was asked.

        Raises:
            Stopped: It was.
        """
        if self.asked:
            raise Stopped


class Job(Generic[T]):
    """A call that runs in a worker thread, once, to its end, whoever still waits for it.

    Args:
        call: What to do. It runs in a copy of the context variables of whoever makes the job.
        stop: Tells the call, which must look at it, that its caller would rather have it end.
        on_end: Called in the worker once the outcome is there.
    """

    __slots__ = ("_call", "_claim", "_context", "_end", "_on_end", "_outcome", "_started", "stop")

    def __init__(
        self, call: Callable[[], T], stop: StopRequest | None = None, on_end: Callable[[], object] | None = None
    ) -> None:
        self.stop = stop or StopRequest()
        self._call: Callable[[], T] | None = call
        self._context = contextvars.copy_context()
        self._on_end = on_end
        self._outcome: tuple[T | None, BaseException | None] | None = None
        self._claim = _thread.allocate_lock()
        self._end = _thread.allocate_lock()
        self._end.acquire()
        self._started = False

    @property
    def done(self) -> bool:
        """Whether the outcome is there."""
        return self._outcome is not None

    def start(self) -> None:
        """Have a worker take the job. May be called again when a signal interrupted it: the job runs once.

        Where no thread is to be had, the job runs here: unshielded is better than not at all.
        """
        if self._started:
            return
        try:
            _idle.pop().put(self)
        except IndexError:
            inbox: SimpleQueue[Job[Any]] = SimpleQueue()
            inbox.put(self)
            try:
                threading.Thread(target=_serve, args=(inbox,), name="lease-ledger worker", daemon=True).start()
            except RuntimeError:
                self.run()
        self._started = True

    def run(self) -> None:
        """Do it, here, unless it was begun already."""
        if not self._claim.acquire(blocking=False):
            return
        # Whoever still has the job keeps nothing of its call alive, such as a guard to be given back.
        call, self._call = self._call, None
        assert call is not None
        _running.add(self)
        try:
            self._outcome = self._context.run(call), None
        except BaseException as error:  # whoever waits gets it
            self._outcome = None, error
        finally:
            _running.discard(self)
            self._end.release()
        if self._on_end is not None:
            self._on_end()

    def wait(self, timeout_s: float = -1.0) -> None:
        """Wait until the outcome is there, or the time is over."""
        if not self.done and self._end.acquire(timeout=timeout_s):
            self._end.release()

    def result(self) -> T:
        """What the call returned. Raises what it raised."""
        assert self._outcome is not None
        value, failure = self._outcome
        if failure is not None:
            raise failure
        return value  # type: ignore[return-value]  # no failure: the value is the call's

    @property
    def failure(self) -> BaseException | None:
        """What the call raised."""
        return None if self._outcome is None else self._outcome[1]


def _serve(inbox: "SimpleQueue[Job[Any]]") -> None:
    job: Job[Any] | None = inbox.get()
    while job is not None:
        job.run()
        # While it waits for another, a worker keeps no outcome alive: a dropped connection is to close at once.
        job = None
        job = _next_job(inbox)


def _next_job(inbox: "SimpleQueue[Job[Any]]") -> "Job[Any] | None":
    _idle.append(inbox)
    try:
        return inbox.get(timeout=IDLE_S)
    except Empty:
        try:
            _idle.remove(inbox)
        except ValueError:
            # Somebody took it just now and is about to hand a job over.
            return inbox.get()
        return None


def _before_exit() -> None:
    """Let jobs finish that hold what would be lost with the process, such as tokens that no store has yet."""
    for job in tuple(_running):
        if job.stop.worth_waiting_s:
            job.wait(job.stop.worth_waiting_s)


atexit.register(_before_exit)
if hasattr(os, "register_at_fork"):
    # A forked child has none of its parent's workers, and waits for nothing that they do.
    os.register_at_fork(after_in_child=_idle.clear)
    os.register_at_fork(after_in_child=_running.clear)


def in_main_thread() -> bool:
    """Whether signal handlers run in this thread."""
    return _thread.get_ident() == threading.main_thread().ident


def finished(job: Job[T], *, patience_s: float | None = None) -> T:
    """Start a job, wait for it whatever interrupts, and return or raise its outcome.

    The first interrupt asks the job to stop, and comes out when it has. A second one comes out at once (a third one,
    while the job holds what is irreplaceable), and so does the first when the job takes longer than ``patience_s`` to
    stop; the job then goes on by itself.

    Args:
        job: The job.
        patience_s: Seconds to wait for it once interrupted; ``None`` for as long as it takes.
    """
    interrupts: list[BaseException] = []
    while not job.done:
        try:
            job.start()
            if not interrupts or patience_s is None:
                job.wait()
                continue
            job.wait(patience_s)
        except BaseException as error:  # whatever a signal handler raises
            interrupts.append(error)
            job.stop.asked = True
            if len(interrupts) > (2 if job.stop.irreplaceable else 1):
                raise left_behind(job, error) from interrupts[0]
            continue
        if not job.done:
            raise left_behind(job, interrupts[0])
    if interrupts:
        raise interrupts[0] from (None if isinstance(job.failure, Stopped) else job.failure)
    return job.result()


def left_behind(job: Job[Any], interrupt: BaseException) -> BaseException:
    """The interrupt, saying that it did not wait for the end of the job."""
    job.stop.left_behind = True
    interrupt.add_note(
        "What this interrupted goes on in a thread of its own. Should the process end before it is through, the next "
        "use of the lease, or Credentials.recover(key), finishes what was saved by then; a server's answer that had "
        "not come yet is lost with the process."
    )
    return interrupt


def uninterrupted(call: Callable[[], T]) -> T:
    """Run a short call where no signal handler can raise, and wait for its end whatever interrupts meanwhile.

    In the main thread it runs in a worker, and an interrupt comes out afterwards; in any other thread it simply runs.
    """
    # While the interpreter comes to its end, workers do not run any more.
    return finished(Job(call)) if in_main_thread() and not sys.is_finalizing() else call()
