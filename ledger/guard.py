"""The login guard: one lock per lease around credential commit, logout, recovery and compensation.

Within the process it is fair and serves threads and coroutines alike. With a ledger it also holds across the
processes and machines that share it, by a lock that dies with its holder. No lock is ever broken from outside.
"""

import asyncio
import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from ledger.errors import LeaseLedgerError
from ledger.keys import LeaseKey

if TYPE_CHECKING:
    from ledger.lease_ledger import LeaseLedger

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

    __slots__ = ("caller", "granted", "wake")

    def __init__(self, caller: Caller, wake: Callable[[], object]) -> None:
        self.caller = caller
        self.granted = False
        self.wake = wake

    def is_same_as(self, other: "_Turn") -> bool:
        return self.caller.thread == other.caller.thread and self.caller.task is other.caller.task


class _Mutex:
    """First come, first served, for threads and tasks together."""

    def __init__(self) -> None:
        self.holder: _Turn | None = None
        self.waiting: deque[_Turn] = deque()

    @property
    def unused(self) -> bool:
        return self.holder is None and not self.waiting


_registry: dict[LeaseKey, _Mutex] = {}
# Re-entrant, for the garbage collector may throw a forsaken task away in the middle of any of the steps below.
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
        if mutex.holder.is_same_as(turn) or any(turn.caller.thread == other.caller.thread for other in ahead):
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
                try:
                    following.wake()
                except RuntimeError:
                    # Its event loop is closed: nobody is left to wake.
                    continue
                following.granted = True
                mutex.holder = following
        if mutex.unused:
            del _registry[key]


def _current_task() -> tuple[object | None, Callable[[Callable[[], object]], object] | None]:
    """The task that runs here, and how another thread gets a call into its event loop; neither outside of one."""
    trio = sys.modules.get("trio")
    if trio is not None:
        try:
            return trio.lowlevel.current_task(), trio.lowlevel.current_trio_token().run_sync_soon
        except RuntimeError:
            pass
    try:
        return asyncio.current_task(), asyncio.get_running_loop().call_soon_threadsafe
    except RuntimeError:
        return None, None


def current_caller() -> Caller:
    """The thread and task that run here."""
    task, _ = _current_task()
    return Caller(threading.get_ident(), threading.current_thread().name, task)


class LoginGuard:
    """The guard of one lease, to be used once in a ``with`` or ``async with`` statement.

    Args:
        key: The lease.
        ledger: Whose processes and machines it holds across; ``None`` for this process alone.
        timeout_s: Seconds to wait for it.
        caller: Who blocks for it, when a helper thread takes it on somebody's behalf; whoever enters by default.
    """

    def __init__(
        self, key: LeaseKey, ledger: "LeaseLedger | None", timeout_s: float, caller: Caller | None = None
    ) -> None:
        self.key = key
        self._caller = caller
        self._timeout_s = timeout_s
        self._actor = f"thread {threading.get_ident()}" if ledger is None else ledger.actor
        self._lock = None if ledger is None else ledger.recorder.guard_lock(str(key))
        self._turn: _Turn | None = None

    def __enter__(self) -> Self:
        deadline = time.monotonic() + self._timeout_s
        woken = threading.Event()
        turn = _Turn(self._caller or current_caller(), woken.set)
        _enqueue(self.key, turn, blocks_thread=True)
        try:
            if not turn.granted and not woken.wait(self._timeout_s):
                raise self._timed_out(turn)
            for pause_s in self._lock_attempts(turn, deadline):
                time.sleep(pause_s)
        except BaseException:
            _leave(self.key, turn)
            raise
        self._turn = turn
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        turn, self._turn = self._turn, None
        assert turn is not None
        try:
            if self._lock is not None:
                self._lock.release()
        finally:
            _leave(self.key, turn)

    async def __aenter__(self) -> Self:
        import anyio  # noqa: PLC0415  # only coroutines need it, and it takes its time to import

        deadline = time.monotonic() + self._timeout_s
        woken = anyio.Event()
        _, call_soon = _current_task()
        assert call_soon is not None
        turn = _Turn(self._caller or current_caller(), partial(call_soon, woken.set))
        _enqueue(self.key, turn, blocks_thread=False)
        try:
            if not turn.granted:
                with anyio.move_on_after(self._timeout_s):
                    await woken.wait()
                if not woken.is_set():
                    raise self._timed_out(turn)
            for pause_s in self._lock_attempts(turn, deadline):
                await anyio.sleep(pause_s)
        except BaseException:
            _leave(self.key, turn)
            raise
        self._turn = turn
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def _lock_attempts(self, turn: _Turn, deadline: float) -> Generator[float, None, None]:
        """Try for the lock among processes; yields how many seconds to wait before each further try."""
        pause_s = FIRST_POLL_S
        while self._lock is not None and not self._lock.try_acquire(self._actor):
            if time.monotonic() >= deadline:
                raise self._timed_out(turn)
            yield pause_s
            pause_s = min(pause_s * 2, LONGEST_POLL_S)

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
