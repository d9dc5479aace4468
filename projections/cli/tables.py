"""Tables, page by page: in colour on a terminal, plain in a pipe. No width is too small, and no row is held for long.

A pipe gets every value whole on its row's line. On a terminal a table folds its values to fit, except lease keys, which
people copy; where not even that fits, each field gets a line of its own, which the terminal may wrap as it likes.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from projections.cli.terminal import fitting, is_terminal, terminal_width, write_shown
from projections.printable import printable

__all__ = ["Cell", "Row", "show_table"]

PAGE_ROWS: Final = 500

_UNFOLDED: Final = frozenset({"key"})
_LEAST_FOLDED: Final = 12
_FRAME: Final = 3


class Cell(NamedTuple):
    """One value of a table, and its style where there is colour."""

    text: str
    style: str = ""


Row = Sequence[Cell | str]
"""One line of a table, a value for each heading."""


def show_table(headings: Sequence[str], rows: Iterable[Row]) -> bool:
    """Show rows as they come; returns whether there were any."""
    shown_headings = [_safe(heading) for heading in headings]
    pages = _pages(rows)
    first = next(pages, None)
    if first is None:
        return False
    show = _OnTerminal(shown_headings) if is_terminal() else _Plain(shown_headings)
    show.page(first)
    for page in pages:
        show.page(page)
    return True


def _pages(rows: Iterable[Row]) -> Iterator[list[list[Cell]]]:
    remaining = iter(rows)
    while page := [[_cell(value) for value in row] for row in islice(remaining, PAGE_ROWS)]:
        yield page


def _cell(value: Cell | str) -> Cell:
    text, style = (value, "") if isinstance(value, str) else value
    return Cell(_safe(text), style)


def _safe(text: str) -> str:
    return fitting(printable(text), sys.stdout)


def _width(text: str) -> int:
    return len(text) if text.isascii() else cell_len(text)


def _widths(headings: Sequence[str], page: Iterable[Sequence[Cell]]) -> list[int]:
    columns = zip(*page, strict=True)
    return [
        max(_width(heading), *(_width(cell.text) for cell in column))
        for heading, column in zip(headings, columns, strict=True)
    ]


class _Plain:
    """Columns for a pipe; a page's columns are at least as wide as those of the pages before."""

    def __init__(self, headings: Sequence[str]) -> None:
        self._headings = headings
        self._widths: list[int] = []

    def page(self, page: Sequence[Sequence[Cell]]) -> None:
        widths = _widths(self._headings, page)
        if not self._widths:
            self._widths = widths
            self._line(self._headings)
        self._widths = [max(pair) for pair in zip(self._widths, widths, strict=True)]
        for row in page:
            self._line([cell.text for cell in row])

    def _line(self, texts: Sequence[str]) -> None:
        padded = (text + " " * (width - _width(text)) for text, width in zip(texts, self._widths, strict=True))
        write_shown("  ".join(padded).rstrip())


class _OnTerminal:
    """A table in colour for each page, or a block of fields for each row where no table fits."""

    def __init__(self, headings: Sequence[str]) -> None:
        self._headings = headings
        self._width = terminal_width()
        self._console = Console(file=sys.stdout, width=self._width, height=PAGE_ROWS, highlight=False)

    def page(self, page: Sequence[Sequence[Cell]]) -> None:
        widths = _widths(self._headings, page)
        least = [
            width if heading in _UNFOLDED else min(width, _LEAST_FOLDED)
            for heading, width in zip(self._headings, widths, strict=True)
        ]
        if sum(least) + _FRAME * len(least) + 1 <= self._width:
            self._table(page, least)
        else:
            self._fields(page)

    def _table(self, page: Sequence[Sequence[Cell]], least: Sequence[int]) -> None:
        table = Table(box=box.SIMPLE_HEAD, header_style="bold")
        for heading, width in zip(self._headings, least, strict=True):
            whole = heading in _UNFOLDED
            table.add_column(Text(heading), overflow="fold", no_wrap=whole, min_width=width)
        for row in page:
            table.add_row(*(Text(cell.text, cell.style) for cell in row))
        self._console.print(table)

    def _fields(self, page: Sequence[Sequence[Cell]]) -> None:
        label_width = max(map(_width, self._headings))
        for row in page:
            for heading, cell in zip(self._headings, row, strict=True):
                label = heading + " " * (label_width - _width(heading))
                self._console.print(Text.assemble((label, "bold"), "  ", cell), soft_wrap=True)
            self._console.print()
