"""Reading a log that may be damaged, as far as it can be read: what cannot is told, and reading goes on behind it."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from ledger.errors import CorruptHistory, LedgerStorageError
from ledger.recorders.base import LeaseRecorder, LogRow

__all__ = ["Gap", "readable_rows", "rows_and_gaps"]

PAGE: Final = 2_000


class Gap(NamedTuple):
    """Positions whose events cannot be read.

    Attributes:
        first: The first of them.
        last: The last of them, perhaps beyond the end of the log where the end itself cannot be read.
        error: What reading raises there.
    """

    first: int
    last: int
    error: CorruptHistory | LedgerStorageError


def rows_and_gaps(recorder: LeaseRecorder) -> Iterator[LogRow | Gap]:
    """Every stored row in order of position, with the gaps between them where reading fails."""
    after, limit = 0, PAGE
    while True:
        try:
            page = recorder.log(after, limit)
        except (CorruptHistory, LedgerStorageError) as error:
            if limit > 1:
                limit //= 2
                continue
            gap = _gap(recorder, after, error)
            yield gap
            if gap.last >= _last_position(recorder):
                return
            after = gap.last
            continue
        for row in page:
            yield LogRow._make(row)
        if len(page) < limit:
            return
        after, limit = page[-1][0], min(limit * 2, PAGE)


def readable_rows(recorder: LeaseRecorder) -> Iterator[LogRow]:
    """Every stored row that can be read, in order of position."""
    return (found for found in rows_and_gaps(recorder) if not isinstance(found, Gap))


def _gap(recorder: LeaseRecorder, after: int, error: CorruptHistory | LedgerStorageError) -> Gap:
    if isinstance(error, CorruptHistory) and error.position is not None and error.position > after:
        return Gap(error.position, error.position, error)
    end = _last_position(recorder)
    unreadable, step = after, 1
    while not _can_read(recorder, unreadable + step):
        if unreadable + step >= end:
            return Gap(after + 1, max(end, after + 1), error)
        unreadable += step
        step *= 2
    readable = unreadable + step
    while readable - unreadable > 1:
        middle = (readable + unreadable) // 2
        if _can_read(recorder, middle):
            readable = middle
        else:
            unreadable = middle
    return Gap(after + 1, readable, error)


def _can_read(recorder: LeaseRecorder, after: int) -> bool:
    try:
        recorder.log(after, 1)
    except CorruptHistory as error:
        return error.position is not None and error.position > after
    except LedgerStorageError:
        return False
    return True


def _last_position(recorder: LeaseRecorder) -> int:
    try:
        return recorder.last_position()
    except LedgerStorageError:
        return 0
