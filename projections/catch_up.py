"""Catch-up and rebuild: the read model follows the log, rows and position together, however many processes do it.

A catch-up writes batches. Each is one transaction that first looks whether another process was quicker.

A rebuild fills tables beside those in use, which others go on reading and catching up, and swaps them in by
renaming, in one transaction: a reader sees the old tables or the new ones. Killed at any moment, it leaves tables
that nobody reads, and the next rebuild drops them. (Renaming a new file over the old one would not do: whoever has
the old one open with its write-ahead log is served old rows.)

Contents that the ledger contradicts are evidence. A rebuild renames their events aside instead of dropping them,
where verification finds them, so that rebuilding never hides that an event was changed.
"""

from collections.abc import Callable

from sqlite_utils import Database

from ledger.errors import CorruptHistory, UnknownEventTag
from ledger.recorders.base import LeaseRecorder, LogRow
from projections.audit_checkpoint import (
    AuditCheckpoint,
    RebuildReason,
    first_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from projections.audit_file import AuditFile
from projections.audit_schema import (
    EVENTS,
    LEASES,
    SET_ASIDE,
    SHADOW_EVENTS,
    SHADOW_LEASES,
    create_indexes,
    create_read_model,
    drop_indexes,
)
from projections.read_model import BATCH, PAGE, ReadModel

__all__ = ["Progress", "catch_up", "rebuild"]

Progress = Callable[[int, int], None]
"""Told the events taken in so far and how many there are."""


def catch_up(file: AuditFile, recorder: LeaseRecorder, progress: Progress | None = None) -> RebuildReason | None:
    """Take in every event not yet in the file, or say why it has to be rebuilt instead.

    Raises:
        CorruptHistory: An event cannot be folded. Everything before it was taken in.
        UnknownEventTag: A newer version wrote one; likewise.
        AuditFileError: The file cannot be read or written.
        LedgerStorageError: The ledger cannot be read.
    """
    model: ReadModel | None = None
    while True:
        with file.reading() as db:
            checkpoint = read_checkpoint(db) or first_checkpoint(recorder.ledger_id)
        page = recorder.log(max(checkpoint.position - 1, 0), PAGE)
        reason = checkpoint.reason_to_rebuild(recorder.ledger_id, LogRow._make(page[0]) if page else None)
        if reason is not None:
            return reason
        if checkpoint.position == 0 and len(page) == PAGE:
            # Filling new tables and indexing them afterwards is quicker than a long catch-up.
            return RebuildReason.NOTHING_YET
        if len(page) == (1 if checkpoint.position else 0):
            return None
        with file.writing() as db:
            if (read_checkpoint(db) or first_checkpoint(recorder.ledger_id)) != checkpoint:
                continue
            if model is None or model.checkpoint != checkpoint:
                model = ReadModel(db, EVENTS, LEASES, checkpoint)
            error = _fill(model, recorder, None, progress)
            model.settle()
            write_checkpoint(db, model.checkpoint)
        if error is not None:
            raise error


def rebuild(file: AuditFile, recorder: LeaseRecorder, progress: Progress | None = None) -> RebuildReason | None:
    """Make the tables anew from the first event, and say if the ledger contradicted what they held.

    Call it as the sole rebuilder. Raises as :func:`catch_up`; the tables in use are then as they were.
    """
    try:
        with file.writing() as db:
            _drop(db, SHADOW_EVENTS, SHADOW_LEASES)
            create_read_model(db, SHADOW_EVENTS, SHADOW_LEASES)
            old = read_checkpoint(db)
            model = ReadModel(db, SHADOW_EVENTS, SHADOW_LEASES, first_checkpoint(recorder.ledger_id))
        contradiction = None
        if old is not None:
            _fill_all(file, model, recorder, old.position, progress)
            contradiction = _contradiction(old, model.checkpoint)
        _fill_all(file, model, recorder, None, progress)
        with file.writing() as db:
            _fill_or_raise(model, recorder, None, progress)
            if old is not None and contradiction is None:
                contradiction = _later_contradiction(db, old.position)
            model.settle()
            _swap(db, contradiction, model.checkpoint)
    except (CorruptHistory, UnknownEventTag):
        with file.writing() as db:
            _drop(db, SHADOW_EVENTS, SHADOW_LEASES)
        raise
    return contradiction


def _fill(
    model: ReadModel, recorder: LeaseRecorder, upto: int | None, progress: Progress | None
) -> CorruptHistory | UnknownEventTag | None:
    """Take in one batch at most; the error that ended it early, if one did."""
    start = model.checkpoint.position
    total = recorder.last_position() if progress else 0
    error = None
    while error is None:
        position = model.checkpoint.position
        wanted = PAGE if upto is None else min(PAGE, upto - position)
        page = recorder.log(position, wanted) if wanted > 0 and position - start < BATCH else ()
        if not page:
            break
        error = model.take_in(page)
        if progress:
            progress(model.checkpoint.position, max(total, model.checkpoint.position))
    return error


def _fill_or_raise(model: ReadModel, recorder: LeaseRecorder, upto: int | None, progress: Progress | None) -> bool:
    before = model.checkpoint.position
    error = _fill(model, recorder, upto, progress)
    if error is not None:
        raise error
    return model.checkpoint.position > before


def _fill_all(
    file: AuditFile, model: ReadModel, recorder: LeaseRecorder, upto: int | None, progress: Progress | None
) -> None:
    more = True
    while more:
        with file.writing():
            more = _fill_or_raise(model, recorder, upto, progress)


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


def _swap(db: Database, contradiction: RebuildReason | None, checkpoint: AuditCheckpoint) -> None:
    old = read_checkpoint(db)
    if contradiction is not None and old is not None:
        _set_aside(db, contradiction, old)
    drop_indexes(db)
    _drop(db, EVENTS, LEASES)
    db.rename_table(SHADOW_EVENTS, EVENTS)
    db.rename_table(SHADOW_LEASES, LEASES)
    create_indexes(db)
    write_checkpoint(db, checkpoint)


def _set_aside(db: Database, reason: RebuildReason, old: AuditCheckpoint) -> None:
    ((number,),) = db.execute(f"SELECT COALESCE(MAX(id), 0) + 1 FROM {SET_ASIDE}").fetchall()  # noqa: S608
    table = f"{SET_ASIDE}_{number}_events"
    kept = db.execute(
        f"INSERT OR IGNORE INTO {SET_ASIDE} VALUES (?, ?, ?, ?, ?, ?)",  # noqa: S608
        (number, reason, old.ledger_id, old.position, old.digest, table),
    )
    if kept.rowcount == 1:
        db.rename_table(EVENTS, table)


def _drop(db: Database, *tables: str) -> None:
    for table in tables:
        db.execute(f"DROP TABLE IF EXISTS {table}")
