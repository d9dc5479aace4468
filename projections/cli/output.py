"""Answers on standard output: JSON, a table in colour for people, or the same plain when piped."""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import click
import msgspec
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from projections.answers import to_json
from projections.cli.text import printable

__all__ = ["Cell", "Output", "styled"]

_STYLES: Final = {
    "valid": "green",
    "current": "green",
    "expiring": "yellow",
    "refreshing": "cyan",
    "unrecorded": "cyan",
    "unmarked": "dim",
    "none": "dim",
    "unknown": "dim",
    "expired": "red",
    "reauth_required": "red",
    "superseded": "yellow",
    "orphaned": "yellow",
    "missing": "red",
    "foreign": "red",
    "ahead": "red",
    "unreadable": "red",
    "unsaved_login": "red",
    "unavailable": "red",
}


class Cell(NamedTuple):
    """One value of a table, and its style where there is colour."""

    text: str
    style: str = ""


def styled(word: str | None) -> Cell:
    """A phase, status or class in its colour."""
    shown = word or "none"
    return Cell(shown, _STYLES.get(shown, ""))


class Output:
    """Where a command's answer goes.

    Args:
        as_json: Whether the answer is read by a program.
    """

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    def one(self, answer: msgspec.Struct, words: str) -> None:
        """One JSON object, or one line of words."""
        click.echo(to_json(answer).decode() if self.as_json else printable(words))

    def many(
        self,
        answers: Sequence[msgspec.Struct],
        headings: Sequence[str],
        rows: Iterable[Sequence[Cell | str]],
        empty: str,
    ) -> None:
        """JSON lines, or a table. With nothing to show, people are told so on standard error."""
        if self.as_json:
            for answer in answers:
                click.echo(to_json(answer).decode())
        else:
            self.table(headings, list(rows), empty)

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[Cell | str]], empty: str) -> None:
        """A table for people. With nothing to show, they are told so on standard error."""
        if not rows:
            click.echo(empty, err=True)
            return
        table = [[Cell(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
        shown = [[Cell(printable(cell.text), cell.style) for cell in row] for row in table]
        (_coloured if sys.stdout.isatty() else _plain)(headings, shown)

    @contextlib.contextmanager
    def progress(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """A progress bar on standard error, when a person is there to see it and there is more than a moment's work."""
        console = Console(stderr=True)
        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)


def _coloured(headings: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    table = Table(box=box.SIMPLE_HEAD, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell.text, cell.style) for cell in row))
    Console(highlight=False).print(table)


def _plain(headings: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    lines = [list(headings), *([cell.text for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    for line in lines:
        padded = (text.ljust(width) for text, width in zip(line, widths, strict=True))
        click.echo("  ".join(padded).rstrip())
