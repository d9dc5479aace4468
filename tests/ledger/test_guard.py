"""The login guard among threads, tasks of two event loops, and processes that are killed while they hold it."""

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio
from agents import CANARY, KEY, LONG_S, Crew, World, eventually, running_crew

from ledger import guard as guard_module
from ledger.credentials import Credentials
from ledger.errors import LedgerStorageError
from ledger.guard import GuardReentered, GuardTimeout, LoginGuard, acquire_auth_login_lifecycle_guard
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.stores import MemoryTokenStore
from ledger.tokens import PersistedTokens

OTHER = LeaseKey.parse("dev:openai:home")
SOON_S = 0.1
"""A timeout that is meant to pass."""

Runner = Callable[[Callable[[], Awaitable[Any]]], Any]


def run_asyncio(main: Callable[[], Awaitable[Any]]) -> Any:
    return anyio.run(main, backend="asyncio")


def run_trio(main: Callable[[], Awaitable[Any]]) -> Any:
    return anyio.run(main, backend="trio")


in_both_loops = pytest.mark.parametrize("run", [run_asyncio, run_trio], ids=["asyncio", "trio"])


def guard(key: LeaseKey = KEY, timeout_s: float = LONG_S, ledger: LeaseLedger | None = None) -> LoginGuard:
    return acquire_auth_login_lifecycle_guard(key, ledger=ledger, timeout_s=timeout_s)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.check()


@pytest.fixture
def ledger(world: World) -> Iterator[LeaseLedger]:
    with world.open_ledger() as ledger:
        yield ledger


@pytest.fixture(scope="module")
def crew() -> Iterator[Crew]:
    with running_crew() as crew:
        yield crew


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    yield
    assert guard_module._registry == {}, "an entry that nobody uses stayed"


class Inside:
    """Notices two holders at once."""

    def __init__(self) -> None:
        self.entries = 0
        self._holders = 0

    def enter(self) -> None:
        self._holders += 1
        assert self._holders == 1, "two hold the guard"
        self.entries += 1

    def leave(self) -> None:
        self._holders -= 1


def waiters(key: LeaseKey = KEY) -> int:
    mutex = guard_module._registry.get(key)
    return 0 if mutex is None else len(mutex.waiting)


def until_waiting(count: int) -> None:
    eventually(lambda: waiters() == count or None, f"{count} wait for the guard")


async def until_waiting_async(count: int) -> None:
    with anyio.fail_after(LONG_S):
        while waiters() != count:
            await anyio.sleep(0.001)


def holding_thread(name: str, ledger: LeaseLedger | None = None) -> tuple[threading.Thread, threading.Event]:
    """A thread that holds the guard until the event is set."""
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with guard(ledger=ledger):
            entered.set()
            leave.wait(LONG_S)

    thread = threading.Thread(target=hold, name=name)
    thread.start()
    assert entered.wait(LONG_S)
    return thread, leave


# Exclusion within a process


def test_of_many_threads_one_is_inside_at_a_time() -> None:
    inside = Inside()

    def work(_number: int) -> None:
        for _ in range(20):
            with guard():
                inside.enter()
                time.sleep(0)
                inside.leave()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert inside.entries == 160


@in_both_loops
def test_of_many_tasks_one_is_inside_at_a_time(run: Runner) -> None:
    inside = Inside()

    async def work() -> None:
        for _ in range(5):
            async with guard():
                inside.enter()
                await anyio.sleep(0)
                inside.leave()

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(work)

    run(main)
    assert inside.entries == 100


def test_threads_and_tasks_of_two_event_loops_exclude_one_another(ledger: LeaseLedger) -> None:
    inside = Inside()

    def in_a_thread() -> None:
        for _ in range(10):
            with guard(ledger=ledger):
                inside.enter()
                time.sleep(0)
                inside.leave()

    async def in_a_task() -> None:
        for _ in range(5):
            async with guard(ledger=ledger):
                inside.enter()
                await anyio.sleep(0)
                inside.leave()

    async def two_tasks() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(in_a_task)
            tasks.start_soon(in_a_task)

    with ThreadPoolExecutor(5) as pool:
        started = [pool.submit(in_a_thread) for _ in range(3)]
        started += [pool.submit(run_asyncio, two_tasks), pool.submit(run_trio, two_tasks)]
        for each in started:
            each.result(LONG_S)
    assert inside.entries == 50


