"""Whether a SQLite file and the write-ahead log beside it belong together.

A backup copied over a ledger whose log is still there is a file of one moment under the log of another: SQLite lays the
log's pages over it without a question, and events are undone, brought back or mixed. Nothing in the two files names the
other, so what a ledger promises is compared instead: it only ever grows, so the file alone holds an earlier state of
the very ledger that file and log are together.

What is seen: another ledger's file, one that is no database or was emptied; a file whose last event is not the same
in both, or is later than the log; an event of the log that is not there; events after the file's last that are missing
from the table or its index, or that no chain of this ledger leads to; a file that a backup wrote, if the log changed
the schema's page (SQLite counts the schema's changes anew in a backup).

What cannot be seen: a copy of this very ledger taken after the log was begun. The log then leads from it to the latest
event, and nothing is lost or mixed; that the copy was meant to undo something is what no file says. What else a copy
may have mixed, in the index of old events, ``verify`` finds.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote

import msgspec

from ledger.chain import event_digest, genesis_digest
from ledger.errors import LedgerStorageError
from ledger.one_line import one_line
from ledger.recorders.sqlite_log import Leaf, LogEnd, end_of_log, verified_end_of_log

__all__ = ["refuse_unfitting_log"]

_LOOKS: Final = 3
_BETWEEN_LOOKS_S: Final = 0.025
"""Longer than the steps in which file systems count time."""

_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_CHAIN_LOOKS: Final = 3
_UNLIKE_ANY_OTHER_BYTES: Final = 100
"""So much of an event's text, which begins with its id, always lies on the page of its row."""

_SETTLED_AFTER_S: Final = 5.0
"""When a log was not written for this long, nobody is in the middle of its last transaction."""

_LAST: Final = "SELECT rowid, originator_id, originator_version FROM stored_events ORDER BY rowid DESC LIMIT 1"
_FOUND: Final = """
    SELECT COUNT(*) FROM stored_events AS listed WHERE rowid > ? AND EXISTS (
        SELECT 1 FROM stored_events AS found WHERE found.originator_id = listed.originator_id
            AND found.originator_version = listed.originator_version)"""
_BODY: Final = "SELECT CAST(state AS BLOB) FROM stored_events WHERE rowid = ?"
_CHAINED: Final = """
    SELECT originator_id, originator_version, CAST(state AS BLOB) FROM stored_events
    WHERE rowid > ? ORDER BY rowid DESC LIMIT ?"""
_BEFORE: Final = """
    SELECT topic, CAST(state AS BLOB) FROM stored_events WHERE originator_id = ? AND originator_version = ?"""


class _Linked(msgspec.Struct):
    """What every event says of the one before it in its stream."""

    prev: str


class _State(NamedTuple):
    """What a file says of itself, with or without its log."""

    schema_changes: int
    schema: Sequence[tuple[str, str, str | None]]
    ledger_id: str | None
    last: tuple[int, str, int] | None


def refuse_unfitting_log(path: Path) -> bool:
    """Compare the file at a path with what it is together with its log. Writes nothing, and leaves both as they are.

    Others may write and move the log's pages into the file meanwhile: what does not fit counts only when it is seen
    twice and nobody touched the file in between.

    Args:
        path: The ledger's file, without links.

    Returns:
        Whether they fit; otherwise others were too busy to tell.

    Raises:
        LedgerStorageError: They do not belong together; the message says what to do.
    """
    seen: tuple[int, ...] | None = None
    for _ in range(_LOOKS):
        touched = _touched(path)
        misfit = _misfit(path)
        if misfit is None:
            return True
        if touched is not None and touched == seen == _touched(path):
            raise LedgerStorageError(
                f"ledger {one_line(path)}: the file and its write-ahead log do not belong together: {misfit}; they are "
                "damaged, or a copy was put in the file's place while the log was there. Nothing was changed: stop "
                f"what uses the ledger and keep all its files aside; then remove {one_line(path.name)}-wal and "
                f"{one_line(path.name)}-shm to go on with the copy, or put the former file back"
            )
        seen = touched
        time.sleep(_BETWEEN_LOOKS_S)
    return False


