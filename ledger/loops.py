"""Reaching an event loop, asyncio's or trio's, from another thread."""

import asyncio
import contextlib
import contextvars
import inspect
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from ledger.threads import StopRequest

if TYPE_CHECKING:
    import trio

__all__ = ["Loop", "current_loop", "current_task", "interrupted_only_where_it_waits", "tell_trio"]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

LOOK_EVERY_S: Final = 0.1
STANDSTILL_S: Final = 5.0
"""How long an event loop may stand still before it counts as given up."""


class LoopGone(BaseException):
    """An event loop ended, or was stopped for good, under a call made in it."""


Outcome = tuple[T | None, BaseException | None]


class _Call(ABC, Generic[T]):
    """A coroutine in a task of its own, so that nobody else's cancellation reaches it."""

    def __init__(self, function: Callable[[], Awaitable[T]]) -> None:
        self.function = function
        self.context = contextvars.copy_context()
        self.outcomes: SimpleQueue[Outcome[T]] = SimpleQueue()

    @abstractmethod
    def begin(self) -> None:
        """Start it; called in the event loop."""

    @abstractmethod
    def cancel(self) -> None:
        """Cancel it; called in the event loop."""

    def outcome(self, timeout_s: float) -> Outcome[T] | None:
        """What it came to; ``None`` when it came to nothing yet."""
        with contextlib.suppress(Empty):
            return self.outcomes.get(timeout=timeout_s)
        return None


class Loop(ABC):
    """An event loop, for those who work for its tasks in other threads. Compares equal to itself alone."""

    @abstractmethod
    def call_soon(self, callback: Callable[[], object]) -> None:
        """Have the loop call this, from any thread.

        Raises:
            RuntimeError: The loop is closed.
        """

    @abstractmethod
    def is_going(self) -> bool:
        """Whether it runs now."""

    @abstractmethod
    def _new_call(self, function: Callable[[], Awaitable[T]]) -> _Call[T]: ...

    def run(self, function: Callable[[], Awaitable[T]], stop: StopRequest, patience_s: float) -> T:
        """Perform a coroutine function in the loop and wait for it, in another thread than the loop's.

        Cancellation of the task that waits for this thread does not reach the coroutine: it comes to its end, unless
        that takes longer than ``patience_s`` from when the waiting task asked to stop; then it is cancelled.

        Args:
            function: Makes the coroutine, or any other awaitable.
            stop: What the waiting task asks.
            patience_s: Seconds.

        Raises:
            LoopGone: The loop ended or was stopped for good. Whether the coroutine had its effect is unknown.
        """
        call = self._new_call(function)
        impatient_at_s, standing_since_s = float("inf"), float("inf")
        with contextlib.suppress(RuntimeError):
            self.call_soon(call.begin)
            while (outcome := call.outcome(LOOK_EVERY_S)) is None:
                now_s = time.monotonic()
                standing_since_s = float("inf") if self.is_going() else min(standing_since_s, now_s)
                if now_s - standing_since_s > STANDSTILL_S:
                    self.call_soon(call.cancel)
                    break
                if stop.asked:
                    impatient_at_s = min(impatient_at_s, now_s + patience_s)
                if now_s >= impatient_at_s:
                    self.call_soon(call.cancel)
            else:
                value, failure = outcome
                if failure is not None:
                    raise failure
                return value  # type: ignore[return-value]  # no failure: the value is the coroutine's
        raise LoopGone


