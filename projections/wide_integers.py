"""Integers up to 2^64-1 in SQLite columns, whose own integers end at 2^63-1.

A value that fits is stored as an integer. A greater one is stored as text of twenty digits, zero-padded. SQLite
sorts every integer before every text, so such a column still sorts and compares by value, provided that it is
declared without a type: a typed column would turn the text into a rounded float.
"""

from typing import Final, overload

__all__ = ["GREATEST", "from_column", "to_column"]

GREATEST: Final = 2**63 - 1
"""The greatest integer SQLite has."""


@overload
def to_column(value: int) -> int | str: ...
@overload
def to_column(value: int | None) -> int | str | None: ...
def to_column(value: int | None) -> int | str | None:
    """The value as it is stored: exact, whatever its size."""
    if value is None or -GREATEST <= value <= GREATEST:
        return value
    return f"{value:020}"


def from_column(value: int | str | None) -> int | None:
    """The value of a stored column."""
    return int(value) if isinstance(value, str) else value
