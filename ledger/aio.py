"""The same boundaries as coroutines, for asyncio and trio alike.

    from ledger.aio import Credentials

    credentials = Credentials(ledger, store)
    tokens = await credentials.fresh(key, refresh)      # ``async def refresh(tokens)``

The event loop never waits for a disk, a database or a keyring, and no cancellation, neither the event loop's own nor
a cancel scope's, tears what is under way: a boundary runs in a worker thread from its first step to its last, and the
refresh function in a task of its own. A cancelled caller waits until nothing is lost by it. Tasks that ask for the
same lease share one leader, so thousands of them can wait without a thread each.
"""

import inspect
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Generic, TypeVar

import anyio
from anyio import to_thread

from ledger.credentials import DEFAULT_LEEWAY_S, DEFAULT_REFRESH_DEADLINE_S, DEFAULT_WINDOW_S
from ledger.driver import Driver
from ledger.effects import Procedure, guarded
from ledger.events import Holder
from ledger.guard import DEFAULT_TIMEOUT_S, current_caller
from ledger.holder import is_provably_gone
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.login import login, logout_and_revoke
from ledger.look import FreshRequest, usable_now
from ledger.loops import Loop, current_loop, interrupted_only_where_it_waits
from ledger.recovery import recover
from ledger.refresh import fresh_tokens
from ledger.refresh_errors import ReauthRequired, RefreshError
from ledger.snapshot import AuthLeaseTransition
from ledger.status import PublishedAuthStatus, project_published_auth_status
from ledger.stores.base import TokenStore
from ledger.threads import Job, Stopped, StopRequest, left_behind
from ledger.tokens import PersistedTokens

__all__ = ["Credentials", "RefreshFunction", "RevokeFunction"]

T = TypeVar("T")

RefreshFunction = Callable[[PersistedTokens], Awaitable[PersistedTokens]]
RevokeFunction = Callable[[PersistedTokens], Awaitable[object] | object]


