"""The events that an audit file saw, and the rows that it has of them, beside those of the ledger."""

import sqlite3
from collections.abc import Iterator
from operator import itemgetter
from typing import Any, Final, NamedTuple

from ledger.chain import EMPTY_ROLL, roll
from ledger.verification import Finding
from projections.read_model import PAGE
from projections.recomputing import EVENT_TABLE_COLUMNS, EventRow, same_row, whatever_text
from projections.witness_findings import about_event, about_file

__all__ = ["ComparedEvents", "Witness", "compare_events", "last_seen"]

MOST_EACH: Final = 25
"""Findings of one witness: who has more has another ledger, or another file."""

_IDENTITY: Final = ("position", "key", "version", "digest")


class Witness(NamedTuple):
    """One table of seen events, and how far it says that it goes.

    Attributes:
        name: What it is called in findings.
        table: Where its events are.
        described_in: The table that says how far they go.
        position: The last of them.
        digest: Rolling digest over all of them.
        is_readable: Whether its rows have the columns that this version gives them.
    """

    name: str
    table: str
    described_in: str
    position: int
    digest: str
    is_readable: bool


class ComparedEvents(NamedTuple):
    """What came of a comparison.

    Attributes:
        findings: What differs.
        of_this_ledger: Whether any event is the same.
        doubtful: Keys of leases that have events which differ.
        leases_follow: Whether the file's other leases must be what the ledger's events give.
        last_digest: Digest of the event at the witness's last position.
    """

    findings: list[Finding]
    of_this_ledger: bool
    doubtful: frozenset[str]
    leases_follow: bool
    last_digest: str | None


class _Difference(NamedTuple):
    """One event that differs, in words for either fault. ``None``: then it is none."""

    event: EventRow
    if_ledger: str | None
    if_file: str


def last_seen(connection: sqlite3.Connection, table: str) -> int:
    """The last position that a table of events holds."""
    ((position,),) = connection.execute(f"SELECT COALESCE(MAX(position), 0) FROM {table}").fetchall()  # noqa: S608
    return int(position)


def compare_events(connection: sqlite3.Connection, witness: Witness, held: Iterator[EventRow]) -> ComparedEvents:
    """Hold the events of a witness against the ledger's.

    Args:
        connection: The audit file, in a read transaction.
        witness: Which events.
        held: The ledger's, with the rows that the file should have of them.
    """
    comparison = _Comparison()
    seen_reader = _Reader(_seen_events(connection, witness), witness.position)
    held_reader = _Reader(held, witness.position)
    while seen_reader.next is not None and comparison.goes_on:
        comparison.step(seen_reader, held_reader)
    while comparison.goes_on and held_reader.next is not None and held_reader.next.position <= witness.position:
        comparison.missing(held_reader.next)
        held_reader.advance()
    seen_reader.finish(upto=None)
    held_reader.finish(upto=witness.position)
    return _judged(witness, comparison, seen_reader, held_reader)


def _judged(witness: Witness, comparison: "_Comparison", seen: "_Reader", held: "_Reader") -> ComparedEvents:
    agrees = held.digest == witness.digest
    differing = [found for found in comparison.differences if found.if_ledger is not None]
    at_fault = agrees or not differing
    findings: list[Finding] = []
    if at_fault:
        shown = comparison.differences if agrees else differing
        findings = [_of_file(witness, found.event, found.if_file) for found in shown]
        if not findings and (seen.digest != witness.digest or seen.last != witness.position):
            detail = f"{witness.described_in} does not say how far its events go"
            findings.append(about_file(witness.name, detail, witness.described_in))
    else:
        if seen.digest != witness.digest or seen.last != witness.position:
            detail = "its rows do not add up to its own checkpoint"
            findings.append(about_file(witness.name, detail, witness.described_in))
        findings += [_of_ledger(witness, found) for found in differing]
    findings += [
        _of_file(witness, event, f"its row of this event says otherwise in {', '.join(columns)}")
        for event, columns in comparison.altered_rows
        if at_fault or columns != ["position"]
    ]
    return ComparedEvents(
        findings,
        comparison.any_same,
        frozenset(comparison.doubtful),
        at_fault and comparison.goes_on and (agrees or seen.last >= witness.position),
        seen.digest_at_end,
    )


def _of_file(witness: Witness, event: EventRow, detail: str) -> Finding:
    return about_file(witness.name, detail, witness.table, event.position, event.key, event.version)


def _of_ledger(witness: Witness, found: _Difference) -> Finding:
    return about_event(f"{witness.name} {found.if_ledger}", found.event.position, found.event.key, found.event.version)


def _seen_events(connection: sqlite3.Connection, witness: Witness) -> Iterator[EventRow]:
    columns = EVENT_TABLE_COLUMNS if witness.is_readable else _IDENTITY
    query = f"SELECT {', '.join(columns)} FROM {witness.table} NOT INDEXED WHERE position > ? ORDER BY position LIMIT ?"  # noqa: S608
    identity = itemgetter(*(columns.index(name) for name in _IDENTITY))
    position, least = -(2**63), PAGE
    while page := _fetched(connection, query, (position, least)):
        for row in page:
            yield EventRow._make((*identity(row), row if witness.is_readable else None))
        position = page[-1][0]


