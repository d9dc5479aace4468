"""The same boundaries as coroutines, for asyncio and trio alike.

    from ledger.aio import Credentials

    credentials = Credentials(ledger, store)
    tokens = await credentials.fresh(key, refresh)      # ``async def refresh(tokens)``

The event loop never waits for a disk, a database or a keyring: what may block runs in a worker thread, one step at a
time. Tasks that ask for the same lease share one leader, so thousands of them can wait without a thread each.
"""

import inspect
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from typing import Any, TypeVar, assert_never

import anyio
from anyio import to_thread

from ledger.credentials import DEFAULT_LEEWAY_S, DEFAULT_REFRESH_DEADLINE_S, DEFAULT_WINDOW_S
from ledger.effects import Effect, Exchange, Guarded, Pause, Protocol, Revoke, Step, guarded
from ledger.events import Holder
from ledger.guard import acquire_auth_login_lifecycle_guard
from ledger.holder import is_provably_gone
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.login import login, logout
from ledger.look import FreshRequest, usable_now
from ledger.recorders.base import LOOK_EVERY_S
from ledger.recovery import recover
from ledger.refresh import fresh_tokens
from ledger.refresh_errors import ReauthRequired, RefreshError
from ledger.snapshot import AuthLeaseTransition
from ledger.status import PublishedAuthStatus, project_published_auth_status
from ledger.stores.base import TokenStore
from ledger.tokens import PersistedTokens

__all__ = ["Credentials", "RefreshFunction", "RevokeFunction"]

T = TypeVar("T")

RefreshFunction = Callable[[PersistedTokens], Awaitable[PersistedTokens]]
RevokeFunction = Callable[[PersistedTokens], Awaitable[object] | object]


class _Flight:
    """A refresh that one task leads and others of this event loop wait for."""

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.failure: RefreshError | ReauthRequired | None = None


