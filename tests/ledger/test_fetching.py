"""Rows of a SQLite file are fetched twice only where a text is none."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ledger.recorders.sqlite_fetching import fetch


class Counting(sqlite3.Connection):
    asked = 0

    def execute(self, *query: Any) -> sqlite3.Cursor:
        self.asked += 1
        return super().execute(*query)


def test_a_text_that_is_none_comes_as_its_bytes() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        assert fetch(connection, "SELECT 'a', CAST(x'ff' AS TEXT)") == [("a", b"\xff")]
        assert connection.text_factory is str


def test_a_file_that_others_have_is_waited_for_once(tmp_path: Path) -> None:
    with (
        closing(sqlite3.connect(tmp_path / "any.db")) as other,
        closing(sqlite3.connect(tmp_path / "any.db", timeout=0, factory=Counting)) as connection,
    ):
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            fetch(connection, "SELECT * FROM sqlite_schema")
        assert connection.asked == 1
