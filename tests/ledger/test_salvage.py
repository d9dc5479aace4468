"""A log that can be read in parts: everything readable is read, and what is not is told once."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import CorruptHistory, LedgerStorageError
from ledger.recorders.base import LogRow, NewEvent
from ledger.recorders.memory import MemoryLeaseRecorder
from ledger.salvage import Gap, readable_rows, rows_and_gaps

EVENTS = 300


class Scratched(MemoryLeaseRecorder):
    """A log of which some positions cannot be read, nor any page that holds one of them."""

    def __init__(self, unreadable: range, *, names_them: bool = False) -> None:
        super().__init__("ledger")
        for version in range(1, EVENTS + 1):
            self.append(NewEvent("dev:openai", version, "tag", b"{}"))
        self.unreadable = unreadable
        self.names_them = names_them
        self.looks = 0

    def log(self, after: int, limit: int) -> Sequence[LogRow]:
        self.looks += 1
        page = super().log(after, limit)
        for row in page:
            if row.position in self.unreadable and self.names_them:
                raise CorruptHistory(row.stream, row.version, "scratched", row.position)
            if row.position in self.unreadable:
                raise LedgerStorageError("scratched")
        return page


@given(first=st.integers(1, EVENTS), count=st.integers(0, EVENTS))
def test_all_but_what_cannot_be_read_is_read_and_the_gap_told_in_one(first: int, count: int) -> None:
    unreadable = range(first, min(first + count, EVENTS + 1))
    recorder = Scratched(unreadable)
    found = list(rows_and_gaps(recorder))
    gaps = [(gap.first, gap.last) for gap in found if isinstance(gap, Gap)]
    assert gaps == ([(unreadable[0], unreadable[-1])] if unreadable else [])
    assert [row.position for row in readable_rows(recorder)] == [
        position for position in range(1, EVENTS + 1) if position not in unreadable
    ]
    assert recorder.looks < 200


@pytest.mark.parametrize("unreadable", [range(1, 4), range(90, 93), range(EVENTS - 2, EVENTS + 1)])
def test_rows_that_storage_names_itself_are_each_told_with_what_is_wrong(unreadable: range) -> None:
    recorder = Scratched(unreadable, names_them=True)
    gaps = [gap for gap in rows_and_gaps(recorder) if isinstance(gap, Gap)]
    assert [(gap.first, gap.last) for gap in gaps] == [(position, position) for position in unreadable]
    assert all(isinstance(gap.error, CorruptHistory) for gap in gaps)
    assert len(list(readable_rows(recorder))) == EVENTS - len(unreadable)