class Credentials:
    """:class:`ledger.Credentials` for coroutines; arguments, promises and errors are the same.

    One object serves one event loop. ``revoke`` may be a plain or a coroutine function.
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
        if not refresh_deadline > 0:
            raise ValueError(f"refresh_deadline is a positive number of seconds, not {refresh_deadline!r}")
        self.ledger = ledger
        self.store = store
        self.refresh_deadline = refresh_deadline
        self._revoke = revoke
        self._monotonic = monotonic
        self._is_gone = is_gone
        self._flights: dict[LeaseKey, _Flight] = {}

    def __repr__(self) -> str:
        return f"<aio.Credentials of {self.ledger!r} in {self.store.backend_name}>"

    async def login(
        self, key: LeaseKey, tokens: PersistedTokens, *, cause: str | None = None, correlation_id: str | None = None
    ) -> AuthLeaseTransition:
        """See :meth:`ledger.Credentials.login`. Once begun it runs to its end, even when cancelled."""
        protocol: Protocol[AuthLeaseTransition] = guarded(
            key, lambda: login(self.ledger, self.store, key, tokens, cause, correlation_id)
        )
        return await _run(protocol, self.ledger)

    async def fresh(
        self,
        key: LeaseKey,
        refresh: RefreshFunction,
        *,
        window: float = DEFAULT_WINDOW_S,
        leeway: float = DEFAULT_LEEWAY_S,
        rejected: PersistedTokens | None = None,
    ) -> PersistedTokens:
        """See :meth:`ledger.Credentials.fresh`. Cancelling it in the exchange closes the attempt.

        Once the server has answered, the new tokens are saved and recorded even when cancelled.
        """
        request = FreshRequest(key, window, leeway, rejected, self.refresh_deadline)
        while key in self._flights:
            flight = self._flights[key]
            tokens = await to_thread.run_sync(usable_now, self.ledger, self.store, request)
            if tokens is not None:
                return tokens
            await flight.done.wait()
            if flight.failure is not None:
                raise _same(flight.failure)
        return await self._lead(request, refresh)

    async def _lead(self, request: FreshRequest, refresh: RefreshFunction) -> PersistedTokens:
        flight = self._flights[request.key] = _Flight()
        protocol = fresh_tokens(self.ledger, self.store, request, monotonic=self._monotonic, is_gone=self._is_gone)
        try:
            return await _run(protocol, self.ledger, refresh, self._revoke)
        except (RefreshError, ReauthRequired) as error:
            flight.failure = error
            raise
        finally:
            del self._flights[request.key]
            flight.done.set()

    async def logout(self, key: LeaseKey, *, revoke: RevokeFunction | None = None) -> None:
        """See :meth:`ledger.Credentials.logout`. Once begun it runs to its end, even when cancelled."""
        protocol: Protocol[PersistedTokens | None] = guarded(key, lambda: logout(self.ledger, self.store, key))
        tokens = await _run(protocol, self.ledger)
        if tokens is not None:
            await _tell(revoke or self._revoke, tokens)

    async def recover(self, key: LeaseKey) -> None:
        """See :meth:`ledger.Credentials.recover`. Once begun it runs to its end, even when cancelled."""
        protocol: Protocol[None] = guarded(key, lambda: recover(self.ledger, self.store, key, is_gone=self._is_gone))
        await _run(protocol, self.ledger)

    async def status(self, key: LeaseKey) -> PublishedAuthStatus:
        """See :meth:`ledger.Credentials.status`."""
        now = datetime.fromtimestamp(self.ledger.clock() / 1000, UTC)
        stored = await to_thread.run_sync(self.store.load, key)
        snapshot = await to_thread.run_sync(self.ledger.snapshot, key)
        return project_published_auth_status(now, stored, snapshot)


def _same(failure: RefreshError | ReauthRequired) -> RefreshError | ReauthRequired:
    # Each task raises an error of its own: one object raised in many tasks would gather all their tracebacks.
    return type(failure)(*failure.args)


async def _tell(revoke: RevokeFunction | None, tokens: PersistedTokens) -> None:
    if revoke is None:
        return
    # A server that cannot be told changes nothing here.
    with suppress(Exception):
        told = revoke(tokens)
        if inspect.isawaitable(told):
            await told


async def _run(
    protocol: Protocol[T],
    ledger: LeaseLedger,
    refresh: RefreshFunction | None = None,
    revoke: RevokeFunction | None = None,
) -> T:
    """Perform a protocol in this task and return its outcome."""
    outcome: Any = None
    failure: BaseException | None = None
    async with AsyncExitStack() as shields:
        while True:
            try:
                effect = protocol.send(outcome) if failure is None else protocol.throw(failure)
            except StopIteration as stop:
                result: T = stop.value
                return result
            outcome = failure = None
            try:
                outcome = await _perform(effect, ledger, refresh, revoke)
            except BaseException as error:  # the protocol decides what each failure means
                failure = error
                if not isinstance(error, Exception):
                    # Cancelled: what the protocol still has to record must not be cancelled as well.
                    shields.enter_context(anyio.CancelScope(shield=True))


async def _perform(
    effect: Effect, ledger: LeaseLedger, refresh: RefreshFunction | None, revoke: RevokeFunction | None
) -> Any:
    match effect:
        case Step(call):
            return await to_thread.run_sync(call)
        case Pause(seconds, None):
            return await anyio.sleep(seconds)
        case Pause(seconds, _):
            # Waiting for a commit would hold a worker thread all the time; looking often does not.
            return await anyio.sleep(min(seconds, LOOK_EVERY_S))
        case Exchange(tokens):
            assert refresh is not None
            return await refresh(tokens)
        case Guarded(key, part, holds_new_tokens):
            with anyio.CancelScope(shield=holds_new_tokens) as scope:
                async with acquire_auth_login_lifecycle_guard(key, ledger=ledger):
                    scope.shield = True
                    return await _run(part(), ledger)
        case Revoke(tokens):
            return await _tell(revoke, tokens)
        case _:
            assert_never(effect)