def test_who_came_first_is_served_first_thread_or_task() -> None:
    served: list[str] = []

    def thread(name: str) -> None:
        with guard():
            served.append(name)

    async def task() -> None:
        async with guard():
            served.append("task")

    with ThreadPoolExecutor(3) as pool:
        with guard():
            pending = [pool.submit(thread, "first thread")]
            until_waiting(1)
            pending.append(pool.submit(run_asyncio, task))
            until_waiting(2)
            pending.append(pool.submit(thread, "second thread"))
            until_waiting(3)
        for each in pending:
            each.result(LONG_S)
    assert served == ["first thread", "task", "second thread"]


def test_who_holds_it_cannot_take_it_again_ahead_of_who_waits() -> None:
    served: list[str] = []

    def wait() -> None:
        with guard():
            served.append("waiter")

    with ThreadPoolExecutor(1) as pool:
        with guard():
            waiting = pool.submit(wait)
            until_waiting(1)
        with guard():
            served.append("former holder")
        waiting.result(LONG_S)
    assert served == ["waiter", "former holder"]


def test_two_keys_do_not_block_each_other(ledger: LeaseLedger) -> None:
    with guard(ledger=ledger), guard(OTHER, SOON_S, ledger):
        assert set(guard_module._registry) == {KEY, OTHER}


def test_without_a_ledger_it_leaves_no_file_and_with_one_it_does(tmp_path: Path, ledger: LeaseLedger) -> None:
    locks = tmp_path / "ledger" / "auth.db.locks"
    with guard():
        assert not locks.exists()
    with guard(ledger=ledger):
        assert [path.name for path in locks.iterdir()] == ["dev,openai,work.lock"]


def test_with_and_without_a_ledger_it_is_the_same_guard_within_the_process(ledger: LeaseLedger) -> None:
    thread, leave = holding_thread("without a ledger")
    with pytest.raises(GuardTimeout), guard(timeout_s=SOON_S, ledger=ledger):
        pass
    leave.set()
    thread.join()


def test_what_the_block_raises_comes_out_and_the_guard_is_free_again(ledger: LeaseLedger) -> None:
    with pytest.raises(KeyError, match="ours"), guard(ledger=ledger):
        raise KeyError("ours")
    with guard(timeout_s=SOON_S, ledger=ledger):
        pass


def test_a_ledger_whose_folder_takes_no_lock_files_says_so_and_leaves_the_guard_free(world: World) -> None:
    with world.open_ledger() as ledger:
        locks = world.ledger_path.with_name("auth.db.locks")
        locks.write_text("a file where the folder should be")
        with pytest.raises(LedgerStorageError, match="must allow lock files"), guard(ledger=ledger):
            pass
        locks.unlink()
        with guard(timeout_s=SOON_S, ledger=ledger):
            pass


# Taking it twice


def test_taking_it_again_in_the_same_thread_is_an_error_at_once() -> None:
    with guard():
        with pytest.raises(GuardReentered, match="dev:openai:work is already held here"), guard():
            pass
        assert waiters() == 0


@in_both_loops
def test_taking_it_again_in_the_same_task_is_an_error_at_once(run: Runner) -> None:
    async def main() -> None:
        async with guard():
            with pytest.raises(GuardReentered):
                async with guard():
                    pass

    run(main)


@in_both_loops
def test_another_task_of_the_same_thread_waits_its_turn(run: Runner) -> None:
    served: list[str] = []

    async def other() -> None:
        async with guard():
            served.append("other")

    async def main() -> None:
        async with anyio.create_task_group() as tasks, guard():
            tasks.start_soon(other)
            await until_waiting_async(1)
            served.append("first")

    run(main)
    assert served == ["first", "other"]


@in_both_loops
def test_blocking_the_thread_of_a_task_that_holds_it_is_an_error_at_once(run: Runner) -> None:
    async def blocking() -> None:
        with pytest.raises(GuardReentered), guard():
            pass

    async def main() -> None:
        async with anyio.create_task_group() as tasks, guard():
            await blocking()
            tasks.start_soon(blocking)
            await anyio.sleep(0.01)

    run(main)


@in_both_loops
def test_blocking_the_thread_of_a_task_that_waits_for_it_is_an_error_at_once(run: Runner) -> None:
    thread, leave = holding_thread("first")

    async def wait() -> None:
        async with guard():
            pass

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await until_waiting_async(1)
            # The waiting task is served before us, and cannot run while we block its thread.
            with pytest.raises(GuardReentered), guard():
                pass
            leave.set()

    run(main)
    thread.join()


