"""Strike scenarios at their opcodes and say what broke: what ``scripts/interrupts`` does once all is installed."""

import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import click
import msgspec
from interrupts.broken import BREAKS
from interrupts.harness import Report, strike_everywhere
from interrupts.scenarios import SCENARIOS


def _report(name: str, points: int | None, broken: str | None, folder: str | None) -> Report:
    if broken is not None:
        BREAKS[broken]()
    (scenario,) = [scenario for scenario in SCENARIOS if scenario.name == name]
    # What a broken library leaves running may still write there.
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as work:
        return strike_everywhere(scenario, Path(work), points=points, most_broken=10 if broken is None else 1)


@click.command()
@click.option("--scenario", "names", multiple=True, help="Strike this one alone; may be repeated.")
@click.option("--points", type=int, help="How many opcodes of each scenario; all by default.")
@click.option("--broken", type=click.Choice(sorted(BREAKS)), help="Take this safeguard out first.")
@click.option("--workers", default=os.cpu_count() or 1, show_default=True, help="Processes to run scenarios in.")
@click.option("--folder", help="Where to work; a folder in memory spares the disk.")
@click.option("--json", "as_json", is_flag=True, help="Print the reports as JSON.")
def main(
    names: tuple[str, ...], points: int | None, broken: str | None, workers: int, folder: str | None, as_json: bool
) -> None:
    """Interrupt and cancel every use of the library at every opcode, and check what it promises."""
    began_s = time.monotonic()
    chosen = [scenario.name for scenario in SCENARIOS if not names or scenario.name in names]
    report = partial(_report, points=points, broken=broken, folder=folder)
    if len(chosen) == 1:
        reports = [report(chosen[0])]
    else:
        with ProcessPoolExecutor(workers) as pool:
            reports = list(pool.map(report, chosen))
    broken_points = [text for done in reports for text in done.broken]
    if as_json:
        click.echo(msgspec.json.encode(reports))
    else:
        for done in reports:
            click.echo(f"{done.points:6} points, {len(done.broken)} broken: {done.name}")
        for text in broken_points[:20]:
            click.echo(text)
        total = sum(done.points for done in reports)
        click.echo(f"{total} points, {len(broken_points)} broken; {time.monotonic() - began_s:.0f} s")
    sys.exit(1 if broken_points else 0)


if __name__ == "__main__":
    main()
