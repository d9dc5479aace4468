"""Measure everything in one run and print it as tables."""

import datetime
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import click
import msgspec

from bench_parts.contention import Contention
from bench_parts.extent import FULL, QUICK, Extent
from bench_parts.machine import this_machine
from bench_parts.measuring import Figure, Ratio
from bench_parts.parts import PARTS, LeftOut, Measured, Size
from bench_parts.report import Report, show

PROJECT = Path(__file__).resolve().parents[2]

T = TypeVar("T")


def _chosen(_: click.Context, __: click.Parameter, value: str | None) -> list[str]:
    names = list(PARTS) if value is None else [name.strip() for name in value.split(",")]
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise click.BadParameter(f"there is no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    return names


@click.command(help="What a ledger costs, against the plainest thing that does the same job.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the result to a file as well.")
@click.option("--only", callback=_chosen, metavar="PART,...", help=f"Only these parts of: {', '.join(PARTS)}.")
@click.option("--large", is_flag=True, help="Ask a ledger of 1,000,000 events too. Takes ten minutes more.")
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
def main(json_file: Path | None, only: list[str], large: bool, quick: bool, folder: Path, date: str) -> None:
    """Exit with 0 whatever the figures are."""
    folder.mkdir(parents=True, exist_ok=True)
    extent = QUICK if quick else FULL
    with tempfile.TemporaryDirectory(prefix="bench-", dir=folder) as made:
        place = Path(made)
        found = list(_measured(place, only, extent, large))
        report = Report(
            this_machine(place, date),
            extent.rounds,
            _of(Ratio, found),
            _of(Figure, found),
            _of(Contention, found),
            dict(_of(Size, found)),
            [str(reason) for reason in _of(LeftOut, found)],
        )
    if json_file:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    show(report)


def _measured(folder: Path, names: Iterable[str], extent: Extent, large: bool) -> Iterator[Measured]:
    for name in names:
        print(f"measuring {name} ...", file=sys.stderr)
        place = folder / name
        place.mkdir(exist_ok=True)
        yield from PARTS[name](place, extent, large)


def _of(kind: type[T], found: Iterable[Measured]) -> list[T]:
    return [one for one in found if isinstance(one, kind)]


if __name__ == "__main__":
    main()