def test_using_credentials_while_holding_the_guard_is_an_error_at_once(ledger: LeaseLedger) -> None:
    credentials = Credentials(ledger, MemoryTokenStore())
    tokens = PersistedTokens.api_key(CANARY)

    def attempt() -> None:
        with guard(ledger=ledger), pytest.raises(GuardReentered):
            credentials.login(KEY, tokens)

    assert threading.current_thread() is threading.main_thread()
    attempt()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(attempt).result(LONG_S)
    assert list(ledger.read(KEY)) == []


# Giving up


def test_a_wait_that_is_too_long_names_the_thread_that_holds_it() -> None:
    thread, leave = holding_thread("the slow one")
    told = r"waited 0.1 s .* thread 'the slow one' of this process"
    with pytest.raises(GuardTimeout, match=told) as caught, guard(timeout_s=SOON_S):
        pass
    assert (caught.value.key, caught.value.waited_s) == (KEY, SOON_S)
    assert isinstance(caught.value, TimeoutError)
    assert waiters() == 0
    leave.set()
    thread.join()


@in_both_loops
def test_a_task_that_waits_too_long_learns_that_the_holder_is_of_this_process(run: Runner) -> None:
    async def wait() -> None:
        with pytest.raises(GuardTimeout, match="of this process"):
            async with guard(timeout_s=SOON_S):
                pass

    async def main() -> None:
        async with guard(), anyio.create_task_group() as tasks:
            tasks.start_soon(wait)

    run(main)


@in_both_loops
def test_a_task_that_is_cancelled_leaves_the_queue(run: Runner) -> None:
    async def wait() -> None:
        async with guard():
            raise AssertionError("cancelled tasks hold nothing")

    async def main() -> None:
        async with guard():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait)
                await until_waiting_async(1)
                tasks.cancel_scope.cancel()
            assert waiters() == 0
        async with guard(timeout_s=SOON_S):
            pass

    run(main)


@in_both_loops
def test_a_task_cancelled_just_as_its_turn_comes_passes_it_on(run: Runner) -> None:
    served: list[str] = []

    async def cancelled(scope: anyio.CancelScope) -> None:
        with scope:
            async with guard():
                served.append("cancelled")

    async def patient() -> None:
        async with guard():
            served.append("patient")

    async def main() -> None:
        scope = anyio.CancelScope()
        async with anyio.create_task_group() as tasks:
            async with guard():
                tasks.start_soon(cancelled, scope)
                await until_waiting_async(1)
                tasks.start_soon(patient)
                await until_waiting_async(2)
            scope.cancel()

    run(main)
    assert served == ["patient"]


@in_both_loops
def test_a_cancelled_task_that_waits_for_another_process_leaves_nothing_held(
    run: Runner, world: World, ledger: LeaseLedger, crew: Crew
) -> None:
    holder = crew.start(world, action="hold", waits_at=("holding",)).wait_until("holding")

    async def main() -> None:
        with anyio.move_on_after(SOON_S):
            async with guard(ledger=ledger):
                raise AssertionError("held by another process")

    run(main)
    assert guard_module._registry == {}
    holder.let_go("holding").outcome()


def test_a_task_whose_event_loop_is_gone_is_passed_over() -> None:
    thread, leave = holding_thread("holder")
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _loop, _context: None)

    async def wait() -> None:
        async with guard():
            pass

    forsaken = loop.create_task(wait())
    loop.run_until_complete(asyncio.sleep(0))
    until_waiting(1)
    loop.close()
    with ThreadPoolExecutor(1) as pool:

        def take() -> None:
            with guard():
                pass

        taken = pool.submit(take)
        until_waiting(2)
        leave.set()
        taken.result(LONG_S)
    thread.join()
    # What is left of the task is thrown away only now, and must not disturb those who came after.
    with guard():
        del forsaken
        gc.collect()
        with ThreadPoolExecutor(1) as pool, pytest.raises(GuardTimeout):
            pool.submit(_take_soon).result(LONG_S)


def _take_soon() -> None:
    with guard(timeout_s=SOON_S):
        pass


# Among processes


