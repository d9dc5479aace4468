"""What is wrong with a SQLite ledger's file itself, below the events: schema, settings, identity, pages, indexes.

Nothing here trusts another part of the file: the schema is compared to the last letter with what this version writes,
and the table of events is read once by itself and once through its index, for a changed byte in an index makes events
vanish from answers though the table holds them.
"""

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from ledger.recorders.base import Defect
from ledger.recorders.schema import APPLICATION_ID, EVENTS_INDEX, FORMAT, SCHEMA, TRIGGERS
from ledger.recorders.sqlite_errors import DAMAGE

__all__ = ["find_defects"]

MOST_EACH: Final = 10
"""Defects told of each kind: who has more than that has a damaged file, not a list to work through."""

_TABLES: Final = ("stored_events", "stored_folds", "ledger_meta", "sqlite_schema")
_EVENT: Final = "rowid, originator_id, originator_version"
_BY_TABLE: Final = f"SELECT {_EVENT} FROM stored_events NOT INDEXED"  # noqa: S608  # constants of this module
_BY_INDEX: Final = f"SELECT {_EVENT} FROM stored_events INDEXED BY {EVENTS_INDEX}"  # noqa: S608
_OBJECTS: Final = "SELECT type, name, tbl_name, sql FROM sqlite_schema"

_Objects = dict[tuple[str, str], tuple[str, str | None]]


def find_defects(connection: sqlite3.Connection, ledger_id: str) -> list[Defect]:
    """Everything wrong with the file, as far as it can be read.

    Args:
        connection: A connection of the caller's that nobody else uses; its way of decoding text is changed.
        ledger_id: The id that the ledger was opened with.
    """
    connection.text_factory = _decode_whatever
    return [
        *_tried(lambda: _schema_defects(connection), "the schema"),
        *_tried(lambda: _setting_defects(connection), "the file's header"),
        *_tried(lambda: _meta_defects(connection, ledger_id), "ledger_meta"),
        *_tried(lambda: _page_defects(connection), "the file"),
        *_tried(lambda: _index_defects(connection), EVENTS_INDEX),
        *_tried(lambda: _position_defects(connection), "stored_events"),
    ]


def _decode_whatever(text: bytes) -> str:
    return text.decode(errors="backslashreplace")


def _tried(check: Callable[[], Iterable[Defect]], name: str) -> Iterator[Defect]:
    try:
        yield from check()
    except DAMAGE as error:
        yield Defect(f"{name} cannot be read: {error}", name)


def _objects(connection: sqlite3.Connection) -> _Objects:
    return {(kind, name): (table, sql) for kind, name, table, sql in connection.execute(_OBJECTS)}


def _expected_objects() -> _Objects:
    # Asked of SQLite itself, which stores statements without what surrounds them, and names indexes of its own.
    with contextlib.closing(sqlite3.connect(":memory:")) as model:
        for statement in (*SCHEMA, *TRIGGERS.values()):
            model.execute(statement)
        return _objects(model)


def _schema_defects(connection: sqlite3.Connection) -> Iterator[Defect]:
    stored, expected = _objects(connection), _expected_objects()
    for (kind, name), definition in expected.items():
        guard = "guard trigger" if kind == "trigger" else kind
        consequence = ": the file was not append-only" if kind == "trigger" else ""
        if (kind, name) not in stored:
            yield Defect(f"the {guard} {name} is missing{consequence}", name)
        elif stored[kind, name] != definition:
            yield Defect(f"the {guard} {name} is altered{consequence}", name)
    for kind, name in sorted(stored.keys() - expected.keys(), key=str):
        yield Defect(f"the {kind} {name} is none of a ledger's: it may change what is recorded or answered", name)


def _setting_defects(connection: sqlite3.Connection) -> Iterator[Defect]:
    for name, expected in (("application_id", APPLICATION_ID), ("user_version", 0)):
        ((stored,),) = connection.execute(f"PRAGMA {name}").fetchall()
        if stored != expected:
            yield Defect(f"{name} in the file's header is {stored}, not {expected}", name)


def _meta_defects(connection: sqlite3.Connection, ledger_id: str) -> Iterator[Defect]:
    rows = connection.execute("SELECT ledger_id, format, lowest_reader FROM ledger_meta").fetchmany(2)
    if len(rows) != 1:
        yield Defect(f"ledger_meta holds {'more than one row' if rows else 'no row'} instead of one", "ledger_meta")
    for row in rows[:1]:
        names = ("ledger_meta.ledger_id", "ledger_meta.format", "ledger_meta.lowest_reader")
        for name, stored, expected in zip(names, row, (ledger_id, FORMAT, FORMAT), strict=True):
            if type(stored) is not type(expected) or stored != expected:
                yield Defect(f"{name} is {stored!r}, not {expected!r}", name)


def _page_defects(connection: sqlite3.Connection) -> Iterator[Defect]:
    if _integrity(connection, "1") == []:
        return
    told: set[str] = set()
    for table in _TABLES:
        with contextlib.suppress(*DAMAGE):
            for line in _integrity(connection, table)[:MOST_EACH]:
                told.add(line)
                yield Defect(f"the pages of {table} or of its index are damaged: {line}", table)
    for line in _integrity(connection, str(MOST_EACH)):
        if line not in told:
            yield Defect(f"the file is damaged: {line}")


def _integrity(connection: sqlite3.Connection, of: str) -> list[str]:
    found = [text for (text,) in connection.execute(f"PRAGMA integrity_check({of})")]
    lines = [line for text in found for line in text.splitlines() if not line.startswith("***")]
    return [] if found == ["ok"] else lines


def _index_defects(connection: sqlite3.Connection) -> Iterator[Defect]:
    advice = f"keep a copy of the file, then run REINDEX {EVENTS_INDEX} on it"
    for position, key, version in _differing(connection, _BY_TABLE, _BY_INDEX):
        detail = f"the index {EVENTS_INDEX} leaves this event out, so answers about its lease do: {advice}"
        yield _of_event(detail, EVENTS_INDEX, position, key, version)
    for position, key, version in _differing(connection, _BY_INDEX, _BY_TABLE):
        detail = f"the index {EVENTS_INDEX} leads to an event that is not there: {advice}"
        yield _of_event(detail, EVENTS_INDEX, position, key, version)


def _differing(connection: sqlite3.Connection, here: str, not_there: str) -> list[tuple[Any, Any, Any]]:
    return connection.execute(f"{here} EXCEPT {not_there} LIMIT {MOST_EACH}").fetchall()


def _position_defects(connection: sqlite3.Connection) -> Iterator[Defect]:
    query = f"{_BY_TABLE} WHERE rowid < 1 LIMIT {MOST_EACH}"
    for position, key, version in connection.execute(query).fetchall():
        detail = f"an event stands at position {position}, before the first: whoever reads the whole log misses it"
        yield _of_event(detail, "stored_events", position, key, version)


def _of_event(detail: str, name: str, position: object, key: object, version: object) -> Defect:
    return Defect(
        detail,
        name,
        position if isinstance(position, int) else None,
        key if isinstance(key, str) else None,
        version if isinstance(version, int) else None,
    )
