"""Backup and copy: a whole ledger elsewhere, the same to the last byte, or nothing.

Ledger id, positions, versions, tags and bodies stay as they are, so the chain holds, checkpoints kept of the source
hold for the copy, and tokens marked by the one are known to the other. What is stored is read back and compared
before it gets its name. Stored folds, an aid that can be missed, come along only from SQLite file to SQLite file.

Two copies must not both go on being written to: their histories would fork under one id. A copy replaces its source,
or is kept as it is.
"""

import contextlib
import glob
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import msgspec
from eventsourcing.persistence import StoredEvent

from ledger.addresses import split_address
from ledger.chain import EMPTY_ROLL, event_digest, roll
from ledger.errors import LedgerStorageError
from ledger.lease_ledger import LeaseLedger
from ledger.new_files import give_new_name
from ledger.one_line import one_line
from ledger.opening import missing_postgres, open_recorder
from ledger.recorders.access import make_private_file
from ledger.recorders.base import IntegrityError, LeaseRecorder, LogRow
from ledger.recorders.sqlite import SQLiteLeaseRecorder
from ledger.recorders.sqlite_address import SQLiteAddress, sqlite_url
from ledger.recorders.sqlite_opening import Reach, sqlite_uri
from ledger.stores.private_files import sync_folder

__all__ = ["Copied", "Progress", "backup", "copy", "new_ledger_file"]

PAGE: Final = 2_000

_ANYWHERE: Final = "unsafe_filesystem=allow"
# What only this process writes may lie where a ledger in use may not.

Progress = Callable[[int, int], object]
"""Called now and then with the events done and the events there are."""


class Copied(msgspec.Struct, frozen=True):
    """What a backup or copy holds.

    Attributes:
        ledger_id: The ledger's id, that of the source.
        position: Its last position, which is the number of its events.
        digest: Rolling digest of all its events, as in a checkpoint.
    """

    ledger_id: str
    position: int
    digest: str


def backup(ledger: LeaseLedger, path: str | os.PathLike[str], *, progress: Progress | None = None) -> Copied:
    """Write a consistent copy of a ledger, while others use it, into a new SQLite file.

    From a SQLite ledger by SQLite's own backup of one moment, from any other by its events. The file appears whole,
    synced and compared, or not at all; a kill leaves at most a file named ``.copying-...`` beside it, to be deleted.

    Args:
        ledger: The ledger.
        path: The file to make; it must not exist.
        progress: Told how far it is.

    Raises:
        LedgerStorageError: The file exists or cannot be written, the ledger cannot be read or has gaps, or what was
            written is not what was read. There is no backup then.
    """
    source = ledger.recorder
    target = Path(path).absolute()
    if not isinstance(source, SQLiteLeaseRecorder):
        return copy(ledger, f"{sqlite_url(target)}?{_ANYWHERE}", progress=progress)
    with new_ledger_file(target) as unfinished:
        make_private_file(unfinished, source.access._replace(group=None))
        with (
            contextlib.closing(sqlite3.connect(_reading(source), uri=True)) as reading,
            contextlib.closing(sqlite3.connect(unfinished)) as writing,
        ):
            # In one step, for between two a writer would make it begin again; readers and writers are not held up.
            reading.backup(writing, pages=-1)
        with contextlib.closing(_open_file(unfinished, _ANYWHERE, source.ledger_id)) as written:
            made = _summary(written.ledger_id, _log(written, written.last_position(), None))
        _refuse_unless_same(made, _summary(source.ledger_id, _log(source, made.position, progress)))
    return made


def copy(ledger: LeaseLedger, target_url: str, *, progress: Progress | None = None) -> Copied:
    """Copy a ledger, up to the event it ends with at this moment, into storage that holds none.

    Into a SQLite file as :func:`backup` does; into PostgreSQL in one transaction. Killed in the middle it leaves no
    ledger at the target, never a part of one. Events are streamed, so memory does not grow with their number.

    Args:
        ledger: The ledger to copy, of any kind.
        target_url: Where to, as for ``LeaseLedger.open``: a SQLite file that does not exist, or a PostgreSQL schema
            that holds no ledger.
        progress: Told how far it is.

    Raises:
        ValueError: The URL names no storage that can be copied to.
        LedgerStorageError: The target holds something, one of both cannot be used, the source has gaps, or what was
            stored is not what was read. Nothing is left at the target.
    """
    address = SQLiteAddress.parse(target_url)
    if address is None:
        if split_address(target_url).scheme in ("postgresql", "postgres"):
            return _into_postgres(ledger.recorder, target_url, progress)
        raise ValueError("a ledger is copied to sqlite:///new/file.db or postgresql://user@host/database")
    source, options = ledger.recorder, urlencode(address.options)
    with new_ledger_file(address.path.absolute()) as unfinished:
        read = _Summing(source.ledger_id, _log(source, source.last_position(), progress))
        with contextlib.closing(_open_file(unfinished, options, source.ledger_id)) as target:
            _append_all(target, read)
        with contextlib.closing(_open_file(unfinished, options, source.ledger_id)) as written:
            made = _summary(written.ledger_id, _log(written, written.last_position(), None))
        _refuse_unless_same(made, read.summary())
    return made


