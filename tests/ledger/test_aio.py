"""The boundaries as coroutines, on asyncio and on trio."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import msgspec
import pytest

from ledger import (
    FileTokenStore,
    LeaseKey,
    LeaseLedger,
    LeaseRefreshed,
    LeaseRefreshFailed,
    LeaseRefreshStarted,
    PersistedTokens,
    ReauthRequired,
    RefreshError,
    acquire_auth_login_lifecycle_guard,
)
from ledger.aio import Credentials

KEY = LeaseKey.parse("dev:openai:work")

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def credentials(tmp_path: Path) -> Iterator[Credentials]:
    with LeaseLedger.open(f"sqlite:///{tmp_path}/auth.db?synchronous=normal", actor="test") as ledger:
        yield Credentials(ledger, FileTokenStore(tmp_path / "tokens"), refresh_deadline=5)


def tokens(generation: int, lives_s: int) -> PersistedTokens:
    return PersistedTokens(
        "claude_ai_oauth",
        primary_secret=f"access-{generation}",
        refresh_token=f"refresh-{generation}",
        expires_at=int(time.time()) + lives_s,
    )


class Server:
    """Gives the next generation for each refresh token, once."""

    def __init__(self, lives_s: int = 3600, takes_s: float = 0.05) -> None:
        self.spent: list[str | None] = []
        self.lives_s = lives_s
        self.takes_s = takes_s

    async def refresh(self, old: PersistedTokens) -> PersistedTokens:
        assert old.refresh_token is not None and old.refresh_token not in self.spent
        self.spent.append(old.refresh_token)
        await anyio.sleep(self.takes_s)
        return tokens(int(old.refresh_token.removeprefix("refresh-")) + 1, self.lives_s)


def tags(credentials: Credentials) -> list[str]:
    return [recorded.event.tag for recorded in credentials.ledger.read(KEY)]


async def test_two_thousand_tasks_share_one_refresh_without_a_thread_each(credentials: Credentials) -> None:
    await credentials.login(KEY, tokens(1, 1))
    server, got = Server(takes_s=0.3), []
    threads_before, most_threads = threading.active_count(), 0

    async def agent() -> None:
        nonlocal most_threads
        got.append(await credentials.fresh(KEY, server.refresh))
        most_threads = max(most_threads, threading.active_count())

    async with anyio.create_task_group() as group:
        for _ in range(2000):
            group.start_soon(agent)

    assert server.spent == ["refresh-1"]
    assert {found.primary_secret for found in got} == {"access-2"} and len(got) == 2000
    assert most_threads - threads_before <= 45


async def test_waiting_tasks_share_the_failure_and_do_not_try_one_by_one(credentials: Credentials) -> None:
    await credentials.login(KEY, tokens(1, 1))
    calls, failures = 0, []

    async def refresh(_: PersistedTokens) -> PersistedTokens:
        nonlocal calls
        calls += 1
        await anyio.sleep(0.2)
        raise RefreshError(False, status=503)

    async def agent() -> None:
        try:
            await credentials.fresh(KEY, refresh)
        except RefreshError as error:
            failures.append(error)

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(agent)

    assert calls == 1
    assert {error.status for error in failures} == {503} and len({id(error) for error in failures}) == 50


async def test_a_task_whose_tokens_have_leeway_does_not_wait_for_the_refresh(credentials: Credentials) -> None:
    await credentials.login(KEY, tokens(1, 30))
    answered = anyio.Event()

    async def slow(old: PersistedTokens) -> PersistedTokens:
        await answered.wait()
        return tokens(2, 3600)

    async with anyio.create_task_group() as group:
        group.start_soon(credentials.fresh, KEY, slow)
        while "lease.refresh_started" not in tags(credentials):
            await anyio.sleep(0.01)
        assert (await credentials.fresh(KEY, slow)).primary_secret == "access-1"
        answered.set()
    assert (await credentials.fresh(KEY, slow)).primary_secret == "access-2"


async def test_cancelling_in_the_exchange_closes_the_attempt(credentials: Credentials) -> None:
    await credentials.login(KEY, tokens(1, 1))
    with anyio.move_on_after(0.2):
        await credentials.fresh(KEY, Server(takes_s=60).refresh)
    started, failed = list(credentials.ledger.read(KEY))[-2:]
    assert isinstance(started.event, LeaseRefreshStarted) and isinstance(failed.event, LeaseRefreshFailed)
    assert failed.event.attempt == started.event.id and failed.event.error in ("CancelledError", "Cancelled")


async def test_cancelling_once_the_server_answered_still_saves_and_records(credentials: Credentials) -> None:
    await credentials.login(KEY, tokens(1, 1))
    with anyio.CancelScope() as scope:

        async def refresh(old: PersistedTokens) -> PersistedTokens:
            scope.cancel()
            return tokens(2, 3600)

        async with acquire_auth_login_lifecycle_guard(LeaseKey.parse("another:key"), ledger=credentials.ledger):
            await credentials.fresh(KEY, refresh)
    assert isinstance(list(credentials.ledger.read(KEY))[-1].event, LeaseRefreshed)
    stored = credentials.store.load(KEY)
    assert stored is not None and stored.primary_secret == "access-2"


async def test_when_the_leading_task_is_cancelled_another_takes_the_lead(credentials: Credentials) -> None:
    await credentials.login(KEY, tokens(1, 1))
    server, got = Server(), []

    async def never(old: PersistedTokens) -> PersistedTokens:
        await anyio.sleep_forever()
        raise AssertionError

    async def follow() -> None:
        got.append(await credentials.fresh(KEY, server.refresh))

    async with anyio.create_task_group() as group:
        with anyio.move_on_after(0.5):
            async with anyio.create_task_group() as leading:
                leading.start_soon(credentials.fresh, KEY, never)
                await anyio.sleep(0.2)
                group.start_soon(follow)
    assert [found.primary_secret for found in got] == ["access-2"]


async def test_logout_tells_the_server_with_a_coroutine_and_its_failure_changes_nothing(
    credentials: Credentials,
) -> None:
    await credentials.login(KEY, tokens(1, 3600))
    told = []

    async def revoke(old: PersistedTokens) -> None:
        told.append(old.refresh_token)
        raise OSError("the server is down")

    await credentials.logout(KEY, revoke=revoke)
    assert told == ["refresh-1"]
    assert (await credentials.status(KEY)).phase == "unknown"
    with pytest.raises(ReauthRequired):
        await credentials.fresh(KEY, Server().refresh)


async def test_tokens_rejected_early_are_refreshed_once_by_all_who_were_refused(credentials: Credentials) -> None:
    await credentials.login(KEY, tokens(1, 3600))
    server, got = Server(), []
    rejected = await credentials.fresh(KEY, server.refresh)

    async def agent() -> None:
        got.append(await credentials.fresh(KEY, server.refresh, rejected=rejected))

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(agent)
    assert server.spent == ["refresh-1"]
    assert {found.primary_secret for found in got} == {"access-2"}


async def test_the_status_passes_the_stored_tokens_through(credentials: Credentials) -> None:
    await credentials.login(KEY, tokens(1, 3600))
    status = await credentials.status(KEY)
    assert status.phase == "valid" and status.tokens is not None
    assert msgspec.structs.replace(status.tokens, metadata=None) == tokens_without_metadata(status.tokens)


def tokens_without_metadata(found: PersistedTokens) -> PersistedTokens:
    return msgspec.structs.replace(tokens(1, 3600), expires_at=found.expires_at)
