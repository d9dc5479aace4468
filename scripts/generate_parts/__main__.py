"""Make a ledger file and say how big it became."""

from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from generate_parts.writing import Generator


@click.command(help="Make a ledger with a long, eventful past in a new SQLite FILE.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--events", default=1_000_000, show_default=True, type=click.IntRange(min=1))
@click.option("--leases", default=10_000, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=1, show_default=True, help="The same seed makes the same events.")
def main(file: Path, events: int, leases: int, seed: int) -> None:
    """Refuse a file that exists."""
    try:
        generator = Generator(file, leases, seed)
    except FileExistsError as error:
        raise click.ClickException(str(error)) from None
    with generator, Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("making events", total=events)
        generator.write(events, lambda size: bar.advance(task, size))
    click.echo(f"{file}: {events:,} events, {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