class _AsyncioCall(_Call[T]):
    def __init__(self, function: Callable[[], Awaitable[T]], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(function)
        self._loop = loop
        self._task: asyncio.Task[T] | None = None

    def begin(self) -> None:
        try:
            awaitable = self.context.run(self.function)
            # The task itself takes what the coroutine returns: no line of ours stands in between to be interrupted.
            coroutine = awaitable if inspect.iscoroutine(awaitable) else _awaited(awaitable)
            self._task = self._loop.create_task(coroutine, context=self.context)
            # Whoever cancels all tasks, as asyncio.run does at its end, does not find this one: the task that waits
            # for it is found, and waits.
            asyncio.tasks._unregister_task(self._task)
        except Exception as error:
            self.outcomes.put((None, error))
            return
        self._task.add_done_callback(self._ended)

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def outcome(self, timeout_s: float) -> Outcome[T] | None:
        found = super().outcome(timeout_s)
        if found is None and self._task is not None and self._task.done():
            return _outcome_of(self._task)
        return found

    def _ended(self, task: "asyncio.Task[T]") -> None:
        self.outcomes.put(_outcome_of(task))


def _outcome_of(task: "asyncio.Task[T]") -> Outcome[T]:
    try:
        return task.result(), None
    except BaseException as error:  # whoever waits gets it
        return None, error


async def _awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable


class _AsyncioLoop(Loop):
    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _AsyncioLoop) and self._loop is other._loop

    def __hash__(self) -> int:
        return id(self._loop)

    def call_soon(self, callback: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(callback)

    def is_going(self) -> bool:
        return self._loop.is_running()

    def _new_call(self, function: Callable[[], Awaitable[T]]) -> _Call[T]:
        return _AsyncioCall(function, self._loop)


class _TrioCall(_Call[T]):
    """Runs in a system task, where trio raises no KeyboardInterrupt."""

    def __init__(self, function: Callable[[], Awaitable[T]]) -> None:
        super().__init__(function)
        self._scope: trio.CancelScope | None = None

    def begin(self) -> None:
        import trio  # noqa: PLC0415  # here only when it is what runs

        self._scope = trio.CancelScope()
        try:
            trio.lowlevel.spawn_system_task(self._perform, self._scope, context=self.context)
        except RuntimeError:
            # Trio is coming to its end.
            self.outcomes.put((None, LoopGone()))

    async def _perform(self, scope: "trio.CancelScope") -> None:
        import trio  # noqa: PLC0415

        with scope:
            try:
                value = await self.function()
            except trio.Cancelled as error:
                self.outcomes.put((None, error))
                raise
            except BaseException as error:  # out of a system task it would end trio
                self.outcomes.put((None, error))
            else:
                self.outcomes.put((value, None))

    def cancel(self) -> None:
        if self._scope is not None:
            self._scope.cancel()


class _TrioLoop(Loop):
    def __init__(self, token: "trio.lowlevel.TrioToken") -> None:
        self._token = token

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _TrioLoop) and self._token is other._token

    def __hash__(self) -> int:
        return id(self._token)

    def call_soon(self, callback: Callable[[], object]) -> None:
        self._token.run_sync_soon(callback)

    def is_going(self) -> bool:
        try:
            self._token.run_sync_soon(int)
        except RuntimeError:
            return False
        return True

    def _new_call(self, function: Callable[[], Awaitable[T]]) -> _Call[T]:
        return _TrioCall(function)


_only_where_they_wait: Final[list[Callable[..., Any]]] = []


def interrupted_only_where_it_waits(function: F) -> F:
    """Mark a coroutine function, in whose own lines trio is to raise no KeyboardInterrupt."""
    _only_where_they_wait.append(function)
    return function


def tell_trio() -> None:
    """Tell trio, once it is there, of the functions so marked."""
    trio = sys.modules.get("trio")
    while trio is not None and _only_where_they_wait:
        trio.lowlevel.enable_ki_protection(_only_where_they_wait.pop())


def _trio() -> Any:
    """Trio, when its event loop is what runs here."""
    trio = sys.modules.get("trio")
    if trio is not None:
        with contextlib.suppress(RuntimeError):
            trio.lowlevel.current_task()
            return trio
    return None


def current_task() -> object | None:
    """The task that runs here; ``None`` outside of an event loop."""
    trio = _trio()
    if trio is not None:
        task: object = trio.lowlevel.current_task()
        return task
    with contextlib.suppress(RuntimeError):
        return asyncio.current_task()
    return None


def current_loop() -> Loop:
    """The event loop that runs here.

    Raises:
        RuntimeError: None does.
    """
    tell_trio()
    trio = _trio()
    return _AsyncioLoop() if trio is None else _TrioLoop(trio.lowlevel.current_trio_token())
