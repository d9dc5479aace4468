"""The audit file as a witness: every event it ever saw, held against the ledger as it is now.

It must be asked before it is caught up or rebuilt. Contents that were set aside, because the ledger contradicted
them, are asked too. A witness may lie itself; its own rolling digest shows that.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from sqlite_utils import Database

from ledger.chain import EMPTY_ROLL, event_digest, roll
from ledger.errors import CorruptHistory
from ledger.recorders.base import LeaseRecorder
from ledger.salvage import Gap, rows_and_gaps
from ledger.verification import Finding
from projections.audit_checkpoint import read_checkpoint
from projections.audit_schema import EVENTS, SET_ASIDE

__all__ = ["audit_findings"]

WITNESS: Final = "audit"
MOST_FINDINGS_EACH: Final = 25


class _Witness(NamedTuple):
    """One table of seen events and the checkpoint it belongs to."""

    name: str
    table: str
    position: int
    digest: str


class _Seen(NamedTuple):
    """An event, by what identifies it."""

    position: int
    key: str
    version: int
    digest: str

    def is_event(self, other: "_Seen | None") -> bool:
        return other is not None and other[1:] == self[1:]


def audit_findings(recorder: LeaseRecorder, db: Database) -> list[Finding] | None:
    """Everything in which the ledger differs from what an audit file saw; ``None`` if it saw nothing of this ledger.

    Args:
        recorder: The ledger's log.
        db: The audit file, in a read transaction.
    """
    witnesses = list(_witnesses(db, recorder.ledger_id))
    if not witnesses:
        return None
    return [finding for witness in witnesses for finding in _compare(recorder, db, witness)]


def _witnesses(db: Database, ledger_id: str) -> Iterator[_Witness]:
    checkpoint = read_checkpoint(db)
    if checkpoint is not None and checkpoint.ledger_id == ledger_id:
        yield _Witness("the audit file", EVENTS, checkpoint.position, checkpoint.digest)
    found = db.execute(
        f"SELECT reason, events_table, position, digest FROM {SET_ASIDE} WHERE ledger_id = ? ORDER BY id",  # noqa: S608
        (ledger_id,),
    ).fetchall()
    for reason, table, position, digest in found:
        yield _Witness(f"an earlier audit file (set aside: {reason})", table, position, digest)


def _compare(recorder: LeaseRecorder, db: Database, witness: _Witness) -> list[Finding]:
    comparison = _Comparison(witness.name)
    seen = _Reader(_seen_events(db, witness), witness.position)
    held = _Reader(_held_events(recorder), witness.position)
    while seen.next is not None and len(comparison.findings) < MOST_FINDINGS_EACH:
        comparison.step(seen, held)
    for reader in (seen, held):
        reader.finish()
    if seen.digest == witness.digest:
        return comparison.findings
    altered = Finding(
        WITNESS,
        f"the rows of {witness.name} do not add up to its own checkpoint: the audit file itself was changed; "
        "remove it, everything in it is made anew from the ledger",
    )
    # If the ledger adds up to the checkpoint, the differing rows are the audit file's fault alone.
    return [altered] if held.digest == witness.digest else [altered, *comparison.findings]


def _seen_events(db: Database, witness: _Witness) -> Iterator[_Seen]:
    for row in db.execute(f"SELECT position, key, version, digest FROM {witness.table} ORDER BY position"):  # noqa: S608
        yield _Seen._make(row)


def _held_events(recorder: LeaseRecorder) -> Iterator[_Seen]:
    for found in rows_and_gaps(recorder):
        if not isinstance(found, Gap):
            digest = event_digest(recorder.ledger_id, found.stream, found.version, found.tag, found.body)
            yield _Seen(found.position, found.stream, found.version, digest)
        elif isinstance(found.error, CorruptHistory):
            # A row that went around the ledger may hold anything; no event has such columns.
            yield _Seen(found.first, found.error.stream, found.error.version, "")


class _Reader:
    """Reads events with one of lookahead, and rolls their digests up to a position."""

    def __init__(self, events: Iterator[_Seen], upto: int) -> None:
        self._events = events
        self._upto = upto
        self.digest = EMPTY_ROLL
        self.next = next(events, None)
        self.after_next = next(events, None)

    def advance(self) -> None:
        current = self.next
        if current is not None and current.position <= self._upto:
            self.digest = roll(self.digest, current.position, current.digest)
        self.next, self.after_next = self.after_next, next(self._events, None)

    def finish(self) -> None:
        while self.next is not None and self.next.position <= self._upto:
            self.advance()


class _Comparison:
    """What differs between the events a witness saw and those the ledger holds, read side by side."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.findings: list[Finding] = []

    def step(self, seen: _Reader, held: _Reader) -> None:
        """Compare the next event of each, and move on by what it takes to be in step again."""
        saw, holds = seen.next, held.next
        assert saw is not None
        if saw.is_event(holds):
            seen.advance()
            held.advance()
        elif holds is None or holds.is_event(seen.after_next):
            self._removed_or_swapped(saw, holds, seen, held)
        elif saw.is_event(held.after_next):
            self._report(holds, "did not see this event here: it was inserted")
            held.advance()
        else:
            if (saw.key, saw.version) == (holds.key, holds.version):
                self._report(holds, "saw this event with another content: it was changed")
            else:
                instead = f"saw event {saw.version} of {saw.key} here"
                self._report(holds, f"{instead}: events were removed, inserted or swapped")
            seen.advance()
            held.advance()

    def _removed_or_swapped(self, saw: _Seen, holds: _Seen | None, seen: _Reader, held: _Reader) -> None:
        if holds is not None and saw.is_event(held.after_next):
            self._report(holds, f"saw it right after event {saw.version} of {saw.key}: the two were swapped")
            seen.advance()
            seen.advance()
            held.advance()
            held.advance()
        else:
            self._report(saw, "saw this event, which the ledger does not hold here: it was removed")
            seen.advance()

    def _report(self, event: _Seen, detail: str) -> None:
        where = (event.position, event.key, event.version)
        self.findings.append(Finding(WITNESS, f"{self._name} {detail}", *where))
