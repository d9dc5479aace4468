"""The login guard: one lock per lease around credential commit, logout, recovery and compensation.

Within the process it is fair and serves threads and coroutines alike. With a ledger it also holds across the
processes and machines that share it, by a lock that dies with its holder. No lock is ever broken from outside.
"""

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from ledger.errors import LeaseLedgerError
from ledger.keys import LeaseKey
from ledger.loops import current_loop, current_task, interrupted_only_where_it_waits, tell_trio
from ledger.threads import Job, StopRequest, finished, in_main_thread, uninterrupted

if TYPE_CHECKING:
    from ledger.lease_ledger import LeaseLedger
    from ledger.recorders.locks import GuardLock

__all__ = [
    "DEFAULT_TIMEOUT_S",
    "Caller",
    "GuardReentered",
    "GuardTimeout",
    "LoginGuard",
    "acquire_auth_login_lifecycle_guard",
    "current_caller",
]

DEFAULT_TIMEOUT_S: Final = 60.0
FIRST_POLL_S: Final = 0.002
LONGEST_POLL_S: Final = 0.02
STOP_LOOK_EVERY_S: Final = 0.05
"""How soon an interrupted waiter notices."""


class GuardTimeout(LeaseLedgerError, TimeoutError):
    """The guard was not free in time. Nothing was done, and no credential is dead for it.

    Attributes:
        key: The lease.
        waited_s: Seconds waited.
        holder: Whom the wait was for, when that can be told.
    """

    def __init__(self, key: LeaseKey, waited_s: float, holder: str | None) -> None:
        super().__init__(key, waited_s, holder)
        self.key = key
        self.waited_s = waited_s
        self.holder = holder

    def __str__(self) -> str:
        return (
            f"waited {self.waited_s:g} s for the login guard of {self.key}, "
            f"held by {self.holder or 'another process'}; try again, or end that one if it hangs"
        )


class GuardReentered(LeaseLedgerError, RuntimeError):
    """The guard was taken again by its own holder, or where waiting could never end: a deadlock, told at once."""

    def __init__(self, key: LeaseKey) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f"the login guard of {self.key} is already held here; waiting for it would never end"


class Caller(NamedTuple):
    """Who takes a guard: a thread, and the task that runs on it, if one does."""

    thread: int
    name: str
    task: object | None

    def __str__(self) -> str:
        what = "thread" if self.task is None else "a task on thread"
        return f"{what} {self.name!r} of this process"


class _Turn:
    """One holder or waiter, and how to wake it."""

    __slots__ = ("caller", "granted", "stop", "wake")

    def __init__(self, caller: Caller, wake: Callable[[], object], stop: StopRequest | None = None) -> None:
        self.caller = caller
        self.granted = False
        self.stop = stop
        self.wake = wake

    def is_same_as(self, other: "_Turn") -> bool:
        return self.shares_thread_with(other) and self.caller.task is other.caller.task

    def shares_thread_with(self, other: "_Turn") -> bool:
        # Whose caller went away is waited for by nobody any more, and goes on by itself.
        left_behind = self.stop is not None and self.stop.left_behind
        return not left_behind and self.caller.thread == other.caller.thread


class _Mutex:
    """First come, first served, for threads and tasks together."""

    def __init__(self) -> None:
        self.holder: _Turn | None = None
        self.waiting: deque[_Turn] = deque()

    @property
    def unused(self) -> bool:
        return self.holder is None and not self.waiting


_registry: dict[LeaseKey, _Mutex] = {}
# Taken only where no signal handler runs. Re-entrant, for the garbage collector may throw a forsaken task away in the
# middle of any of the steps below.
_registry_lock = threading.RLock()


def _forget_in_forked_child() -> None:
    """A forked child has none of its parent's other threads, and holds none of its parent's locks."""
    _registry.clear()
    _registry_lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_registry_lock.acquire,
        after_in_parent=_registry_lock.release,
        after_in_child=_forget_in_forked_child,
    )


def _enqueue(key: LeaseKey, turn: _Turn, *, blocks_thread: bool) -> None:
    with _registry_lock:
        mutex = _registry.setdefault(key, _Mutex())
        if mutex.holder is None:
            mutex.holder = turn
            turn.granted = True
            return
        # A task that holds the guard, or is served before us, cannot go on while its own thread blocks.
        ahead = (mutex.holder, *mutex.waiting) if blocks_thread else ()
        if mutex.holder.is_same_as(turn) or any(other.shares_thread_with(turn) for other in ahead):
            raise GuardReentered(key)
        mutex.waiting.append(turn)


def _leave(key: LeaseKey, turn: _Turn) -> None:
    """Give the turn up, granted or not, and wake the next."""
    with _registry_lock:
        mutex = _registry.get(key)
        if mutex is None:
            # Passed over when its event loop was closed and only now thrown away, or left over from before a fork.
            return
        if mutex.holder is not turn:
            with contextlib.suppress(ValueError):
                mutex.waiting.remove(turn)
        else:
            mutex.holder = None
            while mutex.waiting and mutex.holder is None:
                following = mutex.waiting.popleft()
                following.granted = True
                try:
                    following.wake()
                except RuntimeError:
                    # Its event loop is closed: nobody is left to wake.
                    following.granted = False
                    continue
                mutex.holder = following
        if mutex.unused:
            del _registry[key]


def current_caller() -> Caller:
    """The thread and task that run here."""
    return Caller(threading.get_ident(), threading.current_thread().name, current_task())


