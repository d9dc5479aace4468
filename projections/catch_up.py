"""Catch-up and rebuild: the read model follows the log, rows and position together, however many processes do it.

A catch-up writes batches. Each is one transaction that first looks whether another process was quicker.

A rebuild fills tables beside those in use, which others go on reading and catching up, and swaps them in by
renaming, in one transaction: a reader sees the old tables or the new ones. Killed at any moment, it leaves tables
that nobody reads, and the next rebuild drops them. (Renaming a new file over the old one would not do: whoever has
the old one open with its write-ahead log is served old rows.)

Contents that the ledger contradicts are evidence. A rebuild renames their events aside instead of dropping them,
where verification finds them, so that rebuilding never hides that an event was changed.

All that writes runs in a worker thread: an interrupt undoes the batch under way and comes out.
"""

import sqlite3
from collections.abc import Callable, Sequence
from typing import Final

from sqlite_utils import Database

from ledger.codec import EventCodec
from ledger.errors import CorruptHistory, UnknownEventTag
from ledger.heads import decode_row
from ledger.recorders.base import LeaseRecorder, LogRow
from ledger.state import fold
from ledger.threads import Stopped, StopRequest
from projections.audit_checkpoint import (
    AuditCheckpoint,
    RebuildReason,
    UnusableCheckpoint,
    first_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from projections.audit_file import AuditFile
from projections.audit_objects import can_be_evidence, drop_foreign, drop_lost_evidence, set_aside_table
from projections.audit_rows import encoded_state
from projections.audit_schema import (
    CHECKPOINT,
    EVENTS,
    LEASES,
    SET_ASIDE,
    SHADOW_EVENTS,
    SHADOW_LEASES,
    create_bookkeeping,
    create_indexes,
    create_read_model,
)
from projections.read_model import BATCH, PAGE, ReadModel, UnusableRows
from projections.stoppable import stoppable

__all__ = ["Progress", "bring_up_to_date", "rebuild"]

REBUILD_TIMEOUT_S: Final = 600.0
"""How long somebody who asked for a rebuild waits for another one to end."""

Progress = Callable[[int, int], None]
"""Told the events taken in so far and how many there are."""


def bring_up_to_date(file: AuditFile, recorder: LeaseRecorder, progress: Progress | None = None) -> None:
    """Take in every event not yet in the file, or make all of it anew where it cannot go on from what it holds.

    Raises:
        CorruptHistory: An event cannot be folded. Everything before it was taken in.
        UnknownEventTag: A newer version wrote one; likewise.
        AuditFileError: The file cannot be read or written.
        LedgerStorageError: The ledger cannot be read.
    """
    # Mostly there is nothing new, which one look tells wherever it is asked.
    if _Standing(file, recorder, 2).is_current:
        return
    stoppable(lambda stop: _bring_up_to_date(file, recorder, progress, stop))


def rebuild(file: AuditFile, recorder: LeaseRecorder, progress: Progress | None = None) -> None:
    """Make the tables anew from the first event, whatever has become of them.

    Raises as :func:`bring_up_to_date`; the tables in use are then as they were.
    """

    def run(stop: StopRequest) -> None:
        with file.sole_rebuilder(stop, REBUILD_TIMEOUT_S):
            _rebuild(file, recorder, progress, stop)

    stoppable(run)


class _Standing:
    """How far the file has come, and what the ledger holds from its last event on."""

    def __init__(self, file: AuditFile, recorder: LeaseRecorder, limit: int) -> None:
        self.page: Sequence[LogRow] = ()
        self.reason: RebuildReason | None = None
        try:
            with file.reading() as db:
                self.checkpoint = read_checkpoint(db) or first_checkpoint(recorder.ledger_id)
        except UnusableCheckpoint:
            self.reason = RebuildReason.UNUSABLE
            return
        self.page = recorder.log(max(self.checkpoint.position - 1, 0), limit)
        last = LogRow._make(self.page[0]) if self.page else None
        self.reason = self.checkpoint.reason_to_rebuild(recorder.ledger_id, last)

    @property
    def is_current(self) -> bool:
        """Whether there is nothing to take in."""
        return self.reason is None and len(self.page) == (1 if self.checkpoint.position else 0)


def _bring_up_to_date(file: AuditFile, recorder: LeaseRecorder, progress: Progress | None, stop: StopRequest) -> None:
    if _catch_up(file, recorder, progress, stop) is None:
        return
    with file.sole_rebuilder(stop):
        # Somebody else may have rebuilt it while this process waited for its turn.
        if _catch_up(file, recorder, progress, stop) is not None:
            _rebuild(file, recorder, progress, stop)


def _catch_up(
    file: AuditFile, recorder: LeaseRecorder, progress: Progress | None, stop: StopRequest
) -> RebuildReason | None:
    """Take in what is new, or say why the file has to be rebuilt instead."""
    model: ReadModel | None = None
    while True:
        standing = _Standing(file, recorder, PAGE)
        if standing.reason is not None or standing.is_current:
            return standing.reason
        checkpoint = standing.checkpoint
        if checkpoint.position == 0 and len(standing.page) == PAGE:
            # Filling new tables and indexing them afterwards is quicker than a long catch-up.
            return RebuildReason.NOTHING_YET
        try:
            with file.writing() as db:
                if (read_checkpoint(db) or first_checkpoint(recorder.ledger_id)) != checkpoint:
                    continue
                if model is None or model.checkpoint != checkpoint:
                    model = ReadModel(db, EVENTS, LEASES, checkpoint)
                model.go_on_in(db)
                error = _fill(model, recorder, None, progress, stop)
                if isinstance(error, CorruptHistory) and _was_misled(db, recorder, error.stream):
                    raise UnusableRows
                model.settle()
                write_checkpoint(db, model.checkpoint)
        except (UnusableRows, UnusableCheckpoint, sqlite3.IntegrityError):
            return RebuildReason.UNUSABLE
        if error is not None:
            raise error


def _was_misled(db: Database, recorder: LeaseRecorder, stream: str) -> bool:
    """Whether it was this file, and not the ledger, that made an event seem not to follow."""
    found = db.execute(f"SELECT version, state FROM {LEASES} WHERE key = ?", (stream,)).fetchone()  # noqa: S608
    if found is None:
        return False
    codec, (version, state) = EventCodec(), found
    if type(version) is not int:
        return True
    try:
        events = [decode_row(codec, stream, row) for row in recorder.rows(stream, 0, version)]
        return bool(encoded_state(fold(events)) != state)
    except (CorruptHistory, UnknownEventTag):
        return False


def _rebuild(file: AuditFile, recorder: LeaseRecorder, progress: Progress | None, stop: StopRequest) -> None:
    try:
        with file.replacing() as db:
            _drop(db, SHADOW_EVENTS, SHADOW_LEASES)
            create_read_model(db, SHADOW_EVENTS, SHADOW_LEASES)
            old = _evidence(db)
            model = ReadModel(db, SHADOW_EVENTS, SHADOW_LEASES, first_checkpoint(recorder.ledger_id))
        contradiction = None
        if old is not None:
            _fill_all(file, model, recorder, old.position, progress, stop)
            contradiction = _contradiction(old, model.checkpoint)
        _fill_all(file, model, recorder, None, progress, stop)
        with file.replacing() as db:
            model.go_on_in(db)
            _fill_or_raise(model, recorder, None, progress, stop)
            if old is not None and contradiction is None:
                contradiction = _later_contradiction(db, old.position)
            model.settle()
            _swap(db, contradiction, model.checkpoint)
    except (CorruptHistory, UnknownEventTag, Stopped):
        with file.replacing() as db:
            _drop(db, SHADOW_EVENTS, SHADOW_LEASES)
        raise


def _fill(
    model: ReadModel, recorder: LeaseRecorder, upto: int | None, progress: Progress | None, stop: StopRequest
) -> CorruptHistory | UnknownEventTag | None:
    """Take in one batch at most; the error that ended it early, if one did."""
    start = model.checkpoint.position
    total = recorder.last_position() if progress else 0
    error = None
    while error is None:
        stop.heed()
        position = model.checkpoint.position
        wanted = PAGE if upto is None else min(PAGE, upto - position)
        page = recorder.log(position, wanted) if wanted > 0 and position - start < BATCH else ()
        if not page:
            break
        error = model.take_in(page)
        if progress:
            progress(model.checkpoint.position, max(total, model.checkpoint.position))
    return error


def _fill_or_raise(
    model: ReadModel, recorder: LeaseRecorder, upto: int | None, progress: Progress | None, stop: StopRequest
) -> bool:
    before = model.checkpoint.position
    error = _fill(model, recorder, upto, progress, stop)
    if error is not None:
        raise error
    return model.checkpoint.position > before


def _fill_all(
    file: AuditFile,
    model: ReadModel,
    recorder: LeaseRecorder,
    upto: int | None,
    progress: Progress | None,
    stop: StopRequest,
) -> None:
    more = True
    while more:
        with file.replacing() as db:
            model.go_on_in(db)
            more = _fill_or_raise(model, recorder, upto, progress, stop)


def _contradiction(old: AuditCheckpoint, new: AuditCheckpoint) -> RebuildReason | None:
    """How the log, read anew up to the old position, differs from what the file had followed."""
    if old.ledger_id != new.ledger_id:
        return RebuildReason.OTHER_LEDGER
    if new.position < old.position:
        return RebuildReason.LEDGER_BEHIND
    if new.last_digest != old.last_digest:
        return RebuildReason.OTHER_EVENT
    return None if new.digest == old.digest else RebuildReason.OTHER_PAST


def _later_contradiction(db: Database, position: int) -> RebuildReason | None:
    # Others may have caught up the old tables while the new ones were filled.
    ((differing,),) = db.execute(
        f"SELECT COUNT(*) FROM {EVENTS} AS old LEFT JOIN {SHADOW_EVENTS} AS new USING (position) "  # noqa: S608
        "WHERE old.position > ? AND old.digest IS NOT new.digest",
        (position,),
    ).fetchall()
    return RebuildReason.OTHER_EVENT if differing else None


def _evidence(db: Database) -> AuditCheckpoint | None:
    """What the file says it has followed; ``None`` if it says nothing that could be held against a ledger."""
    try:
        return read_checkpoint(db) if can_be_evidence(db.conn) else None
    except (UnusableCheckpoint, sqlite3.OperationalError):
        return None


def _swap(db: Database, contradiction: RebuildReason | None, checkpoint: AuditCheckpoint) -> None:
    old = _evidence(db)
    drop_foreign(db)
    create_bookkeeping(db)
    drop_lost_evidence(db)
    if contradiction is not None and old is not None:
        _set_aside(db, contradiction, old)
    _drop(db, EVENTS, LEASES)
    db.rename_table(SHADOW_EVENTS, EVENTS)
    db.rename_table(SHADOW_LEASES, LEASES)
    create_indexes(db)
    db.execute(f"DELETE FROM {CHECKPOINT}")  # noqa: S608
    write_checkpoint(db, checkpoint)


def _set_aside(db: Database, reason: RebuildReason, old: AuditCheckpoint) -> None:
    ((number,),) = db.execute(f"SELECT COALESCE(MAX(id), 0) + 1 FROM {SET_ASIDE}").fetchall()  # noqa: S608
    table = set_aside_table(number)
    _drop(db, table)
    kept = db.execute(
        f"INSERT OR IGNORE INTO {SET_ASIDE} VALUES (?, ?, ?, ?, ?, ?)",  # noqa: S608
        (number, reason, old.ledger_id, old.position, old.digest, table),
    )
    if kept.rowcount == 1:
        db.rename_table(EVENTS, table)


def _drop(db: Database, *tables: str) -> None:
    for table in tables:
        db.execute(f"DROP TABLE IF EXISTS {table}")
