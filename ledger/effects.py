"""The steps that the boundaries of ``Credentials`` are made of, and the driver that performs them for threads.

A boundary is a generator: it yields what is to be done and is sent the outcome. So the same code runs under threads,
under an event loop, and under a simulator that may crash it between any two steps.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar, assert_never

from ledger.guard import DEFAULT_TIMEOUT_S, Caller, LoginGuard, current_caller
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.tokens import PersistedTokens

__all__ = ["Effect", "Exchange", "Guarded", "Pause", "Protocol", "Revoke", "Step", "guarded", "run_protocol"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Step:
    """Read or write the ledger or the store: one call that takes no long time."""

    call: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait so many seconds before looking again.

    ``since``: the change token taken before the last look; the wait may end as soon as anything was committed after it.
    """

    seconds: float
    since: int | None = None


@dataclass(frozen=True, slots=True)
class Exchange:
    """Have the caller's refresh function spend these tokens."""

    tokens: PersistedTokens


@dataclass(frozen=True, slots=True)
class Guarded:
    """Run a part under the lease's login guard, to its end even when the caller is cancelled meanwhile.

    ``holds_new_tokens``: the part must run even when the caller is cancelled while it still waits for the guard.
    """

    key: LeaseKey
    part: "Callable[[], Protocol[Any]]"
    holds_new_tokens: bool = False


@dataclass(frozen=True, slots=True)
class Revoke:
    """Tell the server that these tokens are not wanted, if anybody here can; nothing depends on it."""

    tokens: PersistedTokens


Effect = Step | Pause | Exchange | Guarded | Revoke
Protocol = Generator[Effect, Any, T]


def guarded(key: LeaseKey, part: Callable[[], Protocol[T]]) -> Protocol[T]:
    """A protocol that is one guarded part."""
    outcome: T = yield Guarded(key, part)
    return outcome


def run_protocol(
    protocol: Protocol[T],
    ledger: LeaseLedger,
    refresh: Callable[[PersistedTokens], PersistedTokens] | None = None,
    revoke: Callable[[PersistedTokens], object] | None = None,
) -> T:
    """Perform a protocol in this thread and return its outcome.

    Args:
        protocol: The boundary to perform.
        ledger: Whose guard ``Guarded`` parts hold.
        refresh: Performs ``Exchange``; needed only by protocols that yield one.
        revoke: Performs ``Revoke``.
    """
    outcome: Any = None
    failure: BaseException | None = None
    while True:
        try:
            effect = protocol.send(outcome) if failure is None else protocol.throw(failure)
        except StopIteration as stop:
            result: T = stop.value
            return result
        outcome = failure = None
        try:
            outcome = _perform(effect, ledger, refresh, revoke)
        except BaseException as error:  # the protocol decides what each failure means
            failure = error


def _perform(
    effect: Effect,
    ledger: LeaseLedger,
    refresh: Callable[[PersistedTokens], PersistedTokens] | None,
    revoke: Callable[[PersistedTokens], object] | None,
) -> Any:
    match effect:
        case Step(call):
            return call()
        case Pause(seconds, since):
            return time.sleep(seconds) if since is None else ledger.recorder.wait_for_change(since, seconds)
        case Exchange(tokens):
            assert refresh is not None
            return refresh(tokens)
        case Guarded(key, part):
            # The helper thread that may run the part waits on our behalf: if we hold the guard, nobody can go on.
            caller = current_caller()
            return _shielded(lambda: _guarded(key, part(), ledger, caller))
        case Revoke(tokens):
            # A server that cannot be told changes nothing here.
            with contextlib.suppress(Exception):
                return None if revoke is None else revoke(tokens)
            return None
        case _:
            assert_never(effect)


def _guarded(key: LeaseKey, part: Protocol[T], ledger: LeaseLedger, caller: Caller) -> T:
    with LoginGuard(key, ledger, DEFAULT_TIMEOUT_S, caller):
        return run_protocol(part, ledger)


def _shielded(call: Callable[[], T]) -> T:
    """Run a call to its end even when a signal interrupts meanwhile; what its handler raised is raised afterwards.

    Python delivers signals to the main thread alone, so there the call runs in a thread of its own.
    """
    if threading.current_thread() is not threading.main_thread():
        return call()
    outcome: list[T] = []
    failure: list[BaseException] = []
    claim, end = threading.Lock(), threading.Lock()
    end.acquire()

    def perform() -> None:
        if not claim.acquire(blocking=False):
            return
        try:
            outcome.append(call())
        except BaseException as error:  # raised again in the main thread
            failure.append(error)
        finally:
            end.release()

    interrupt: BaseException | None = None
    started = False
    # Not Thread.join: interrupted, it takes a running thread for one that ended (CPython issue 90882).
    while not (outcome or failure):
        try:
            if not started:
                _start(perform)
                started = True
            end.acquire()
        except BaseException as error:  # whatever a signal handler raises waits until the end
            interrupt = error
    if interrupt is not None:
        raise interrupt from (failure[0] if failure else None)
    if failure:
        raise failure[0]
    return outcome[0]


def _start(perform: Callable[[], None]) -> None:
    """Begin in a thread, or do it here where none is to be had: unshielded is better than not at all."""
    worker = threading.Thread(target=perform, name="lease-ledger guarded step")
    try:
        worker.start()
    except RuntimeError:
        perform()