def _into_postgres(source: LeaseRecorder, url: str, progress: Progress | None) -> Copied:
    try:
        from ledger.recorders.postgres_loading import load_log  # noqa: PLC0415  # an extra brings its driver
    except ImportError as error:
        raise missing_postgres() from error
    read = _Summing(source.ledger_id, _log(source, source.last_position(), progress))

    def check(stored: Iterable[LogRow]) -> None:
        _refuse_unless_same(_summary(source.ledger_id, stored), read.summary())

    try:
        load_log(url, source.ledger_id, read, check)
    except IntegrityError as error:
        raise _has_gaps() from error
    return read.summary()


def _append_all(target: LeaseRecorder, rows: Iterable[LogRow]) -> None:
    waiting: list[LogRow] = []

    def flush() -> None:
        events = [StoredEvent(row.stream, row.version, row.tag, row.body) for row in waiting]
        try:
            positions = target.insert_events(events)
        except IntegrityError as error:
            raise _has_gaps() from error
        if list(positions or ()) != [row.position for row in waiting]:
            raise _has_gaps()
        waiting.clear()

    for row in rows:
        waiting.append(row)
        if len(waiting) == PAGE:
            flush()
    if waiting:
        flush()


def _has_gaps() -> LedgerStorageError:
    return LedgerStorageError("the source's log has gaps and cannot be copied; run 'lease-ledger verify' on it")


def _log(recorder: LeaseRecorder, upto: int, progress: Progress | None) -> Iterator[LogRow]:
    """Every event up to a position."""
    after = 0
    while after < upto:
        page = recorder.log(after, min(PAGE, upto - after))
        if not page:
            return
        yield from (LogRow._make(row) for row in page)
        after = page[-1][0]
        if progress is not None:
            progress(after, upto)


class _Summing:
    """A log that is digested while it is read, once."""

    def __init__(self, ledger_id: str, rows: Iterable[LogRow]) -> None:
        self._ledger_id = ledger_id
        self._rows = rows
        self._position, self._digest = 0, EMPTY_ROLL

    def __iter__(self) -> Iterator[LogRow]:
        for row in self._rows:
            digest = event_digest(self._ledger_id, row.stream, row.version, row.tag, row.body)
            self._position, self._digest = row.position, roll(self._digest, row.position, digest)
            yield row

    def summary(self) -> Copied:
        return Copied(self._ledger_id, self._position, self._digest)


def _summary(ledger_id: str, rows: Iterable[LogRow]) -> Copied:
    read = _Summing(ledger_id, rows)
    for _ in read:
        pass
    return read.summary()


def _refuse_unless_same(stored: Copied, read: Copied) -> None:
    if stored != read:
        raise LedgerStorageError(
            f"the copy is not what was read: {stored.position} events with digest {stored.digest}, "
            f"instead of {read.position} with {read.digest}; nothing was left behind"
        )


def _reading(source: SQLiteLeaseRecorder) -> str:
    return sqlite_uri(source.path, source.reach if source.read_only else Reach.READ)


def _open_file(path: Path, options: str, ledger_id: str) -> LeaseRecorder:
    return open_recorder(f"{sqlite_url(path)}{'?' if options else ''}{options}", ledger_id)


@contextlib.contextmanager
def new_ledger_file(target: Path) -> Iterator[Path]:
    """A file to fill, which gets the target's name when the block ends well, and goes away when it does not.

    Raises:
        LedgerStorageError: The target is there already, or cannot be written.
    """
    if os.path.lexists(target):
        raise LedgerStorageError(f"{one_line(target)} exists already; name a new file")
    unfinished = target.with_name(f".copying-{secrets.token_hex(4)}-{target.name}")
    try:
        yield unfinished
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        _give_name(unfinished, target)
    except (OSError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise LedgerStorageError(
            f"{one_line(target)} cannot be written: {reason}; free space or choose another folder"
        ) from error
    finally:
        for left_over in target.parent.glob(f"{glob.escape(unfinished.name)}*"):
            left_over.unlink(missing_ok=True)


def _give_name(unfinished: Path, target: Path) -> None:
    try:
        give_new_name(unfinished, target)
    except FileExistsError:
        raise LedgerStorageError(f"{one_line(target)} was made by somebody else meanwhile; name a new file") from None
    sync_folder(str(target.parent))
