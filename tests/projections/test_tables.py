"""Tables on any terminal and in any pipe: no key is cut, no row is lost, none is held for long."""

import io
import sys
from collections.abc import Iterator
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.cli.tables import PAGE_ROWS, Cell, show_table

KEY = "dev:openai:work"
HEADINGS = ("key", "status", "actor", "cause")
KEYS = st.from_regex(r"[a-z]{1,12}:[a-z0-9]{1,70}", fullmatch=True)


class Stream(io.TextIOWrapper):
    """Standard output with an encoding that refuses what it lacks; on a terminal or not."""

    def __init__(self, encoding: str, *, terminal: bool) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, errors="strict", newline="")
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    def text(self) -> str:
        self.flush()
        assert isinstance(self.buffer, io.BytesIO)
        return self.buffer.getvalue().decode(self.encoding)


def shown(
    rows: list[tuple[Cell | str, ...]], columns: int, encoding: str = "utf-8", *, terminal: bool = True
) -> tuple[str, ...]:
    stream = Stream(encoding, terminal=terminal)
    with patch.object(sys, "stdout", stream), patch.dict("os.environ", {"COLUMNS": str(columns), "TERM": "dumb"}):
        assert show_table(HEADINGS, rows)
    return tuple(stream.text().splitlines())


@given(st.lists(KEYS, min_size=1, max_size=5, unique=True), st.integers(1, 200), st.text(max_size=60))
def test_every_key_is_whole_on_a_terminal_of_any_width(keys: list[str], columns: int, text: str) -> None:
    lines = shown([(key, Cell("valid", "green"), text, text) for key in keys], columns)
    assert [key for key in keys if not any(key in line for line in lines)] == []
    assert sum(line.count("valid") for line in lines) == len(keys)


@given(st.integers(1, 300), st.integers(1, 120))
def test_a_long_text_is_folded_and_not_cut(length: int, columns: int) -> None:
    lines = shown([(KEY, "valid", "ada", "q" * length)], columns)
    assert sum(line.count("q") for line in lines) == length


def test_a_terminal_too_narrow_for_a_table_gets_a_line_for_each_field() -> None:
    assert shown([(KEY, "valid", "ada", "")], 20) == (
        f"key     {KEY}",
        "status  valid",
        "actor   ada",
        "cause   ",
        "",
    )


@given(st.lists(st.tuples(KEYS, st.text(max_size=300)), min_size=1, max_size=5), st.integers(0, 30))
def test_a_pipe_gets_each_row_on_one_line_whatever_the_width(rows: list[tuple[str, str]], columns: int) -> None:
    lines = shown([(key, "valid", text, "the end") for key, text in rows], columns, terminal=False)
    assert len(lines) == len(rows) + 1
    for (key, _), line in zip(rows, lines[1:], strict=True):
        assert line.startswith(key) and line.endswith("the end")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "koi8-r"])
@pytest.mark.parametrize("columns", [20, 200])
@pytest.mark.parametrize("terminal", [True, False])
def test_no_encoding_ends_a_table_half_way(encoding: str, columns: int, terminal: bool) -> None:
    rows: list[tuple[Cell | str, ...]] = [("a:first", "valid", "агент 日本 ✓", "é"), ("z:last", "valid", "ada", "")]
    text = "\n".join(shown(rows, columns, encoding, terminal=terminal))
    assert "a:first" in text and "z:last" in text
    assert "\\u2713" in text and "\ufffd" not in text and "?" not in text


def test_headings_are_as_harmless_as_cells() -> None:
    stream = Stream("utf-8", terminal=True)
    with patch.object(sys, "stdout", stream), patch.dict("os.environ", {"COLUMNS": "80", "TERM": "dumb"}):
        show_table(["[/red]\x1b[2J", "[bold]"], [("1", "[/nothing]")])
    assert "[/red]\\x1b[2J" in stream.text() and "[bold]" in stream.text() and "[/nothing]" in stream.text()


@pytest.mark.parametrize("terminal", [True, False])
def test_rows_are_shown_before_the_last_is_there(terminal: bool) -> None:
    stream = Stream("utf-8", terminal=terminal)
    seen_at: list[bool] = []

    def rows() -> Iterator[tuple[str, ...]]:
        for number in range(3 * PAGE_ROWS):
            seen_at.append("dev:n0 " in stream.text())
            yield (f"dev:n{number}", "valid", "", "")

    with patch.object(sys, "stdout", stream), patch.dict("os.environ", {"COLUMNS": "80", "TERM": "dumb"}):
        show_table(HEADINGS, rows())
    assert seen_at.index(True) == PAGE_ROWS
    assert f"dev:n{3 * PAGE_ROWS - 1} " in stream.text()


def test_without_rows_nothing_is_shown() -> None:
    stream = Stream("utf-8", terminal=True)
    with patch.object(sys, "stdout", stream):
        assert not show_table(HEADINGS, [])
    assert stream.text() == ""
