"""Rows as they come out of storage, held against what any event has: storage that was damaged may hand out anything.

SQLite keeps any type in any column, an index may lead past a row or to another one, and a page may be out of order.
Whatever reads a log gets events or one clear error.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NoReturn

from ledger.errors import CorruptHistory
from ledger.recorders.base import LogRow, StoredFold, StreamRow

__all__ = ["is_whole_fold", "log_rows", "stream_rows"]

_NOT_WHOLE: Final = "its columns hold what no event has"


def stream_rows(stream: str, after: int, found: Iterable[Sequence[Any]]) -> list[StreamRow]:
    """One stream's rows, sorted by version, which must be the ones right after ``after``.

    Raises:
        CorruptHistory: A version is missing or there twice, or a row's columns hold what no event has.
    """
    rows = [StreamRow._make(row) for row in found]
    version = max(after, 0)
    for row in rows:
        version += 1
        if row.version != version:
            raise CorruptHistory(
                stream, version, f"it is missing: version {row.version} follows version {version - 1}", row.position
            )
        if type(row.tag) is not str or type(row.body) is not bytes:
            raise CorruptHistory(stream, version, _NOT_WHOLE, row.position)
    return rows


def log_rows(after: int, found: Sequence[Sequence[Any]]) -> Sequence[LogRow]:
    """The log's rows after position ``after``, which must ascend.

    Raises:
        CorruptHistory: A row stands where it cannot, or its columns hold what no event has.
    """
    last = after
    for position, stream, version, tag, body in found:
        if type(stream) is not str or type(version) is not int or type(tag) is not str or type(body) is not bytes:
            _refuse(position, stream, version, _NOT_WHOLE)
        if position <= last:
            _refuse(position, stream, version, f"it stands at position {position}, after position {last}")
        last = position
    return found  # type: ignore[return-value]  # plain tuples of the same shape, which cost half


def _refuse(position: int, stream: object, version: object, detail: str) -> NoReturn:
    raise CorruptHistory(
        stream if isinstance(stream, str) else repr(stream),
        version if isinstance(version, int) else 0,
        f"at position {position}: {detail}",
        position,
    )


def is_whole_fold(fold: StoredFold) -> bool:
    """Whether a stored fold's columns hold what a fold has."""
    return (
        type(fold.version) is int
        and fold.version > 0
        and type(fold.fold) is int
        and type(fold.digest) is str
        and type(fold.state) is bytes
    )