class LoginGuard:
    """The guard of one lease, to be used once in a ``with`` or ``async with`` statement.

    It never outlives the stack of its holder: what an interrupt keeps from being given back is given back when the
    object goes.

    Args:
        key: The lease.
        ledger: Whose processes and machines it holds across; ``None`` for this process alone.
        timeout_s: Seconds to wait for it.
    """

    def __init__(self, key: LeaseKey, ledger: "LeaseLedger | None", timeout_s: float) -> None:
        self.key = key
        self._timeout_s = timeout_s
        self._ledger = ledger
        self._actor = f"thread {threading.get_ident()}" if ledger is None else ledger.actor
        self._lock: GuardLock | None = None
        self._turn: _Turn | None = None
        self._next_pause_s = FIRST_POLL_S
        self._process = os.getpid()
        tell_trio()

    def __del__(self) -> None:
        if getattr(self, "_turn", None) is not None and self._process == os.getpid():
            uninterrupted(self.close)

    def __enter__(self) -> Self:
        stop, caller = StopRequest(), current_caller()
        try:
            if in_main_thread():
                finished(Job(lambda: self.take(caller, stop), stop))
            else:
                self.take(caller, stop)
        except BaseException:
            uninterrupted(self.close)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            uninterrupted(self.close)
        except BaseException:
            # Interrupted before a worker had it.
            uninterrupted(self.close)
            raise

    @interrupted_only_where_it_waits
    async def __aenter__(self) -> Self:
        await self._take_in_task()
        return self

    @interrupted_only_where_it_waits
    async def _take_in_task(self) -> None:
        import anyio  # noqa: PLC0415  # only coroutines need it, and it takes its time to import

        deadline = time.monotonic() + self._timeout_s
        woken = anyio.Event()
        turn = _Turn(current_caller(), partial(current_loop().call_soon, woken.set))
        self._turn = turn
        try:
            uninterrupted(lambda: _enqueue(self.key, turn, blocks_thread=False))
            if not turn.granted:
                with anyio.move_on_after(self._timeout_s):
                    await woken.wait()
                if not turn.granted:
                    raise uninterrupted(lambda: self._timed_out(turn))
            while (pause_s := uninterrupted(lambda: self._try_lock(turn, deadline))) is not None:
                await anyio.sleep(pause_s)
        except BaseException:
            uninterrupted(self.close)
            raise

    @interrupted_only_where_it_waits
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def take(self, caller: Caller, stop: StopRequest, *, blocks_thread: bool = True) -> None:
        """Take the guard in a thread where no signal handler runs; what was taken is given back when that fails.

        Args:
            caller: On whose behalf.
            stop: Ends the wait when asked.
            blocks_thread: Whether the caller's whole thread waits, all its tasks included.

        Raises:
            Stopped: The wait was ended.
            GuardTimeout: Somebody else held it all the time.
            GuardReentered: The caller holds it already.
            LedgerStorageError: The ledger's storage cannot lock.
        """
        deadline = time.monotonic() + self._timeout_s
        woken = threading.Event()
        turn = self._turn = _Turn(caller, woken.set, stop)
        try:
            _enqueue(self.key, turn, blocks_thread=blocks_thread)
            while not turn.granted:
                stop.heed()
                if time.monotonic() >= deadline:
                    raise self._timed_out(turn)
                woken.wait(min(STOP_LOOK_EVERY_S, max(deadline - time.monotonic(), 0.0)))
            while (pause_s := self._try_lock(turn, deadline)) is not None:
                stop.heed()
                time.sleep(pause_s)
        except BaseException:
            self.close()
            raise

    def _try_lock(self, turn: _Turn, deadline: float) -> float | None:
        """Try for the lock among processes; how many seconds to wait before the next try, ``None`` once it is ours."""
        if self._lock is None and self._ledger is not None:
            self._lock = self._ledger.recorder.guard_lock(str(self.key))
        if self._lock is None or self._lock.try_acquire(self._actor):
            return None
        if time.monotonic() >= deadline:
            raise self._timed_out(turn)
        pause_s = self._next_pause_s
        self._next_pause_s = min(pause_s * 2, LONGEST_POLL_S)
        return pause_s

    def close(self) -> None:
        """Give back what was taken, in a thread where no signal handler runs; nothing, when nothing is held."""
        turn, self._turn = self._turn, None
        if turn is None:
            return
        try:
            # Only who has the turn may have the lock.
            if self._lock is not None and turn.granted:
                self._lock.release()
        finally:
            _leave(self.key, turn)

    def _timed_out(self, turn: _Turn) -> GuardTimeout:
        with _registry_lock:
            mutex = _registry.get(self.key)
            here = mutex.holder if mutex else None
        if here is not None and here is not turn:
            return GuardTimeout(self.key, self._timeout_s, str(here.caller))
        return GuardTimeout(self.key, self._timeout_s, self._lock.held_by() if self._lock else None)


def acquire_auth_login_lifecycle_guard(
    key: LeaseKey, *, ledger: "LeaseLedger | None" = None, timeout_s: float = DEFAULT_TIMEOUT_S
) -> LoginGuard:
    """The guard that serialises credential commit, logout and compensation of one lease.

    Args:
        key: The lease.
        ledger: With one, the guard also holds across the processes and machines that share it.
        timeout_s: Seconds to wait for it.

    Entering it raises:
        GuardTimeout: Somebody else held it all that time; says who, when that can be told.
        GuardReentered: This thread or task holds it already.
        LedgerStorageError: The ledger's storage cannot lock.
    """
    return LoginGuard(key, ledger, timeout_s)
