"""Measure everything in one run and print it as one table."""

import datetime
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from bench_parts.machine import Machine, this_machine
from bench_parts.measuring import Ratio
from bench_parts.replaying import replay_ratio
from bench_parts.sizes import bytes_per_event
from bench_parts.snapshots import snapshot_ratios
from bench_parts.transitions import transition_ratios

PROJECT = Path(__file__).resolve().parents[2]


class Extent(msgspec.Struct, frozen=True):
    """How much is measured.

    Attributes:
        rounds: Rounds of each comparison; the table shows medians over them.
        streams: Streams of ten events that a round records, by setting of ``synchronous``.
        replayed: Streams of ten events that are replayed.
        lengths: Lengths of the leases whose snapshots are taken.
        repeats: Repeated snapshots a round.
    """

    rounds: int
    streams: dict[str, int]
    replayed: int
    lengths: list[int]
    repeats: int


FULL = Extent(9, {"full": 150, "normal": 400}, 10_000, [10, 1_000, 100_000], 20_000)
QUICK = Extent(2, {"full": 2, "normal": 2}, 5, [10, 40, 70], 10)


class Report(msgspec.Struct, frozen=True):
    """One run.

    Attributes:
        machine: What it ran on.
        rounds: How many rounds the medians are over.
        ratios: Every comparison.
        bytes_per_event: File bytes an event takes, by kind of file.
    """

    machine: Machine
    rounds: int
    ratios: list[Ratio]
    bytes_per_event: dict[str, float]


@click.command(help="What a ledger costs, against the plainest thing that does the same job.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the result to a file as well.")
@click.option("--quick", is_flag=True, help="Tiny numbers: shows that it works, says nothing about speed.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=PROJECT / "build",
    show_default="build in the project's folder",
    help="Where the files are made; choose the disk to measure.",
)
@click.option(
    "--date", default=lambda: datetime.datetime.now(datetime.UTC).date().isoformat(), help="Today by default."
)
def main(json_file: Path | None, quick: bool, folder: Path, date: str) -> None:
    """Exit with 0 whatever the figures are."""
    folder.mkdir(parents=True, exist_ok=True)
    extent = QUICK if quick else FULL
    with tempfile.TemporaryDirectory(prefix="bench-", dir=folder) as made:
        place = Path(made)
        ratios = list(_announced(place, extent))
        report = Report(this_machine(place, date), extent.rounds, ratios, _sizes(place))
    if json_file:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    _print(report)


def _announced(folder: Path, extent: Extent) -> Iterator[Ratio]:
    for part, ratios in (
        ("transitions", transition_ratios(folder, extent.streams, extent.rounds)),
        ("replay", replay_ratio(folder, extent.replayed, extent.rounds)),
        ("snapshots", snapshot_ratios(folder, extent.lengths, extent.rounds, extent.repeats)),
    ):
        print(f"measuring {part} ...", file=sys.stderr)
        yield from ratios


def _sizes(folder: Path) -> dict[str, float]:
    return {
        "ledger, leases of 10 events": bytes_per_event(folder / "transition-normal-ledger-0.db"),
        "raw table of the same rows": bytes_per_event(folder / "transition-normal-raw-0.db"),
        "stock Application, streams of 10": bytes_per_event(folder / "transition-normal-stock-0.db"),
        "ledger, mostly one long lease": bytes_per_event(folder / "snapshots.db"),
    }


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def _verdict(ratio: Ratio) -> str:
    if ratio.target is None:
        return ""
    bound = f"{'at most' if ratio.at_most else 'at least'} {ratio.target:g}"
    return bound if ratio.reached else f"{bound}: MISSED"


def _print(report: Report) -> None:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)
    table = Table(box=box.SIMPLE, caption=f"medians of {report.rounds} rounds, the contenders taking turns")
    for column in ("measured", "ledger", "against", "", "unit", "ratio", "target"):
        right = column in ("ledger", "", "ratio")
        table.add_column(column, justify="right" if right else "left", no_wrap=column not in ("measured", "against"))
    for ratio in report.ratios:
        cells = (_number(ratio.ours), ratio.against, _number(ratio.theirs), ratio.unit, f"{ratio.ratio:.2f}")
        table.add_row(ratio.what, *cells, _verdict(ratio), style="red" if ratio.reached is False else None)
    console.print(report.machine.described())
    console.print(table)
    for what, size in report.bytes_per_event.items():
        console.print(f"  {size:6.0f} bytes of file per event: {what}")


if __name__ == "__main__":
    main()