class _Flight(Generic[T]):
    """A boundary under way in a worker, and the tasks of this event loop that wait for it."""

    def __init__(
        self,
        procedure: Callable[[], Procedure[T]],
        ledger: LeaseLedger,
        loop: Loop,
        refresh: RefreshFunction | None = None,
        revoke: RevokeFunction | None = None,
        patience_s: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        stop = StopRequest()

        async def told(tokens: PersistedTokens) -> None:
            answer = None if revoke is None else revoke(tokens)
            if inspect.isawaitable(answer):
                await answer

        def exchange(tokens: PersistedTokens) -> PersistedTokens:
            assert refresh is not None
            spend = refresh
            return loop.run(lambda: spend(tokens), stop, patience_s)

        driver = Driver(
            ledger,
            stop,
            current_caller(),
            exchange,
            lambda tokens: loop.run(lambda: told(tokens), stop, patience_s),
            blocks_caller=False,
        )
        self._landed = anyio.Event()

        def land() -> None:
            # Nobody waits in a loop that is closed.
            with suppress(RuntimeError):
                loop.call_soon(self._landed.set)

        self.job: Job[T] = Job(lambda: driver.run(procedure()), stop, land)

    @property
    def failure(self) -> BaseException | None:
        """What it failed with, once it has."""
        return self.job.failure

    async def landed(self) -> None:
        """Wait for its end, as one of many."""
        await self._landed.wait()

    @interrupted_only_where_it_waits
    async def lead(self) -> T:
        """Start it, wait for its end whatever cancels, and return or raise its outcome."""
        await self._lead()
        return self.job.result()

    @interrupted_only_where_it_waits
    async def _lead(self) -> None:
        """Start it and wait for its end whatever cancels.

        A cancellation asks it to stop, and comes out when it has; a second one comes out at once, a third one while
        there are tokens that no store has yet.
        """
        interrupts: list[BaseException] = []
        while not self.job.done:
            try:
                self.job.start()
                with anyio.CancelScope(shield=bool(interrupts)):
                    await self._landed.wait()
            except GeneratorExit:
                # Thrown away in the midst of it; what is under way goes on by itself.
                self.job.stop.asked = self.job.stop.left_behind = True
                raise
            except BaseException as error:  # the event loop's own cancellation breaks through any shield
                interrupts.append(error)
                self.job.stop.asked = True
                if len(interrupts) > (2 if self.job.stop.irreplaceable else 1):
                    raise left_behind(self.job, error) from interrupts[0]
        if interrupts:
            raise interrupts[0] from (None if isinstance(self.failure, Stopped) else self.failure)


class Credentials:
    """:class:`ledger.Credentials` for coroutines; arguments, promises and errors are the same.

    One object serves one event loop; using it in another raises RuntimeError. ``revoke`` may be a plain or a coroutine
    function.
    """

    def __init__(
        self,
        ledger: LeaseLedger,
        store: TokenStore,
        *,
        refresh_deadline: float = DEFAULT_REFRESH_DEADLINE_S,
        revoke: RevokeFunction | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        is_gone: Callable[[Holder], bool] = is_provably_gone,
    ) -> None:
        if not 0 < refresh_deadline < math.inf:
            raise ValueError(f"refresh_deadline is a positive number of seconds, not {refresh_deadline!r}")
        self.ledger = ledger
        self.store = store
        self.refresh_deadline = refresh_deadline
        self._revoke = revoke
        self._monotonic = monotonic
        self._is_gone = is_gone
        self._loop: Loop | None = None
        self._flights: dict[LeaseKey, _Flight[PersistedTokens]] = {}

    def __repr__(self) -> str:
        return f"<aio.Credentials of {self.ledger!r} in {self.store.backend_name}>"

    def _own_loop(self) -> Loop:
        loop = current_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop != loop:
            raise RuntimeError(
                "this ledger.aio.Credentials belongs to another event loop; make one for each loop, they may share "
                "the ledger and the store"
            )
        return loop

    async def login(
        self, key: LeaseKey, tokens: PersistedTokens, *, cause: str | None = None, correlation_id: str | None = None
    ) -> AuthLeaseTransition:
        """See :meth:`ledger.Credentials.login`. Once begun it runs to its end, even when cancelled.

        Raises, beside its errors:
            RuntimeError: This object belongs to another event loop.
        """
        return await self._perform(
            lambda: guarded(key, lambda: login(self.ledger, self.store, key, tokens, cause, correlation_id))
        )

    async def fresh(
        self,
        key: LeaseKey,
        refresh: RefreshFunction,
        *,
        window: float = DEFAULT_WINDOW_S,
        leeway: float = DEFAULT_LEEWAY_S,
        rejected: PersistedTokens | None = None,
    ) -> PersistedTokens:
        """See :meth:`ledger.Credentials.fresh`.

        Cancelled before the exchange, it closes its attempt. Cancelled during the exchange, it waits for the answer, at
        most ``refresh_deadline`` more seconds, and saves and records what came; then the cancellation comes out.

        Raises, beside its errors:
            RuntimeError: This object belongs to another event loop.
        """
        loop = self._own_loop()
        request = FreshRequest(key, window, leeway, rejected, self.refresh_deadline)
        while (flight := self._flights.get(key)) is not None and not flight.job.done:
            tokens = await to_thread.run_sync(usable_now, self.ledger, self.store, request)
            if tokens is not None:
                return tokens
            await flight.landed()
            if isinstance(flight.failure, RefreshError | ReauthRequired):
                raise _same(flight.failure)
        flight = _Flight(
            lambda: fresh_tokens(self.ledger, self.store, request, monotonic=self._monotonic, is_gone=self._is_gone),
            self.ledger,
            loop,
            refresh,
            self._revoke,
            self.refresh_deadline,
        )
        # Started before others can wait for it: whatever interrupts this task, they wait for something that ends.
        flight.job.start()
        self._flights[key] = flight
        try:
            return await flight.lead()
        finally:
            if self._flights.get(key) is flight and flight.job.done:
                del self._flights[key]

    async def logout(self, key: LeaseKey, *, revoke: RevokeFunction | None = None) -> None:
        """See :meth:`ledger.Credentials.logout`. Once begun it runs to its end, even when cancelled.

        Raises, beside its errors:
            RuntimeError: This object belongs to another event loop.
        """
        await self._perform(lambda: logout_and_revoke(self.ledger, self.store, key), revoke or self._revoke)

    async def recover(self, key: LeaseKey) -> None:
        """See :meth:`ledger.Credentials.recover`. Once begun it runs to its end, even when cancelled.

        Raises, beside its errors:
            RuntimeError: This object belongs to another event loop.
        """
        await self._perform(lambda: guarded(key, lambda: recover(self.ledger, self.store, key, is_gone=self._is_gone)))

    async def status(self, key: LeaseKey) -> PublishedAuthStatus:
        """See :meth:`ledger.Credentials.status`."""
        now = datetime.fromtimestamp(self.ledger.clock() / 1000, UTC)
        stored = await to_thread.run_sync(self.store.load, key)
        snapshot = await to_thread.run_sync(self.ledger.snapshot, key)
        return project_published_auth_status(now, stored, snapshot)

    async def _perform(self, procedure: Callable[[], Procedure[T]], revoke: RevokeFunction | None = None) -> T:
        return await _Flight(procedure, self.ledger, self._own_loop(), revoke=revoke).lead()


def _same(failure: RefreshError | ReauthRequired) -> RefreshError | ReauthRequired:
    # Each task raises an error of its own: one object raised in many tasks would gather all their tracebacks.
    return type(failure)(*failure.args)
