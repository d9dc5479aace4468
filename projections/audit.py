"""The audit log: answers about a whole ledger, from a read model that is never authoritative."""

import logging
import os
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar, overload

from sqlite_utils import Database

from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.one_line import one_line
from ledger.stores.base import TokenStore
from ledger.verification import MOST_FINDINGS, Checkpoint, Finding, Verification
from projections.audit_checkpoint import read_checkpoint
from projections.audit_file import AuditFile, AuditFileDamaged, AuditFileError, AuditFileHeld
from projections.audit_looking import as_it_is
from projections.audit_place import access_beside, beside
from projections.catch_up import Progress, bring_up_to_date, rebuild
from projections.explain.questions import ExplainQuestions
from projections.history import HistoryEntry, last_version, select_entries, select_history
from projections.leases import CurrentLease, select_leases
from projections.sql_questions import SqlQuestions
from projections.stale_markers import StoredToken, find_stale_markers
from projections.time_travel.as_of import LeaseThen, leases_at
from projections.time_travel.moments import as_ms
from projections.witness import audit_findings
from projections.witness_findings import about_object

__all__ = ["AuditLog"]

_log: Final = logging.getLogger(__name__)

Lease = TypeVar("Lease", CurrentLease, LeaseThen)

_ROWS_AT_ONCE: Final = 500