def test_of_many_processes_one_is_inside_at_a_time(world: World, crew: Crew) -> None:
    agents = [crew.start(world, action="hold", waits_at=("holding",)) for _ in range(4)]
    served = []
    for _ in agents:
        (inside,) = eventually(
            lambda: [agent for agent in agents if agent not in served and agent.said("holding")] or None,
            "one of them holds the guard",
        )
        time.sleep(0.05)
        assert [agent for agent in agents if agent not in served and agent.said("holding")] == [inside]
        served.append(inside.let_go("holding"))
        inside.outcome()


def test_a_wait_for_another_process_ends_in_time_and_names_it(world: World, ledger: LeaseLedger, crew: Crew) -> None:
    holder = crew.start(world, "slow-agent", action="hold", waits_at=("holding",)).wait_until("holding")
    told = f"held by {holder.job.name}; try again"
    with pytest.raises(GuardTimeout, match=told), guard(timeout_s=SOON_S, ledger=ledger):
        pass
    with guard(timeout_s=SOON_S):
        pass  # without a ledger it is about this process alone
    holder.let_go("holding").outcome()
    with guard(ledger=ledger):
        pass


@in_both_loops
def test_a_task_waits_for_another_process_without_blocking_its_loop(
    run: Runner, world: World, ledger: LeaseLedger, crew: Crew
) -> None:
    holder = crew.start(world, action="hold", waits_at=("holding",)).wait_until("holding")

    served: list[str] = []

    async def let_go() -> None:
        holder.let_go("holding")

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(let_go)
            async with guard(ledger=ledger):
                served.append("task")

    run(main)
    assert served == ["task"]


def test_a_killed_holder_holds_it_no_longer(world: World, ledger: LeaseLedger, crew: Crew) -> None:
    holder = crew.start(world, action="hold", waits_at=("holding",)).wait_until("holding")
    holder.signal(signal.SIGKILL)  # and nobody reaps it yet
    with guard(ledger=ledger):
        pass


def test_lock_files_are_never_deleted_and_are_for_the_owner_alone(world: World, crew: Crew) -> None:
    lock = world.ledger_path.with_name("auth.db.locks") / "dev,openai,work.lock"
    crew.start(world, action="hold", waits_at=("holding",)).wait_until("holding").kill()
    before = lock.stat()
    with world.open_ledger() as ledger, guard(ledger=ledger):
        pass
    after = lock.stat()
    assert (before.st_ino, after.st_mode & 0o777, lock.parent.stat().st_mode & 0o777) == (after.st_ino, 0o600, 0o700)


FORK = """
import os, sys, threading
from pathlib import Path
from agents import KEY, World
from ledger.guard import GuardTimeout, acquire_auth_login_lifecycle_guard as guard

world = World(Path(sys.argv[1]))

def take_it_in_a_forked_child():
    if child := os.fork():
        os.waitpid(child, 0)
        return
    try:
        with guard(KEY, timeout_s=5):
            print("free within the child", flush=True)
        with world.open_ledger() as own, guard(KEY, ledger=own, timeout_s=0.1):
            print("free among processes", flush=True)
    except GuardTimeout as error:
        print(error.holder, flush=True)
    finally:
        os._exit(0)

held, done = threading.Event(), threading.Event()

def hold():
    with guard(KEY):
        held.set()
        done.wait()

with world.open_ledger(actor="the parent") as ledger:
    with guard(KEY, ledger=ledger):
        take_it_in_a_forked_child()
    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    take_it_in_a_forked_child()
    done.set()
    thread.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks of POSIX")
def test_a_forked_child_holds_nothing_and_waits_for_its_parent_like_any_process(world: World) -> None:
    path = os.pathsep.join(str(folder) for folder in (Path(__file__).parents[1], Path(__file__).parents[2]))
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK, str(world.folder)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        timeout=LONG_S,
    )
    assert done.stderr == ""
    within = "free within the child"
    assert done.stdout.splitlines() == [within, "the parent", within, "free among processes"]


def test_a_guard_object_that_was_never_entered_holds_nothing() -> None:
    guard()
    with contextlib.ExitStack() as stack:
        stack.enter_context(guard(timeout_s=SOON_S))


def test_trio_and_asyncio_are_told_apart_though_both_are_imported() -> None:
    assert trio.lowlevel is not None

    async def main() -> bool:
        async with guard():
            return asyncio.current_task() is not None

    assert asyncio.run(main())
