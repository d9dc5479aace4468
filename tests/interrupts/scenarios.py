"""What is struck: each use of the library as a thread, an asyncio task and a trio task make it."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Final

import anyio
import trio
from interrupts.opcodes import Strike
from interrupts.world import World

from ledger import LeaseKey, PersistedTokens, acquire_auth_login_lifecycle_guard, aio

HELD_S: Final = 0.004


@dataclass(frozen=True)
class Scenario:
    """One use of the library.

    Attributes:
        name: What it is called in a report.
        prepare: What happens before, undisturbed.
        act: What is struck, at the opcode of a number; returns how many opcodes there were, and which was struck.
        contended: Whether somebody else holds the guard at its beginning.
        settle: What the next user does before all must be well, where the scenario begins with a crash.
    """

    name: str
    prepare: Callable[[World, LeaseKey], object]
    act: Callable[[World, LeaseKey, int], Strike]
    contended: bool = False
    settle: Callable[[World, LeaseKey], object] | None = None

    def strike(self, world: World, at: int) -> tuple[Strike, list[str]]:
        """Run it, struck at an opcode; what was struck, and what is wrong afterwards."""
        key = world.new_key()
        self.prepare(world, key)
        with world.guard_held_for(key, HELD_S) if self.contended else nullcontext():
            strike = self.act(world, key, at)
        if self.settle is not None:
            self.settle(world, key)
        return strike, world.problems(key)


def interrupt() -> None:
    """A signal arrives; its handler raises KeyboardInterrupt, here."""
    signal.raise_signal(signal.SIGINT)


@contextmanager
def _struck(at: int) -> Iterator[Strike]:
    with suppress(KeyboardInterrupt), Strike(at, interrupt, is_signal=True) as strike:
        yield strike


def _in_thread(act: Callable[[World, LeaseKey], object]) -> Callable[[World, LeaseKey, int], Strike]:
    def perform(world: World, key: LeaseKey, at: int) -> Strike:
        with _struck(at) as strike:
            act(world, key)
        return strike

    return perform


Coroutine = Callable[[World, aio.Credentials, LeaseKey], Awaitable[object]]


def _cancelled_natively(act: Coroutine) -> Callable[[World, LeaseKey, int], Strike]:
    def perform(world: World, key: LeaseKey, at: int) -> Strike:
        async def main() -> Strike:
            credentials = aio.Credentials(world.ledger, world.store, refresh_deadline=30)
            task = asyncio.ensure_future(act(world, credentials, key))
            with Strike(at, task.cancel, is_signal=False) as strike:
                await asyncio.wait([task])
            if not task.cancelled():
                task.result()
            return strike

        return asyncio.run(main())

    return perform


def _interrupted_asyncio(act: Coroutine) -> Callable[[World, LeaseKey, int], Strike]:
    def perform(world: World, key: LeaseKey, at: int) -> Strike:
        strike = Strike(at, interrupt, is_signal=True)

        async def main() -> None:
            credentials = aio.Credentials(world.ledger, world.store, refresh_deadline=30)
            with strike:
                await act(world, credentials, key)

        with suppress(KeyboardInterrupt):
            asyncio.run(main())
        return strike

    return perform


def _cancelled_in_trio(act: Coroutine) -> Callable[[World, LeaseKey, int], Strike]:
    def perform(world: World, key: LeaseKey, at: int) -> Strike:
        async def main() -> Strike:
            credentials = aio.Credentials(world.ledger, world.store, refresh_deadline=30)
            with trio.CancelScope() as scope, Strike(at, scope.cancel, is_signal=False) as strike:
                await act(world, credentials, key)
            return strike

        return trio.run(main)

    return perform


def _interrupted_trio(act: Coroutine) -> Callable[[World, LeaseKey, int], Strike]:
    def perform(world: World, key: LeaseKey, at: int) -> Strike:
        strike = Strike(at, interrupt, is_signal=True)

        async def main() -> None:
            credentials = aio.Credentials(world.ledger, world.store, refresh_deadline=30)
            with strike:
                await act(world, credentials, key)

        with suppress(KeyboardInterrupt):
            trio.run(main)
        return strike

    return perform


def _nothing(world: World, key: LeaseKey) -> None:
    """The key is new."""


def _logged_in(world: World, key: LeaseKey) -> None:
    world.credentials.login(key, world.server.log_in(key))


def _near_its_end(world: World, key: LeaseKey) -> None:
    world.credentials.login(key, world.server.log_in(key, lives_s=1))


def _left_by_a_crash(world: World, key: LeaseKey) -> None:
    _near_its_end(world, key)
    stored = world.store.load(key)
    assert stored is not None
    attempt = world.ledger.begin_refresh(key)
    answer = world.server.refresh(key, stored)
    publication = world.ledger.plan_publication(key)
    from ledger.recovery import marked_for  # noqa: PLC0415  # an inner step, done here as a killed process leaves it

    world.store.save(key, marked_for(publication, attempt.id, answer))


def _thirty_one_events(world: World, key: LeaseKey) -> None:
    for _ in range(31):
        world.ledger.release_lease(key)


def _login(world: World, key: LeaseKey) -> None:
    world.credentials.login(key, world.server.log_in(key))


def _fresh(world: World, key: LeaseKey) -> None:
    world.credentials.fresh(key, world.refresh(key))


def _logout(world: World, key: LeaseKey) -> None:
    world.credentials.logout(key)


def _recover(world: World, key: LeaseKey) -> None:
    world.credentials.recover(key)


def _guard(world: World, key: LeaseKey) -> None:
    with acquire_auth_login_lifecycle_guard(key, ledger=world.ledger):
        pass


def _snapshot(world: World, key: LeaseKey) -> None:
    world.ledger.snapshot(key)


def _begin(world: World, key: LeaseKey, at: int) -> Strike:
    strike = Strike(at, interrupt, is_signal=True)
    attempt = None
    with suppress(KeyboardInterrupt), strike:
        attempt = world.ledger.begin_refresh(key)
    if attempt is not None or strike.had_ended:
        # It is the caller's now.
        world.ledger.refresh_failed(key, False, attempt=attempt)
    return strike


def _refreshing(world: World, key: LeaseKey) -> None:
    _logged_in(world, key)
    world.ledger.begin_refresh(key)


def _complete(world: World, key: LeaseKey) -> None:
    world.ledger.complete_refresh(key, 5, 0)


def _fail(world: World, key: LeaseKey) -> None:
    world.ledger.refresh_failed(key, False)


def _fail_if_open(world: World, key: LeaseKey) -> None:
    if world.ledger.state(key).attempt is not None:
        _fail(world, key)


def _release(world: World, key: LeaseKey) -> None:
    world.ledger.release_lease(key)
    world.acknowledge(key, world.ledger.state(key).version)


def _restore(world: World, key: LeaseKey) -> None:
    world.ledger.restore_auth_lifecycle_snapshot(key, world.ledger.snapshot(key))


async def _guard_task(world: World, credentials: aio.Credentials, key: LeaseKey) -> None:
    async with acquire_auth_login_lifecycle_guard(key, ledger=world.ledger):
        await anyio.sleep(0)


async def _login_task(world: World, credentials: aio.Credentials, key: LeaseKey) -> None:
    await credentials.login(key, world.server.log_in(key))


async def _fresh_task(world: World, credentials: aio.Credentials, key: LeaseKey) -> None:
    async def refresh(tokens: PersistedTokens) -> PersistedTokens:
        return world.server.refresh(key, tokens)

    await credentials.fresh(key, refresh)


async def _logout_task(world: World, credentials: aio.Credentials, key: LeaseKey) -> None:
    await credentials.logout(key)


async def _recover_task(world: World, credentials: aio.Credentials, key: LeaseKey) -> None:
    await credentials.recover(key)


THREADS: Final = (
    Scenario("thread: login", _nothing, _in_thread(_login)),
    Scenario("thread: login, contended", _logged_in, _in_thread(_login), contended=True),
    Scenario("thread: fresh, with a refresh", _near_its_end, _in_thread(_fresh)),
    Scenario("thread: fresh, contended", _near_its_end, _in_thread(_fresh), contended=True),
    Scenario("thread: fresh, of living tokens", _logged_in, _in_thread(_fresh)),
    Scenario("thread: logout", _logged_in, _in_thread(_logout)),
    Scenario("thread: recover", _left_by_a_crash, _in_thread(_recover), settle=_recover),
    Scenario("thread: guard", _nothing, _in_thread(_guard)),
    Scenario("thread: guard, contended", _nothing, _in_thread(_guard), contended=True),
    Scenario("thread: snapshot", _logged_in, _in_thread(_snapshot)),
    Scenario("thread: begin_refresh", _logged_in, _begin),
    Scenario("thread: complete_refresh", _refreshing, _in_thread(_complete), settle=_fail_if_open),
    Scenario("thread: refresh_failed", _refreshing, _in_thread(_fail), settle=_fail_if_open),
    Scenario("thread: release, with a stored fold", _thirty_one_events, _in_thread(_release)),
    Scenario("thread: restore", _logged_in, _in_thread(_restore)),
)

_TASKS: Final = (
    ("login", _nothing, _login_task, False),
    ("login, contended", _logged_in, _login_task, True),
    ("fresh, with a refresh", _near_its_end, _fresh_task, False),
    ("fresh, contended", _near_its_end, _fresh_task, True),
    ("logout", _logged_in, _logout_task, False),
    ("guard, contended", _nothing, _guard_task, True),
    ("recover", _left_by_a_crash, _recover_task, False),
)

_WAYS: Final = (
    ("asyncio cancelled", _cancelled_natively),
    ("asyncio interrupted", _interrupted_asyncio),
    ("trio cancelled", _cancelled_in_trio),
    ("trio interrupted", _interrupted_trio),
)

LOOPS: Final = tuple(
    Scenario(f"{way}: {name}", prepare, strike(act), contended, _recover if prepare is _left_by_a_crash else None)
    for way, strike in _WAYS
    for name, prepare, act, contended in _TASKS
)

SCENARIOS: Final = THREADS + LOOPS
