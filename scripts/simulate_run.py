"""Run simulated seeds, or replay one: what ``scripts/simulate`` does once everything is installed."""

import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import click
from rich.progress import Progress
from simulation.simulate import SeedFailed, simulate

CHUNK = 250


def _failures(seeds: Sequence[int]) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    for seed in seeds:
        try:
            simulate(seed)
        except SeedFailed as failed:
            found.append((seed, str(failed)))
    return found


def _run_many(seeds: range, workers: int) -> int:
    chunks = [seeds[start : start + CHUNK] for start in range(0, len(seeds), CHUNK)]
    began_s = time.monotonic()
    failures: list[tuple[int, str]] = []
    with ProcessPoolExecutor(workers) as pool, Progress(transient=True) as progress:
        for found in progress.track(pool.map(_failures, chunks), total=len(chunks), description="simulating"):
            failures.extend(found)
    took_s = time.monotonic() - began_s
    for _, text in failures[:10]:
        click.echo(text)
    click.echo(f"{len(seeds)} seeds, {len(failures)} broke a rule; {len(seeds) / took_s:.0f} seeds per second")
    return 1 if failures else 0


@click.command()
@click.option("--seeds", default=10_000, show_default=True, help="How many seeds to run.")
@click.option("--first", default=0, show_default=True, help="The first of them.")
@click.option("--workers", default=os.cpu_count() or 1, show_default=True, help="Processes to run them in.")
@click.option("--seed", type=int, help="Replay this one seed instead.")
@click.option("--trace", is_flag=True, help="Say what happens in it, line by line.")
def main(seeds: int, first: int, workers: int, seed: int | None, trace: bool) -> None:
    """Simulate the protocol of lease-ledger under faults."""
    if seed is None:
        sys.exit(_run_many(range(first, first + seeds), workers))
    try:
        outcome = simulate(seed, trace=trace)
    except SeedFailed as failed:
        click.echo(str(failed))
        sys.exit(1)
    click.echo(f"seed {seed} broke no rule: {outcome}")


if __name__ == "__main__":
    main()
