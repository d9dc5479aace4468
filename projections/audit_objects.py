"""What lies in an audit file, held against what this version writes: tables, indexes, views, triggers, to the letter.

A replaced view or one more trigger changes answers without changing a row. SQLite itself is asked how it stores the
statements, and what becomes of them when a rebuild renames its tables.
"""

import contextlib
import re
import sqlite3
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from typing import Final, NamedTuple

from sqlite_utils import Database

from projections.audit_schema import (
    EVENTS,
    LEASES,
    SET_ASIDE,
    SHADOW_EVENTS,
    SHADOW_LEASES,
    create_read_model,
    create_tables,
    drop_indexes,
)

__all__ = [
    "EVIDENCE_FORMS",
    "Alteration",
    "alterations",
    "can_be_evidence",
    "drop_foreign",
    "drop_lost_evidence",
    "evidence_form",
    "evidence_tables",
    "has_present_form",
    "is_as_made",
    "set_aside_table",
]

_OF_SQLITE: Final = frozenset({"sqlite_sequence", "sqlite_stat1", "sqlite_stat4"})
"""What SQLite makes for itself, which changes no answer."""

_SET_ASIDE_TABLE: Final = re.compile(rf"{SET_ASIDE}_[1-9][0-9]*_events")

EVIDENCE_FORMS: Final = frozenset(
    {
        "508bb94dc6a81c5ce04d684a1690e13c2463dd446201d74b50e15a7e93536c74",
        "2b8dcc1d9e948e4fe6e3eedf622f8a58c6f5fdca45f3c659a741361649880f9a",
    }
)
"""Digests of the statements that make a table of events, in every version that may have set one aside."""

_Place = tuple[str, str]
_Objects = dict[_Place, tuple[str, str | None]]


class Alteration(NamedTuple):
    """An object that is missing, changed, or none of an audit file's.

    Attributes:
        kind: ``table``, ``index``, ``view`` or ``trigger``.
        name: Its name.
        detail: What is wrong with it: a sentence that begins with kind and name.
    """

    kind: str
    name: str
    detail: str


def set_aside_table(number: int) -> str:
    """The table that keeps the events of contents that were set aside."""
    return f"{SET_ASIDE}_{number}_events"


def alterations(connection: sqlite3.Connection) -> list[Alteration]:
    """Everything in which the file's objects differ from those that this version makes."""
    return list(_alterations(_objects(connection)))


def can_be_evidence(connection: sqlite3.Connection) -> bool:
    """Whether the events in the file are a table that some version made."""
    _, sql = _objects(connection).get(("table", EVENTS), ("", None))
    return evidence_form(EVENTS, sql) in EVIDENCE_FORMS


def is_as_made(connection: sqlite3.Connection, table: str) -> bool:
    """Whether a table is one that this version makes."""
    return _objects(connection).get(("table", table)) in _forms()["table", table]


def has_present_form(connection: sqlite3.Connection, table: str) -> bool:
    """Whether a table of events has the columns that this version gives it."""
    with _model() as db:
        present = evidence_form(EVENTS, _objects(db.conn)["table", EVENTS][1])
    _, sql = _objects(connection).get(("table", table), ("", None))
    return evidence_form(table, sql) == present


def evidence_tables(connection: sqlite3.Connection) -> frozenset[str]:
    """The tables of events that were set aside."""
    return frozenset(
        name
        for (kind, name), (_, sql) in _objects(connection).items()
        if kind == "table" and _SET_ASIDE_TABLE.fullmatch(name) and evidence_form(name, sql) in EVIDENCE_FORMS
    )


def drop_foreign(db: Database) -> None:
    """Drop indexes, views, and whatever is none of an audit file's: nothing of it may live on in a rebuilt one.

    The tables of events and leases stay, whatever they are. Of the others only those stay that are as they should be.
    """
    altered = {(found.kind, found.name) for found in alterations(db.conn)}
    for kind in ("trigger", "view", "index", "table"):
        for stored_kind, name in list(_objects(db.conn)):
            unmade = kind == "table" and ((kind, name) not in altered or name in (EVENTS, LEASES))
            if stored_kind == kind and not unmade and not name.startswith("sqlite_"):
                quoted = name.replace('"', '""')
                db.execute(f'DROP {kind.upper()} IF EXISTS "{quoted}"')


def drop_lost_evidence(db: Database) -> None:
    """Drop events that were set aside and are not accounted for any more."""
    try:
        listed = {name for (name,) in db.execute(f"SELECT events_table FROM {SET_ASIDE}").fetchall()}  # noqa: S608
    except sqlite3.OperationalError:
        listed = set()
    kept = {name for kind, name in _objects(db.conn) if kind == "table" and _SET_ASIDE_TABLE.fullmatch(name)}
    for name in kept - listed:
        db.execute(f"DROP TABLE {name}")
    for name in listed - kept:
        db.execute(f"DELETE FROM {SET_ASIDE} WHERE events_table IS ?", (name,))  # noqa: S608


def _alterations(stored: _Objects) -> Iterator[Alteration]:
    for place, forms in _forms().items():
        if place not in stored:
            yield _altered(place, "is missing")
        elif stored[place] not in forms:
            yield _altered(place, "is not as this version writes it")
    for place, (_, sql) in stored.items():
        if place not in _forms() and not _belongs(place, sql):
            yield _altered(place, "is none of an audit file's")


def evidence_form(name: str, sql: str | None) -> str:
    """Digest of the statement that made a table of events, whatever the table is called."""
    return sha256((sql or "").replace(f'"{name}"', name, 1).replace(name, EVENTS, 1).encode()).hexdigest()


def _altered(place: _Place, what: str) -> Alteration:
    kind, name = place
    return Alteration(kind, name, f"the {kind} {name} {what}")


def _belongs(place: _Place, sql: str | None) -> bool:
    kind, name = place
    if kind != "table":
        return False
    if _SET_ASIDE_TABLE.fullmatch(name):
        return evidence_form(name, sql) in EVIDENCE_FORMS
    return name in _OF_SQLITE or (name, sql) in _shadows()


def _objects(connection: sqlite3.Connection) -> _Objects:
    found = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema").fetchall()
    return {(kind, name): (table, sql) for kind, name, table, sql in found}


@cache
def _forms() -> dict[_Place, frozenset[tuple[str, str | None]]]:
    """Each object of an audit file, as it is when the file is made and after a rebuild."""
    with _model() as db:
        made = _objects(db.conn)
    with _model() as db:
        drop_indexes(db)
        for table, shadow in ((EVENTS, SHADOW_EVENTS), (LEASES, SHADOW_LEASES)):
            db.rename_table(table, shadow)
            db.rename_table(shadow, table)
        rebuilt = _objects(db.conn)
    return {place: frozenset({as_made, rebuilt.get(place, as_made)}) for place, as_made in made.items()}


@cache
def _shadows() -> frozenset[tuple[str, str | None]]:
    """The tables that a killed rebuild leaves."""
    with _model() as db:
        create_read_model(db, SHADOW_EVENTS, SHADOW_LEASES)
        objects = _objects(db.conn)
    return frozenset((name, objects["table", name][1]) for name in (SHADOW_EVENTS, SHADOW_LEASES))


@contextlib.contextmanager
def _model() -> Iterator[Database]:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        db = Database(connection, execute_plugins=False)
        create_tables(db)
        yield db
