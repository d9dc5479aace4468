"""Many processes on one ledger: how long a commit waits at half of what the ledger can take, and who is starved."""

import multiprocessing
import time
from collections.abc import Sequence
from multiprocessing.synchronize import Barrier
from statistics import median

import msgspec

from ledger import LeaseKey, LeaseLedger

__all__ = ["Contention", "contention"]


class Contention(msgspec.Struct, frozen=True):
    """One run of many writers at a fixed arrival rate. Waits are counted from when each commit was due.

    Attributes:
        where: Which ledger.
        leases: Whether all write one lease or each its own.
        processes: How many.
        capacity_per_s: What they commit together when each goes on as fast as it can.
        rate_per_s: What was due in this run: half of that.
        least_over_most: Commits of the process served least over those of the one served most, in equal time.
    """

    where: str
    leases: str
    processes: int
    capacity_per_s: float
    rate_per_s: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    worst_ms: float
    least_over_most: float


def _key(shared: bool, number: int) -> LeaseKey:
    return LeaseKey("bench", "shared" if shared else f"own-{number}")


def _writer(
    url: str,
    shared: bool,
    number: int,
    seconds: float,
    rate_per_s: float | None,
    start: Barrier,
    results: "multiprocessing.SimpleQueue[list[float]]",
) -> None:
    key = _key(shared, number)
    waits: list[float] = []
    with LeaseLedger.open(url, actor=f"writer {number}") as ledger:
        ledger.snapshot(key)
        start.wait()
        began = time.perf_counter()
        # Arrivals of different processes do not fall on the same instant.
        due = began if rate_per_s is None else began + number / 16 / rate_per_s
        while due - began < seconds:
            time.sleep(max(due - time.perf_counter(), 0))
            ledger.acquire_lease(key, 0)
            done = time.perf_counter()
            waits.append(done - due)
            due = done if rate_per_s is None else due + 1 / rate_per_s
            if done - began > 2 * seconds:
                break
    results.put(waits)


def _run(url: str, shared: bool, processes: int, seconds: float, rate_per_s: float | None) -> list[list[float]]:
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.SimpleQueue[list[float]] = context.SimpleQueue()
    start = context.Barrier(processes)
    writers = [
        context.Process(target=_writer, args=(url, shared, number, seconds, rate_per_s, start, results))
        for number in range(processes)
    ]
    for writer in writers:
        writer.start()
    waits = [results.get() for _ in writers]
    for writer in writers:
        writer.join()
    return waits


def _quantile(ordered: Sequence[float], part: float) -> float:
    return 1000 * ordered[min(int(len(ordered) * part), len(ordered) - 1)]


def contention(where: str, url: str, *, shared: bool, processes: int, seconds: float) -> Contention:
    """Find the capacity, then run at half of it.

    Args:
        where: What to call the ledger.
        url: The ledger.
        shared: Whether all write one lease.
        processes: How many writers.
        seconds: How long each of the two runs takes.
    """
    served = [len(waits) for waits in _run(url, shared, processes, seconds, None)]
    capacity = sum(served) / seconds
    runs = _run(url, shared, processes, seconds, capacity / 2 / processes)
    ordered = sorted(wait for waits in runs for wait in waits)
    counts = [len(waits) for waits in runs]
    with LeaseLedger.open(url) as ledger:
        assert ledger.verify().ok
        assert len(ledger.keys()) == (1 if shared else processes)
    return Contention(
        where=where,
        leases="one lease" if shared else "own leases",
        processes=processes,
        capacity_per_s=capacity,
        rate_per_s=sum(counts) / seconds,
        p50_ms=1000 * median(ordered),
        p99_ms=_quantile(ordered, 0.99),
        p999_ms=_quantile(ordered, 0.999),
        worst_ms=1000 * ordered[-1],
        least_over_most=min(counts) / max(counts),
    )
