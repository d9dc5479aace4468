"""Questions to an audit log, and what filling its file takes, at one size of ledger or at two.

Ledgers of different size are compared on leases that saw about as much: questions about them have answers of the same
size, so what differs is the ledger around them. Questions take turns, and the ledgers with every lease.
"""

import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median
from typing import NamedTuple

from generate_parts import Generator

from bench_parts.filling import catch_up_ratio, rebuild_memory, rebuild_ratio, settled_bytes
from bench_parts.measuring import Figure, Ratio, time_ratio
from ledger import LeaseKey, LeaseLedger
from projections import AuditLog, LeaseThen
from projections.time_travel import At

__all__ = ["asking"]

ASKED_LEASES = 60
USUAL_EVENTS = 100
QUESTION_TARGET_MS = 2
GROWTH_TARGET = 1.5
LEASES_AT_TARGET_MS = 1_000
LAST = 50


class _Lease(NamedTuple):
    """A lease to be asked about, its last version, and a time in the middle of its life."""

    key: LeaseKey
    last: int
    middle_ms: int


class _Asked(NamedTuple):
    """One ledger with its audit log, and where the audit file stood when the ledger had half its events."""

    events: int
    url: str
    path: Path
    ledger: LeaseLedger
    audit: AuditLog
    halfway: Path
    leases: list[_Lease]
    busiest: _Lease


Question = Callable[[AuditLog, _Lease], object]

QUESTIONS: Mapping[str, Question] = {
    f"history, last {LAST}": lambda audit, lease: audit.history(lease.key, LAST),
    "as_of a time": lambda audit, lease: audit.as_of(lease.key, at=lease.middle_ms),
    "explain": lambda audit, lease: audit.explain(lease.key),
    f"diff over {LAST} events": lambda audit, lease: audit.diff(lease.key, max(lease.last - LAST, 0), lease.last),
    "diff of two times": lambda audit, lease: audit.diff(lease.key, At(lease.middle_ms), lease.last),
}


def asking(folder: Path, sizes: list[int], leases: int, rounds: int) -> Iterator[Ratio | Figure]:
    """Measure ledgers of these sizes, smallest first, of so many leases each."""
    with ExitStack() as open_ones:
        asked = [_made(folder / f"asked-{events}", events, leases, open_ones) for events in sizes]
        yield from _questions(asked, rounds)
        for one in asked:
            yield from _filling(one, rounds)


def _made(folder: Path, events: int, leases: int, open_ones: ExitStack) -> _Asked:
    folder.mkdir()
    path, halfway = folder / "ledger.db", folder / "halfway.db"
    url = f"sqlite:///{path}"
    with Generator(path, leases) as generator:
        generator.write(events // 2)
        with LeaseLedger.open(url) as ledger, AuditLog.open(ledger, halfway) as audit:
            audit.catch_up()
        settled_bytes(halfway)
        generator.write(events - events // 2)
    ledger = open_ones.enter_context(LeaseLedger.open(url))
    shutil.copy(halfway, folder / "ledger.audit.db")
    audit = open_ones.enter_context(AuditLog.open(ledger))
    audit.catch_up()
    assert audit.path is not None
    with closing(sqlite3.connect(audit.path)) as connection:
        chosen, busiest = _chosen(connection)
    return _Asked(events, url, path, ledger, audit, halfway, chosen, busiest)


def _chosen(connection: sqlite3.Connection) -> tuple[list[_Lease], _Lease]:
    leases = (
        "SELECT l.key, l.version, e.running_at_ms FROM leases AS l "
        "JOIN events AS e ON e.key = l.key AND e.version = (l.version + 1) / 2 ORDER BY"
    )
    (busiest,) = connection.execute(f"{leases} l.version DESC LIMIT 1").fetchall()
    # Those that saw about as much as each other, whatever the size of the ledger.
    found = connection.execute(f"{leases} ABS(l.version - ?), l.key LIMIT ?", (USUAL_EVENTS, ASKED_LEASES)).fetchall()
    return [_lease(*row) for row in found], _lease(*busiest)


def _lease(key: str, last: int, middle_ms: int) -> _Lease:
    return _Lease(LeaseKey.parse(key), last, middle_ms)


def _seconds(question: Question, audit: AuditLog, lease: _Lease) -> float:
    start = time.perf_counter()
    question(audit, lease)
    return time.perf_counter() - start


def _questions(asked: list[_Asked], rounds: int) -> Iterator[Ratio | Figure]:
    smallest, largest = asked[0], asked[-1]
    # Medians of each round, by question and size.
    taken: dict[str, dict[int, list[float]]] = {name: {one.events: [] for one in asked} for name in QUESTIONS}
    busiest: dict[str, list[float]] = {name: [] for name in QUESTIONS}
    for number in range(rounds + 1):
        for name, question in QUESTIONS.items():
            round_s = _round(question, asked)
            busy_s = _seconds(question, largest.audit, largest.busiest)
            # The first round only warms up.
            if number:
                busiest[name].append(busy_s)
                for events, took_s in round_s.items():
                    taken[name][events].append(took_s)
    for name, by_size in taken.items():
        for events, medians in by_size.items():
            yield Figure(f"{name}, of {events:,} events", 1000 * median(medians), "ms", QUESTION_TARGET_MS)
        if smallest is not largest:
            ours, theirs = by_size[largest.events], by_size[smallest.events]
            label = f"{name}, of {largest.events:,} events"
            yield time_ratio(label, ours, f"of {smallest.events:,} events", theirs, GROWTH_TARGET)
    for name, times in busiest.items():
        label = f"{name}, of the busiest lease ({largest.busiest.last:,} of {largest.events:,} events)"
        yield Figure(label, 1000 * median(times), "ms")
    yield from _whole_ledger(asked, rounds)


def _round(question: Question, asked: list[_Asked]) -> dict[int, float]:
    taken: dict[int, list[float]] = {one.events: [] for one in asked}
    for number in range(ASKED_LEASES):
        for one in asked:
            lease = one.leases[number % len(one.leases)]
            taken[one.events].append(_seconds(question, one.audit, lease))
    return {events: median(times) for events, times in taken.items()}


def _whole_ledger(asked: list[_Asked], rounds: int) -> Iterator[Figure]:
    for one in asked:
        times: list[float] = []
        found: list[LeaseThen] = []
        for _ in range(rounds):
            start = time.perf_counter()
            found = one.audit.leases(at=one.busiest.middle_ms)
            times.append(1000 * (time.perf_counter() - start))
        label = f"leases(at=), {len(found):,} leases, of {one.events:,} events"
        yield Figure(label, median(times), "ms", LEASES_AT_TARGET_MS)


def _filling(one: _Asked, rounds: int) -> Iterator[Ratio | Figure]:
    assert one.audit.path is not None
    finished = one.path.with_name("finished.db")
    settled_bytes(one.audit.path)
    shutil.copy(one.audit.path, finished)
    yield rebuild_ratio(one.ledger, finished, one.events, rounds)
    half = one.events // 2
    yield catch_up_ratio(one.ledger, one.halfway, finished, half, one.events - half, rounds)
    yield from rebuild_memory(one.url, finished, one.events)
    yield Figure(f"ledger file of {one.events:,} events", settled_bytes(one.path) / 1e6, "MB")
    yield Figure(f"audit file of {one.events:,} events", settled_bytes(finished) / 1e6, "MB")
    finished.unlink()
