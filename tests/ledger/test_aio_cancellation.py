"""The event loop's own cancellation, in each of its forms, at the moments where logins used to be lost."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from ledger import (
    FileTokenStore,
    LeaseKey,
    LeaseLedger,
    LeaseRefreshed,
    LeaseRefreshFailed,
    PersistedTokens,
    acquire_auth_login_lifecycle_guard,
)
from ledger.aio import Credentials

KEY = LeaseKey.parse("dev:openai:work")


@pytest.fixture
def credentials(tmp_path: Path) -> Iterator[Credentials]:
    with LeaseLedger.open(f"sqlite:///{tmp_path}/auth.db?synchronous=normal", actor="test") as ledger:
        yield Credentials(ledger, FileTokenStore(tmp_path / "tokens"), refresh_deadline=5)


def tokens(number: int, lives_s: int = 3600) -> PersistedTokens:
    return PersistedTokens(
        "external_tokens",
        primary_secret=f"access-{number}",
        refresh_token=f"refresh-{number}",
        expires_at=int(time.time()) + lives_s,
    )


def stored(credentials: Credentials) -> str | None:
    found = credentials.store.load(KEY)
    return None if found is None else found.refresh_token


async def _timed_out(call: Awaitable[object]) -> None:
    async with asyncio.timeout(0.15):
        await call


async def _waited_for(call: Awaitable[object]) -> None:
    await asyncio.wait_for(call, 0.15)


async def _cancelled(call: Awaitable[object]) -> None:
    task = asyncio.ensure_future(call)
    asyncio.get_running_loop().call_later(0.15, task.cancel)
    await task


async def _torn_by_a_sibling(call: Awaitable[object]) -> None:
    async def refused() -> None:
        await asyncio.sleep(0.15)
        raise TimeoutError

    async def awaiting() -> None:
        await call

    async with asyncio.TaskGroup() as group:
        group.create_task(awaiting())
        group.create_task(refused())


WAYS: list[Callable[[Awaitable[object]], Awaitable[None]]] = [_timed_out, _waited_for, _cancelled, _torn_by_a_sibling]


@pytest.mark.parametrize("way", WAYS)
def test_cancelled_while_the_finished_refresh_waits_for_the_guard_it_saves_and_records(
    credentials: Credentials, way: Callable[[Awaitable[object]], Awaitable[None]]
) -> None:
    async def main() -> None:
        await credentials.login(KEY, tokens(1, 1))
        held = threading.Event()

        def hold() -> None:
            with acquire_auth_login_lifecycle_guard(KEY, ledger=credentials.ledger):
                held.set()
                time.sleep(0.5)

        async def refresh(_: PersistedTokens) -> PersistedTokens:
            threading.Thread(target=hold).start()
            await asyncio.to_thread(held.wait)
            return tokens(2)

        with pytest.raises((TimeoutError, asyncio.CancelledError, ExceptionGroup)):
            await way(credentials.fresh(KEY, refresh))

    asyncio.run(main())
    assert stored(credentials) == "refresh-2"
    assert isinstance(list(credentials.ledger.read(KEY))[-1].event, LeaseRefreshed)


@pytest.mark.parametrize("way", WAYS)
def test_cancelled_in_the_exchange_the_answer_is_saved_before_the_cancellation_comes_out(
    credentials: Credentials, way: Callable[[Awaitable[object]], Awaitable[None]]
) -> None:
    async def refresh(_: PersistedTokens) -> PersistedTokens:
        await asyncio.sleep(0.5)
        return tokens(2)

    async def main() -> None:
        await credentials.login(KEY, tokens(1, 1))
        with pytest.raises((TimeoutError, asyncio.CancelledError, ExceptionGroup)):
            await way(credentials.fresh(KEY, refresh))

    asyncio.run(main())
    assert stored(credentials) == "refresh-2"


def test_a_login_that_is_cancelled_keeps_the_guard_until_its_tokens_are_saved(credentials: Credentials) -> None:
    class Slow(FileTokenStore):
        def check_savable(self, key: LeaseKey) -> None:
            time.sleep(0.3)
            super().check_savable(key)

        def load(self, key: LeaseKey) -> PersistedTokens | None:
            time.sleep(0.3)
            return super().load(key)

    store = credentials.store
    assert isinstance(store, FileTokenStore)
    slow = Credentials(credentials.ledger, Slow(store.root))

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await _timed_out(slow.login(KEY, tokens(1)))
        await credentials.logout(KEY)

    asyncio.run(main())
    assert stored(credentials) is None
    assert not credentials.ledger.snapshot(KEY).credential_present


def test_cancelled_before_anything_was_sent_it_closes_its_attempt_as_interrupted(credentials: Credentials) -> None:
    ledger = credentials.ledger
    begin = ledger.begin_refresh

    def slowly(*arguments: object, **options: object) -> object:
        attempt = begin(*arguments, **options)  # type: ignore[arg-type]  # passed on as they are
        time.sleep(0.4)
        return attempt

    async def never(_: PersistedTokens) -> PersistedTokens:
        raise AssertionError("spent a refresh token")

    async def main() -> None:
        await credentials.login(KEY, tokens(1, 1))
        ledger.begin_refresh = slowly  # type: ignore[assignment, method-assign]  # a slow disk
        with pytest.raises(TimeoutError):
            await _timed_out(credentials.fresh(KEY, never))

    asyncio.run(main())
    (*_, failed) = (recorded.event for recorded in ledger.read(KEY))
    assert isinstance(failed, LeaseRefreshFailed) and failed.ended == "interrupted"


def test_a_second_cancellation_comes_out_at_once_and_what_is_under_way_is_finished(credentials: Credentials) -> None:
    answered = asyncio.Event()

    async def refresh(_: PersistedTokens) -> PersistedTokens:
        await asyncio.sleep(0.5)
        answered.set()
        return tokens(2)

    async def main() -> None:
        await credentials.login(KEY, tokens(1, 1))
        task = asyncio.ensure_future(credentials.fresh(KEY, refresh))
        for _ in range(2):
            await asyncio.sleep(0.1)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not answered.is_set()
        # Others wait for the same flight, and share what it brings.
        assert (await credentials.fresh(KEY, refresh)).refresh_token == "refresh-2"

    asyncio.run(main())
    assert stored(credentials) == "refresh-2"


def test_a_second_event_loop_is_told_to_use_an_object_of_its_own(credentials: Credentials) -> None:
    asyncio.run(credentials.login(KEY, tokens(1)))
    for call in (credentials.logout(KEY), credentials.recover(KEY), credentials.login(KEY, tokens(2))):
        with pytest.raises(RuntimeError, match="another event loop"):
            asyncio.run(call)
    assert stored(credentials) == "refresh-1"


def test_a_loop_that_ends_under_an_exchange_leaves_no_attempt_open(credentials: Credentials) -> None:
    asyncio.run(Credentials(credentials.ledger, credentials.store).login(KEY, tokens(1, 1)))

    async def refresh(_: PersistedTokens) -> PersistedTokens:
        await asyncio.sleep(60)
        raise AssertionError

    async def main() -> None:
        task = asyncio.ensure_future(credentials.fresh(KEY, refresh))
        await asyncio.sleep(0.2)
        del task

    asyncio.run(main())
    patient_until_s = time.monotonic() + 10
    while credentials.ledger.state(KEY).attempt is not None and time.monotonic() < patient_until_s:
        time.sleep(0.02)
    (*_, failed) = (recorded.event for recorded in credentials.ledger.read(KEY))
    assert isinstance(failed, LeaseRefreshFailed) and failed.ended == "unanswered"


def test_an_exchange_outlives_the_main_coroutine_that_forgot_it(credentials: Credentials) -> None:
    async def refresh(_: PersistedTokens) -> PersistedTokens:
        await asyncio.sleep(0.4)
        return tokens(2)

    async def main() -> None:
        await credentials.login(KEY, tokens(1, 1))
        task = asyncio.ensure_future(credentials.fresh(KEY, refresh))
        await asyncio.sleep(0.1)
        del task

    asyncio.run(main())
    assert stored(credentials) == "refresh-2"
