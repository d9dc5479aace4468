"""The result of a run, as a struct for JSON and as tables for people."""

import sys

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from bench_parts.contention import Contention
from bench_parts.machine import Machine
from bench_parts.measuring import Figure, Ratio

__all__ = ["Report", "show"]

MISSED_STYLE = "red"


class Report(msgspec.Struct, frozen=True):
    """One run.

    Attributes:
        machine: What it ran on.
        rounds: The most rounds that a median is over.
        ratios: Every comparison.
        figures: Every figure that stands by itself.
        contentions: Every run of many processes on one ledger.
        bytes_per_event: File bytes an event takes, by kind of file.
        left_out: What could not be measured here, and why.
    """

    machine: Machine
    rounds: int
    ratios: list[Ratio]
    figures: list[Figure]
    contentions: list[Contention]
    bytes_per_event: dict[str, float]
    left_out: list[str]


def show(report: Report) -> None:
    """Print it to standard output."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)
    console.print(report.machine.described())
    if report.ratios:
        console.print(_ratios(report))
    if report.figures:
        console.print(_figures(report.figures))
    if report.contentions:
        console.print(_contentions(report.contentions))
    for what, size in report.bytes_per_event.items():
        console.print(f"  {size:6.0f} bytes of file per event: {what}")
    for reason in report.left_out:
        console.print(f"  left out: {reason}")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def _target(target: float | None, at_most: bool, reached: bool | None) -> str:
    if target is None:
        return ""
    bound = f"{'at most' if at_most else 'at least'} {target:g}"
    return bound if reached else f"{bound}: MISSED"


def _ratios(report: Report) -> Table:
    table = Table(box=box.SIMPLE, caption=f"medians of at most {report.rounds} rounds, the contenders taking turns")
    for column in ("measured", "ledger", "against", "", "unit", "ratio", "target"):
        right = column in ("ledger", "", "ratio")
        table.add_column(column, justify="right" if right else "left", no_wrap=column not in ("measured", "against"))
    for ratio in report.ratios:
        table.add_row(
            ratio.what,
            _number(ratio.ours),
            ratio.against,
            _number(ratio.theirs),
            ratio.unit,
            f"{ratio.ratio:.2f}",
            _target(ratio.target, ratio.at_most, ratio.reached),
            style=MISSED_STYLE if ratio.reached is False else None,
        )
    return table


def _figures(figures: list[Figure]) -> Table:
    table = Table(box=box.SIMPLE)
    for column in ("measured", "figure", "unit", "target"):
        table.add_column(column, justify="right" if column == "figure" else "left", no_wrap=True)
    for figure in figures:
        target = _target(figure.target, figure.at_most, figure.reached)
        style = MISSED_STYLE if figure.reached is False else None
        table.add_row(figure.what, _number(figure.value), figure.unit, target, style=style)
    return table


def _contentions(contentions: list[Contention]) -> Table:
    caption = "commits at half of the capacity, evenly spaced; each waits from when it was due; ms"
    table = Table(box=box.SIMPLE, caption=caption)
    for column in ("many processes on one ledger", "capacity/s", "due/s", "p50", "p99", "p99.9", "worst", "fairness"):
        table.add_column(column, justify="left" if " " in column else "right", no_wrap=True)
    for run in contentions:
        waits = (run.p50_ms, run.p99_ms, run.p999_ms, run.worst_ms)
        cells = (run.capacity_per_s, run.rate_per_s, *waits, run.least_over_most)
        table.add_row(f"{run.where}, {run.processes} processes, {run.leases}", *map(_number, cells))
    return table
