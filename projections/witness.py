"""The audit file as a witness: every row it holds, held against the ledger as it is now.

It must be asked before it is caught up or rebuilt. Contents that were set aside, because the ledger contradicted
them, are asked too. A witness may lie itself. Its own rolling digest shows that: where the ledger adds up to what the
file's checkpoint says, whatever differs is the file's own fault. So its rows are made anew from the ledger's events
and compared, in every column, and what SQLite says of its objects, indexes and pages is told too.
"""

import sqlite3
from collections.abc import Iterator
from typing import Final

from sqlite_utils import Database

from ledger.recorders.base import LeaseRecorder
from ledger.state import FOLD_VERSION
from ledger.verification import Finding
from projections.audit_checkpoint import RELEASED, AuditCheckpoint, RebuildReason, UnusableCheckpoint, read_checkpoint
from projections.audit_objects import (
    alterations,
    can_be_evidence,
    evidence_tables,
    has_present_form,
    is_as_made,
    set_aside_table,
)
from projections.audit_schema import CHECKPOINT, EVENTS, LEASES, SCHEMA_VERSION, SET_ASIDE
from projections.recomputing import recomputation
from projections.witness_events import Witness, compare_events, last_seen
from projections.witness_file import object_findings, page_findings, unless_damaged
from projections.witness_findings import about_object
from projections.witness_leases import lease_findings

__all__ = ["audit_findings"]

_FILE: Final = "the audit file"


def audit_findings(recorder: LeaseRecorder, db: Database) -> list[Finding] | None:
    """Everything in which an audit file is not what the ledger's events make of it; ``None`` if it is no witness.

    It is none that saw nothing of this ledger.

    Args:
        recorder: The ledger's log.
        db: The audit file, in a read transaction.
    """
    if not db.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall():
        return None
    examination = _Examination(recorder, db)
    findings = [
        *examination.of_version(),
        *unless_damaged("what it saw", EVENTS, examination.of_contents),
        *unless_damaged("what was set aside in it", SET_ASIDE, examination.of_set_aside),
    ]
    return findings if findings or examination.is_witness else None


class _Examination:
    """One look at a whole audit file."""

    def __init__(self, recorder: LeaseRecorder, db: Database) -> None:
        self._recorder = recorder
        self._db = db
        self._checkpoint: AuditCheckpoint | None = None
        self._is_readable = True
        self.is_witness = False

    def of_version(self) -> Iterator[Finding]:
        """What is wrong with the file as a file, and with the row that says who made it."""
        ours = True
        try:
            self._checkpoint = read_checkpoint(self._db)
        except (UnusableCheckpoint, sqlite3.DatabaseError, UnicodeDecodeError) as error:
            yield about_object(f"{CHECKPOINT} does not say in one row how far it goes ({error})", CHECKPOINT)
        if self._checkpoint is not None:
            version = (self._checkpoint.schema, self._checkpoint.fold)
            ours = version == (SCHEMA_VERSION, FOLD_VERSION)
            if not ours and version not in RELEASED:
                detail = f"{CHECKPOINT} says that version {version[0]}.{version[1]} made it, which is not known here"
                yield about_object(detail, CHECKPOINT)
                ours = not alterations(self._db.conn)
            self._is_readable = ours and has_present_form(self._db.conn, EVENTS)
            if not ours and version[0] != SCHEMA_VERSION:
                yield from page_findings(self._db.conn)
                return
        yield from object_findings(self._db.conn)
        yield from page_findings(self._db.conn)

    def of_contents(self) -> Iterator[Finding]:
        """Where the rows of events and leases differ from what the ledger's events give."""
        if not can_be_evidence(self._db.conn):
            return
        last = last_seen(self._db.conn, EVENTS)
        kept = self._checkpoint
        if kept is None:
            if last == 0:
                yield from self._leases_of_nothing()
                return
            kept = AuditCheckpoint(self._recorder.ledger_id, last, "", "")
        witness = Witness(_FILE, EVENTS, CHECKPOINT, kept.position, kept.digest, self._is_readable)
        with recomputation(self._recorder, max(last, kept.position)) as recomputed:
            compared = compare_events(self._db.conn, witness, recomputed.events())
            is_ours = kept.ledger_id == self._recorder.ledger_id
            if not is_ours and not compared.of_this_ledger:
                return
            self.is_witness = True
            if not is_ours:
                yield about_object(f"{CHECKPOINT} says that it follows another ledger", CHECKPOINT)
            yield from compared.findings
            last_agrees = compared.last_digest in (None, kept.last_digest)
            if self._checkpoint and not compared.findings and not last_agrees:
                yield about_object(f"{CHECKPOINT} says otherwise in last_digest", CHECKPOINT)
            if self._is_readable and compared.leases_follow and is_as_made(self._db.conn, LEASES):
                recomputed.settle()
                yield from lease_findings(_FILE, self._db, recomputed.db, compared.doubtful)

    def _leases_of_nothing(self) -> Iterator[Finding]:
        if self._is_readable and is_as_made(self._db.conn, LEASES):
            with recomputation(self._recorder, 0) as nothing:
                yield from lease_findings(_FILE, self._db, nothing.db, frozenset())

    def of_set_aside(self) -> Iterator[Finding]:
        """Where contents that were set aside differ from the ledger, or do not add up."""
        if not is_as_made(self._db.conn, SET_ASIDE):
            return
        query = f"SELECT id, reason, ledger_id, position, digest, events_table FROM {SET_ASIDE} ORDER BY id"  # noqa: S608
        found = self._db.execute(query).fetchall()
        tables = evidence_tables(self._db.conn)
        for table in sorted(tables - {row[-1] for row in found}):
            yield about_object(f"{table} is not accounted for in {SET_ASIDE}", table)
        for number, reason, ledger_id, position, digest, table in found:
            whole = isinstance(position, int) and isinstance(digest, str) and isinstance(ledger_id, str)
            if not whole or reason not in set(RebuildReason) or table != set_aside_table(number) or table not in tables:
                yield about_object(f"row {number} of {SET_ASIDE} holds what it never does", SET_ASIDE)
                continue
            name = f"an earlier audit file (set aside: {reason})"
            witness = Witness(name, table, SET_ASIDE, position, digest, has_present_form(self._db.conn, table))
            with recomputation(self._recorder, position) as recomputed:
                compared = compare_events(self._db.conn, witness, recomputed.events())
            is_ours = ledger_id == self._recorder.ledger_id
            if is_ours or compared.of_this_ledger:
                self.is_witness = True
                yield from compared.findings
            if not is_ours and compared.of_this_ledger:
                yield about_object(f"row {number} of {SET_ASIDE} says that it is of another ledger", SET_ASIDE)
