"""Rows that no ledger stores come out of a damaged file as one clear error, never as events."""

from typing import Any

import pytest

from ledger.errors import CorruptHistory
from ledger.recorders.base import StoredFold
from ledger.recorders.stored_rows import is_whole_fold, log_rows, stream_rows

NO_TEXT = [None, 7, 1.5, b"text"]
NO_NUMBER = [None, 1.0, "1", b"1"]


def _row(position: int = 4, **changed: Any) -> tuple[Any, ...]:
    return tuple({"position": position, "stream": "dev:a", "version": 3, "tag": "t", "body": b"{}", **changed}.values())


def test_whole_rows_that_ascend_pass_as_they_are() -> None:
    rows = [_row(4), _row(5), _row(9)]
    assert log_rows(3, rows) == rows


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("stream", value) for value in NO_TEXT),
        *(("version", value) for value in NO_NUMBER),
        *(("tag", value) for value in NO_TEXT),
        *(("body", value) for value in [None, 7, 1.5, "text"]),
    ],
)
def test_a_row_with_a_column_of_another_type_is_named_by_its_position(column: str, value: object) -> None:
    with pytest.raises(CorruptHistory, match="at position 5") as raised:
        log_rows(3, [_row(4), _row(5, **{column: value})])
    assert raised.value.position == 5


@pytest.mark.parametrize("positions", [(3,), (4, 4), (9, 4), (-1,)])
def test_rows_whose_positions_do_not_ascend_would_be_read_for_ever_and_are_refused(positions: tuple[int, ...]) -> None:
    with pytest.raises(CorruptHistory, match="after position"):
        log_rows(3, [_row(position) for position in positions])


@pytest.mark.parametrize("versions", [(1, 3), (2,), (1, 1), (1, 2, 2), (1, None), (1, "2")])
def test_versions_that_do_not_follow_each_other_are_refused(versions: tuple[Any, ...]) -> None:
    with pytest.raises(CorruptHistory, match="it is missing"):
        stream_rows("dev:a", 0, [(4, version, "t", b"{}") for version in versions])


@pytest.mark.parametrize(("tag", "body"), [(None, b"{}"), (b"t", b"{}"), ("t", None), ("t", "{}")])
def test_an_event_of_a_stream_with_a_column_of_another_type_is_named(tag: Any, body: Any) -> None:
    with pytest.raises(CorruptHistory) as raised:
        stream_rows("dev:a", 6, [(4, 7, "t", b"{}"), (5, 8, tag, body)])
    assert (raised.value.stream, raised.value.version, raised.value.position) == ("dev:a", 8, 5)


@pytest.mark.parametrize(
    "changed",
    [
        {"version": None},
        {"version": 0},
        {"version": "1"},
        {"fold": None},
        {"fold": "1"},
        {"digest": b""},
        {"state": ""},
    ],
)
def test_a_fold_with_a_column_of_another_type_is_none(changed: dict[str, Any]) -> None:
    whole = StoredFold(32, 1, "digest", b"{}")
    assert is_whole_fold(whole)
    assert not is_whole_fold(whole._replace(**changed))
