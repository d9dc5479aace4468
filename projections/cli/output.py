"""Answers on standard output: JSON, a table in colour for people, or the same plain when piped."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, TypeVar

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from projections.answers import to_plain
from projections.cli.tables import Cell, Row, show_table
from projections.cli.terminal import terminal_width, write_json, write_line

__all__ = ["Cell", "Output", "styled"]

T = TypeVar("T")

_ANY_HEIGHT: Final = 24
"""Told only so that nobody asks the environment for it, which may say anything."""

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
        if self.as_json:
            write_json(to_plain(answer))
        else:
            write_line(words)

    def each(self, answers: Iterable[T], headings: Sequence[str], row: Callable[[T], Row], empty: str) -> None:
        """JSON lines, or a table, written as the answers come. With none, people are told so on standard error."""
        if not self.as_json:
            self.table(headings, map(row, answers), empty)
            return
        for answer in answers:
            write_json(to_plain(answer))

    def many(self, answers: Iterable[msgspec.Struct], headings: Sequence[str], rows: Iterable[Row], empty: str) -> None:
        """The same of answers and rows made already."""
        if not self.as_json:
            self.table(headings, rows, empty)
            return
        for answer in answers:
            write_json(to_plain(answer))

    def table(self, headings: Sequence[str], rows: Iterable[Row], empty: str) -> None:
        """A table for people. With nothing to show, they are told so on standard error."""
        if not show_table(headings, rows):
            write_line(empty, err=True)

    @contextlib.contextmanager
    def progress(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """A progress bar on standard error, when a person is there to see it and there is more than a moment's work."""
        console = Console(stderr=True, width=terminal_width(), height=_ANY_HEIGHT)
        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(
            *columns,
            console=console,
            transient=True,
            disable=not console.is_terminal,
            redirect_stdout=False,
            redirect_stderr=False,
        ) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