class AuditLog(ExplainQuestions, SqlQuestions):
    """Answers questions about a ledger from a SQLite file beside it. Share one between threads.

    The file holds one readable row per event and one per lease, and may be opened with any SQLite tool. Each question
    first takes in what the ledger recorded since the last one, whoever recorded it. The file can be deleted at any
    time: the next question makes it anew.

    It notices when it followed another ledger, or another past of this one, or was made by another version, and
    rebuilds itself. What the ledger contradicts stays in the file as evidence, which :meth:`verify` reports until
    somebody deletes the file.

    Where this process may not write, the file is copied to a temporary one, which is caught up instead; likewise, with
    a warning in the log, where somebody else holds the file or its lock for too long.

    Attributes:
        ledger: The ledger it is about.
        path: The file; ``None`` for a ledger in memory, whose audit log lies in memory too.
    """

    def __init__(self, ledger: LeaseLedger, path: Path | None) -> None:
        self.ledger = ledger
        self.path = path
        self._opened: AuditFile | None = None

    @classmethod
    def open(cls, ledger: LeaseLedger, path: str | os.PathLike[str] | None = None) -> Self:
        """The audit log of a ledger. Nothing is read or made before the first question.

        Args:
            ledger: An open ledger; it stays open when the audit log is closed.
            path: The audit file; by default beside the ledger, ``auth.audit.db`` for ``auth.db``.
        """
        return cls(ledger, beside(ledger.recorder) if path is None else Path(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up the file. The next question would open it again."""
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    def history(self, key: LeaseKey, last: int | None = None) -> list[HistoryEntry]:
        """What happened to a lease, oldest first; with ``last`` only so many of the newest events.

        Raises:
            ValueError: ``last`` is negative.
            CorruptHistory: Some lease's events contradict each other; :meth:`verify` shows the extent.
            UnknownEventTag: A newer version wrote one of them.
            AuditFileError: The audit file cannot be used.
            LedgerStorageError: The ledger cannot be read.
        """
        _check_count(last)
        with self._current().reading() as db:
            return select_history(db, key, last)

    @overload
    def leases(self) -> list[CurrentLease]: ...
    @overload
    def leases(self, *, at: int | datetime) -> list[LeaseThen]: ...
    def leases(self, *, at: int | datetime | None = None) -> list[CurrentLease] | list[LeaseThen]:
        """Every lease as it is now, or as it was at a time, sorted by key; raises as :meth:`history`.

        Args:
            at: Epoch milliseconds, or a datetime with a time zone; now by default. Includes every event whose stream's
                running maximum of time is at most this.
        """
        if at is not None:
            return self.leases_at(at)
        with self._current().reading() as db:
            return select_leases(db)

    @overload
    def each_lease(self) -> Iterator[CurrentLease]: ...
    @overload
    def each_lease(self, *, at: int | datetime) -> Iterator[LeaseThen]: ...
    def each_lease(self, *, at: int | datetime | None = None) -> Iterator[CurrentLease] | Iterator[LeaseThen]:
        """What :meth:`leases` lists, one after another, for ledgers of more leases than one wants to hold.

        Nothing is kept open between two leases. What is recorded meanwhile may show in leases still to come, but none
        comes twice, and none that was there is left out.
        """
        if at is None:
            return self._each(select_leases)
        at_ms = as_ms(at)
        return self._each(lambda db, after, limit: leases_at(db, at_ms, after, limit))

    def _each(self, page_of: Callable[[Database, str, int], list[Lease]]) -> Iterator[Lease]:
        after, file = "", self._current()
        while True:
            with file.reading() as db:
                page = page_of(db, after, _ROWS_AT_ONCE)
            yield from page
            if len(page) < _ROWS_AT_ONCE:
                return
            after = page[-1].key

    def each_entry(self, key: LeaseKey, last: int | None = None) -> Iterator[HistoryEntry]:
        """What :meth:`history` lists, one after another, for leases of more events than one wants to hold."""
        _check_count(last)
        file = self._current()
        with file.reading() as db:
            end = last_version(db, key)
        after = 0 if last is None else max(end - last, 0)
        while after < end:
            with file.reading() as db:
                page = select_entries(db, key, after, min(_ROWS_AT_ONCE, end - after))
            yield from page
            after += _ROWS_AT_ONCE

    def stale_markers(self, store: TokenStore) -> list[StoredToken]:
        """Class every stored token by its marker's event, and name the leases whose tokens are missing.

        Nothing is changed by looking. Tokens saved without a marker (API keys and the like) are ``unmarked``.

        Raises:
            TokenStoreError: The store could not be asked.

        Raises further as :meth:`history`.
        """
        holding = [LeaseKey.parse(lease.key) for lease in self.leases() if lease.credential_present]
        return find_stale_markers(self.ledger, store, holding)

    def catch_up(self, progress: Progress | None = None) -> int:
        """Take in everything recorded so far, as each question does first, and return the last position.

        Args:
            progress: Called now and then with the events taken in and how many there are.

        Raises as :meth:`history`.
        """
        return self._position(self._current(progress))

    def rebuild(self, progress: Progress | None = None) -> int:
        """Make everything anew from the ledger's first event, and return the last position.

        Questions asked meanwhile, here or elsewhere, are answered from the old contents; one rebuild runs at a time.

        Args:
            progress: Called now and then with the events taken in and how many there are.

        Raises:
            AuditFileError: The audit file may not be written.

        Raises further as :meth:`history`; the old contents are then as they were.
        """
        file = self._file()
        if file.private:
            raise AuditFileError(
                f"audit file {one_line(self.path)}: this process may not write it, so it cannot rebuild it"
            )
        rebuild(file, self.ledger.recorder, progress)
        return self._position(file)

    def verify(self, against: Checkpoint | None = None) -> Verification:
        """Check the ledger from scratch, with this audit file as a further witness. Changes nothing, here or there.

        The audit file is asked as it is, not caught up: it knows the last events of every stream, which nothing in
        the ledger can vouch for. Contents that the ledger contradicted, and that were set aside by a rebuild, speak
        until somebody deletes the file.

        Where the ledger adds up to what the audit file saw, the file itself is checked: each column of each row is
        made anew from its event, and tables, indexes, views, triggers and pages are held against what this version
        writes. A damaged audit file is a finding. It does not keep the ledger from being checked.

        Args:
            against: A checkpoint kept elsewhere, as another witness.

        Raises:
            AuditFileError: The audit file is out of reach, or something else lies in its place.
            LedgerStorageError: The ledger cannot be read.
        """
        outcome = self.ledger.verify(against)
        try:
            found = self._findings()
        except AuditFileDamaged as error:
            found = [about_object(str(error), "pages")]
        if found is None:
            return outcome
        return Verification(
            (*outcome.findings, *found)[:MOST_FINDINGS], outcome.checkpoint, (*outcome.witnesses, "audit")
        )

    def _findings(self) -> list[Finding] | None:
        recorder = self.ledger.recorder
        if self.path is not None:
            if not os.path.lexists(self.path):
                return None
            with as_it_is(self.path) as db:
                return audit_findings(recorder, db)
        if self._opened is None:
            return None
        with self._opened.reading() as db:
            return audit_findings(recorder, db)

    def _file(self) -> AuditFile:
        opened = self._opened
        if opened is None or opened.inherited:
            # Of two threads that open it at once one keeps it; the other's is closed when that one is through.
            opened = self._opened = self._open()
        return opened

    def _open(self) -> AuditFile:
        try:
            return AuditFile(self.path, access_beside(self.ledger.recorder))
        except AuditFileHeld as held:
            return self._temporary(held)

    def _temporary(self, held: AuditFileHeld) -> AuditFile:
        _log.warning("%s; answering from a temporary copy", held)
        return AuditFile(self.path, private=True)

    def _current(self, progress: Progress | None = None) -> AuditFile:
        file = self._file()
        try:
            bring_up_to_date(file, self.ledger.recorder, progress)
        except AuditFileHeld as held:
            if file.private or file.path is None:
                raise
            file = self._opened = self._temporary(held)
            bring_up_to_date(file, self.ledger.recorder, progress)
        return file

    def _position(self, file: AuditFile) -> int:
        with file.reading() as db:
            checkpoint = read_checkpoint(db)
        return checkpoint.position if checkpoint else 0


def _check_count(last: int | None) -> None:
    if last is not None and last < 0:
        raise ValueError(f"last is a number of events, not {last}")