def _fetched(connection: sqlite3.Connection, query: str, values: tuple[int, int]) -> list[Any]:
    try:
        return connection.execute(query, values).fetchall()
    except (sqlite3.OperationalError, UnicodeDecodeError):
        # To read text that is none takes twice as long, so it is done only where there is some.
        with whatever_text(connection):
            return connection.execute(query, values).fetchall()


class _Reader:
    """Reads events with one of lookahead, and rolls their digests up to a position."""

    def __init__(self, events: Iterator[EventRow], upto: int) -> None:
        self._events = events
        self._upto = upto
        self.digest = EMPTY_ROLL
        self.digest_before = EMPTY_ROLL
        self.last = 0
        self.digest_at_end: str | None = None
        self.next = next(events, None)
        self.after_next = next(events, None)

    def advance(self, alike: "_Reader | None" = None) -> None:
        """Move on; ``alike`` has just moved on by the same event, mostly from the same digest."""
        current = self.next
        if current is not None:
            self.last = current.position
            if current.position <= self._upto:
                before = self.digest
                if alike is not None and alike.last == current.position and alike.digest_before == before:
                    self.digest = alike.digest
                else:
                    self.digest = roll(before, current.position, current.digest)
                self.digest_before, self.digest_at_end = before, current.digest
        self.next, self.after_next = self.after_next, next(self._events, None)

    def finish(self, upto: int | None) -> None:
        while self.next is not None and (upto is None or self.next.position <= upto):
            self.advance()


class _Comparison:
    """What differs between the events a witness saw and those the ledger holds, read side by side."""

    def __init__(self) -> None:
        self.differences: list[_Difference] = []
        self.altered_rows: list[tuple[EventRow, list[str]]] = []
        self.doubtful: set[str] = set()
        self.any_same = False

    @property
    def goes_on(self) -> bool:
        """Whether there is any use in more findings."""
        return len(self.differences) < MOST_EACH

    def step(self, seen: _Reader, held: _Reader) -> None:
        """Compare the next event of each, and move on by what it takes to be in step again."""
        saw, holds = seen.next, held.next
        assert saw is not None
        if _same(saw, holds):
            assert holds is not None
            self.any_same = True
            self._compare_rows(saw, holds)
            seen.advance()
            held.advance(seen)
        elif holds is None or _same(holds, seen.after_next):
            self._removed_or_swapped(saw, holds, seen, held)
        elif _same(saw, held.after_next):
            self._report(holds, "did not see this event here: it was inserted", "its row of this event is missing")
            held.advance()
        else:
            if (saw.key, saw.version) == (holds.key, holds.version):
                if_file = "its row of this event says otherwise in digest"
                self._report(holds, "saw this event with another content: it was changed", if_file)
            else:
                instead = f"event {saw.version} of {saw.key}"
                if_ledger = f"saw {instead} here: events were removed, inserted or swapped"
                self._report(holds, if_ledger, f"its row of this event is of {instead}")
                self._doubt(saw)
            seen.advance()
            held.advance()

    def missing(self, holds: EventRow) -> None:
        """Take in an event that the witness says it has seen, and has no row of."""
        self.differences.append(_Difference(holds, None, "its row of this event is missing"))
        self._doubt(holds)

    def _compare_rows(self, saw: EventRow, holds: EventRow) -> None:
        if saw.row is None or holds.row is None or holds.key in self.doubtful or same_row(saw.row, holds.row):
            return
        if len(self.altered_rows) < MOST_EACH:
            pairs = zip(EVENT_TABLE_COLUMNS, saw.row, holds.row, strict=True)
            columns = [name for name, one, other in pairs if not same_row((one,), (other,))]
            self.altered_rows.append((holds, columns))

    def _removed_or_swapped(self, saw: EventRow, holds: EventRow | None, seen: _Reader, held: _Reader) -> None:
        if holds is not None and _same(saw, held.after_next):
            other = f"event {saw.version} of {saw.key}"
            if_ledger = f"saw it right after {other}: the two were swapped"
            self._report(holds, if_ledger, f"its rows of this event and of {other} were swapped")
            self._doubt(saw)
            seen.advance()
            seen.advance()
            held.advance()
            held.advance()
        else:
            if_ledger = "saw this event, which the ledger does not hold here: it was removed"
            self._report(saw, if_ledger, "it has a row here of which the ledger has no event")
            seen.advance()

    def _report(self, event: EventRow, if_ledger: str, if_file: str) -> None:
        self.differences.append(_Difference(event, if_ledger, if_file))
        self._doubt(event)

    def _doubt(self, event: EventRow) -> None:
        if isinstance(event.key, str):
            self.doubtful.add(event.key)


def _same(one: EventRow, other: EventRow | None) -> bool:
    return other is not None and one[1:4] == other[1:4]
