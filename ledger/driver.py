"""Performing procedures: in this thread, or in a worker that neither signals nor cancellations reach.

Everything between a server's answer and its recorded event happens in one thread, from the first effect to the last.
Whoever waits for it may be interrupted at any instruction; the procedure is only asked to stop, and is stopped where
nothing is lost by it.
"""

import contextlib
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar, assert_never

from ledger.effects import Effect, Exchange, Guarded, Pause, Procedure, Revoke, Step
from ledger.guard import DEFAULT_TIMEOUT_S, Caller, LoginGuard, current_caller
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.threads import Job, StopRequest, finished, in_main_thread
from ledger.tokens import PersistedTokens

__all__ = ["Driver", "perform"]

T = TypeVar("T")

EXIT_WAITS_FOR_ANSWER_S: Final = 5.0
"""How long the end of the interpreter is put off for an exchange whose caller went away."""

EXIT_WAITS_FOR_SAVE_S: Final = 30.0
"""How long for tokens that the server gave and no store has yet."""


def perform(
    procedure: Callable[[], Procedure[T]],
    ledger: LeaseLedger,
    refresh: Callable[[PersistedTokens], PersistedTokens] | None = None,
    revoke: Callable[[PersistedTokens], object] | None = None,
    *,
    patience_s: float = DEFAULT_TIMEOUT_S,
) -> T:
    """Perform a procedure to its end and return its outcome.

    In the main thread, where signal handlers run, a worker performs it and this thread waits; elsewhere it is performed
    right here. An interrupt comes out once nothing is lost by it, with the procedure's own failure as its cause.

    Args:
        procedure: Makes the procedure.
        ledger: Whose guard ``Guarded`` parts hold.
        refresh: Performs ``Exchange``; needed only by procedures that yield one.
        revoke: Performs ``Revoke``.
        patience_s: Seconds an interrupted caller waits for the procedure to come to an end.
    """
    stop = StopRequest()
    driver = Driver(ledger, stop, current_caller(), refresh, revoke)
    if not in_main_thread():
        return driver.run(procedure())
    return finished(Job(lambda: driver.run(procedure()), stop), patience_s=patience_s)


class Driver:
    """Performs one procedure's effects in the thread it runs in.

    Args:
        ledger: Whose guard ``Guarded`` parts hold.
        stop: Whether the caller asks to stop; told, in turn, while the procedure holds what nobody else has.
        caller: On whose behalf the guard is taken: if the caller holds it, nobody can go on.
        refresh: Performs ``Exchange``.
        revoke: Performs ``Revoke``.
        blocks_caller: Whether the caller's whole thread waits for the outcome, all its tasks included.
    """

    def __init__(
        self,
        ledger: LeaseLedger,
        stop: StopRequest,
        caller: Caller,
        refresh: Callable[[PersistedTokens], PersistedTokens] | None = None,
        revoke: Callable[[PersistedTokens], object] | None = None,
        *,
        blocks_caller: bool = True,
    ) -> None:
        self._ledger = ledger
        self._stop = stop
        self._caller = caller
        self._refresh = refresh
        self._revoke = revoke
        self._blocks_caller = blocks_caller

    def run(self, procedure: Procedure[T]) -> T:
        """Perform a procedure and return its outcome; raises what it raises, and ``Stopped`` when it was stopped."""
        outcome: Any = None
        failure: BaseException | None = None
        while True:
            try:
                effect = procedure.send(outcome) if failure is None else procedure.throw(failure)
            except StopIteration as ended:
                result: T = ended.value
                return result
            outcome = failure = None
            try:
                outcome = self._perform(effect)
            except BaseException as error:  # the procedure decides what each failure means
                failure = error

    def _perform(self, effect: Effect) -> Any:
        if not (isinstance(effect, Guarded) and effect.holds_new_tokens):
            self._stop.irreplaceable = False
            self._stop.worth_waiting_s = 0.0
        match effect:
            case Step(call):
                return call()
            case Pause(seconds, since):
                self._stop.heed()
                return time.sleep(seconds) if since is None else self._ledger.recorder.wait_for_change(since, seconds)
            case Exchange(tokens):
                self._stop.heed()
                assert self._refresh is not None
                self._stop.worth_waiting_s = EXIT_WAITS_FOR_ANSWER_S
                response = self._refresh(tokens)
                self._stop.irreplaceable = True
                self._stop.worth_waiting_s = EXIT_WAITS_FOR_SAVE_S
                return response
            case Guarded(key, part, holds_new_tokens):
                return self._guarded(key, part, StopRequest() if holds_new_tokens else self._stop)
            case Revoke(tokens):
                # A server that cannot be told changes nothing here.
                with contextlib.suppress(Exception):
                    return None if self._revoke is None else self._revoke(tokens)
                return None
            case _:
                assert_never(effect)

    def _guarded(self, key: LeaseKey, part: Callable[[], Procedure[T]], stop: StopRequest) -> T:
        stop.heed()
        guard = LoginGuard(key, self._ledger, DEFAULT_TIMEOUT_S)
        guard.take(self._caller, stop, blocks_thread=self._blocks_caller)
        with contextlib.closing(guard):
            # Once begun, it is not stopped.
            unstoppable = Driver(self._ledger, StopRequest(), self._caller, blocks_caller=self._blocks_caller)
            return unstoppable.run(part())