def _touched(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _misfit(path: Path) -> str | None:
    """What does not fit; ``None`` when all does, or when something else is wrong that the caller will meet anyway."""
    try:
        # SQLite itself would remove the log of an empty file, even for a reader.
        if path.stat().st_size == 0:
            return "the file is empty"
        alone = _state_alone(path)
        # In this order: what is found later may only be more.
        end = _settled(path, end_of_log(path))
        with _connected(path, "mode=ro") as connection:
            connection.execute("BEGIN")
            together = _state_of(connection)
            if together.ledger_id is None:
                return None
            return (
                _contradiction(alone, together)
                or _unlogged(path, connection, alone, end)
                or _missing(connection, alone, together)
            )
    except OSError:
        return None
    except sqlite3.Error as error:
        return "pages of both contradict each other" if _is_damage(error) else None


def _state_alone(path: Path) -> _State | None:
    """The state of the file alone; ``None`` when it is none, which an interrupted checkpoint leaves too.

    Raises:
        sqlite3.DatabaseError: It is no database at all.
    """
    try:
        with _connected(path, "immutable=1") as connection:
            return _state_of(connection)
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_NOTADB:
            raise
        return None


@contextlib.contextmanager
def _connected(path: Path, how: str) -> Iterator[sqlite3.Connection]:
    # Read-only connections: the last other one to be closed would move the log's pages into the file.
    connection = sqlite3.connect(
        f"file:{quote(os.fsencode(path))}?{how}", uri=True, timeout=_LOOKS, isolation_level=None
    )
    try:
        yield connection
    finally:
        connection.close()


def _state_of(connection: sqlite3.Connection) -> _State:
    schema = connection.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY rowid").fetchall()
    ((changes,),) = connection.execute("PRAGMA schema_version").fetchall()
    if not {("table", "ledger_meta"), ("table", "stored_events")} <= {(kind, name) for kind, name, _ in schema}:
        return _State(changes, schema, None, None)
    ids = connection.execute("SELECT ledger_id FROM ledger_meta LIMIT 1").fetchall()
    return _State(changes, schema, ids[0][0] if ids else None, connection.execute(_LAST).fetchone())


def _contradiction(alone: _State | None, together: _State) -> str | None:
    if alone is None or alone.ledger_id is None:
        return None
    if alone.ledger_id != together.ledger_id:
        return f"the file is of ledger {alone.ledger_id}, the log of {together.ledger_id}"
    # One change more is what VACUUM makes; schema texts differ where a later version added to them.
    if alone.schema == together.schema and abs(alone.schema_changes - together.schema_changes) > 1:
        return "the file was written by a backup"
    return None


def _settled(path: Path, end: LogEnd) -> LogEnd:
    """The same, with its last transaction as one that everybody sees, when it is."""
    try:
        idle_s = time.time() - Path(f"{path}-wal").stat().st_mtime
    except OSError:
        return end
    return end._replace(published=end.last) if idle_s > _SETTLED_AFTER_S else end


def _unlogged(path: Path, connection: sqlite3.Connection, alone: _State | None, end: LogEnd) -> str | None:
    """What of the log is not there."""
    if _unseen(path, connection, alone, end.published) is None:
        return None
    # A power loss may have torn the end of the log.
    return _unseen(path, connection, alone, _settled(path, verified_end_of_log(path)).published)


def _unseen(path: Path, connection: sqlite3.Connection, alone: _State | None, logged: Leaf | None) -> str | None:
    if logged is None:
        return None
    if not _is_on(logged, connection):
        return f"event {logged.last} of the log is not there"
    if alone is not None and alone.last is not None and alone.last[0] >= logged.last:
        with _connected(path, "immutable=1") as connection_alone:
            if not _is_on(logged, connection_alone):
                return f"event {logged.last} is another one in each"
    return None


def _is_on(logged: Leaf, connection: sqlite3.Connection) -> bool:
    found = connection.execute(_BODY, (logged.last,)).fetchone()
    return found is not None and bytes(found[0] or b"")[:_UNLIKE_ANY_OTHER_BYTES] in logged.page


def _missing(connection: sqlite3.Connection, alone: _State | None, together: _State) -> str | None:
    after = alone.last[0] if alone is not None and alone.last is not None else 0
    until = together.last[0] if together.last is not None else 0
    if alone is not None and alone.last is not None:
        same = connection.execute(
            "SELECT rowid, originator_id, originator_version FROM stored_events WHERE rowid = ?", (after,)
        ).fetchone()
        if same != alone.last:
            return f"event {after} of the file is not there, or another one"
    ((found,),) = connection.execute(_FOUND, (after,)).fetchall()
    if found != until - after:
        return f"of the {until - after} events after event {after} only {found} are in their place"
    linked = connection.execute(_CHAINED, (after, _CHAIN_LOOKS)).fetchall()
    if linked and not any(_follows(connection, str(together.ledger_id), *row) for row in linked):
        return f"event {until} is none of ledger {together.ledger_id}"
    return None


def _follows(connection: sqlite3.Connection, ledger_id: str, stream: object, version: object, body: object) -> bool:
    # What is no event of ours says nothing here; reading it is what fails.
    if not (isinstance(stream, str) and isinstance(version, int) and isinstance(body, bytes)):
        return True
    try:
        named = msgspec.json.decode(body, type=_Linked).prev
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return True
    if version == 1:
        return named == genesis_digest(ledger_id, stream)
    tag, before = connection.execute(_BEFORE, (stream, version - 1)).fetchone() or (None, None)
    if not (isinstance(tag, str) and isinstance(before, bytes)):
        return False
    return named == event_digest(ledger_id, stream, version - 1, tag, before)


def _is_damage(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED
