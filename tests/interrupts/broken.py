"""The library with one of its safeguards taken out at a time: what the harness has to notice."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import anyio

from ledger import aio, driver, guard, threads
from ledger.lease_ledger import LeaseLedger
from ledger.loops import Loop
from ledger.recorders import sqlite
from ledger.recorders.sqlite_connections import SQLiteConnections
from ledger.threads import Job, StopRequest

T = TypeVar("T")


def without_workers() -> None:
    """What must not be torn runs in the main thread, where signal handlers run."""
    for module in (threads, driver, guard):
        module.in_main_thread = lambda: False  # type: ignore[attr-defined]  # each has imported the name


def without_waiting() -> None:
    """Whoever is interrupted goes away at once, whatever is under way."""

    def impatient(job: Job[T], *, patience_s: float | None = None) -> T:
        job.start()
        while not job.done:
            job.wait()
        return job.result()

    for module in (threads, driver, guard):
        module.finished = impatient  # type: ignore[attr-defined]  # each has imported the name


def without_closing_what_was_begun() -> None:
    """An interrupted begin leaves its attempt open."""
    LeaseLedger._close_interrupted = lambda self, key, attempt: None  # type: ignore[method-assign]


def without_giving_back() -> None:
    """A guard that its holder's stack let go of stays taken."""
    del guard.LoginGuard.__del__


def with_connections_that_go_on() -> None:
    """A connection goes back to the others in whatever it was in the middle of."""
    without_workers()

    def give_back(self: SQLiteConnections, connection: Any) -> None:
        self._writers.put(connection)

    def in_transaction(writer: Any, work: Callable[[], T]) -> T:
        writer.execute("BEGIN IMMEDIATE")
        result = work()
        writer.execute("COMMIT")
        return result

    SQLiteConnections.give_back_writer = give_back  # type: ignore[method-assign]
    sqlite._in_transaction = in_transaction


def with_tasks_that_go_away() -> None:
    """A cancelled task does not wait for what it has under way."""

    async def lead(self: Any) -> None:
        self.job.start()
        await self._landed.wait()

    aio._Flight._lead = lead  # type: ignore[method-assign]


def with_exchanges_that_are_cancelled() -> None:
    """A cancellation reaches the exchange."""
    run = Loop.run

    def impatient(self: Loop, function: Any, stop: StopRequest, patience_s: float) -> Any:
        async def slowly() -> Any:
            answer = await function()
            await anyio.sleep(0.3)
            return answer

        return run(self, slowly, stop, 0.0)

    Loop.run = impatient  # type: ignore[method-assign]


BREAKS: Final[dict[str, Callable[[], None]]] = {
    function.__name__: function
    for function in (
        without_workers,
        without_waiting,
        without_closing_what_was_begun,
        without_giving_back,
        with_connections_that_go_on,
        with_tasks_that_go_away,
        with_exchanges_that_are_cancelled,
    )
}
