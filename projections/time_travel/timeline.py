"""The question "what happened, to whom, by whom, when?", over the whole ledger, page by page."""

from collections.abc import Iterable
from typing import Any, Final

import msgspec
from sqlite_utils import Database

from ledger.keys import LeaseKey
from projections.audit_schema import EVENTS, LEASES
from projections.history import WIDE_FIELDS, HistoryEntry
from projections.tags import full_tag
from projections.typed_rows import TypedRows
from projections.wide_integers import to_column

__all__ = ["DEFAULT_LIMIT", "Timeline", "TimelineEntry", "TimelineFilter", "as_texts", "timeline"]

DEFAULT_LIMIT: Final = 100


class TimelineEntry(HistoryEntry, frozen=True, omit_defaults=True, kw_only=True):
    """One event of a timeline: as in a lease's history, and whether a clock went back.

    Attributes:
        clock_back_ms: By how much it is dated before an event its lease recorded earlier: a clock went back.
    """

    clock_back_ms: int = 0


class Timeline(msgspec.Struct, frozen=True, omit_defaults=True):
    """One page of a timeline.

    Attributes:
        entries: The events, in the order they were recorded.
        next: The cursor to ask for the next page with; ``None`` when there is no more.
    """

    entries: tuple[TimelineEntry, ...]
    next: int | None = None


class TimelineFilter(msgspec.Struct, frozen=True):
    """What a timeline is about; ``None`` leaves a question open.

    Attributes:
        keys: Leases.
        actors: Who.
        tags: Kinds of event, such as ``lease.refreshed`` or ``refreshed``.
        correlation_id: What the events are filed under.
        since_ms: Epoch milliseconds. An event stands in time where its lease's running maximum had come with it.
        until_ms: Likewise, and inclusive: exactly the events that "at ``until_ms``" includes.

    Raises:
        ValueError: A tag is none that an event can carry.
    """

    keys: tuple[str, ...] | None = None
    actors: tuple[str, ...] | None = None
    tags: tuple[str, ...] | None = None
    correlation_id: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None

    def __post_init__(self) -> None:
        if self.tags is not None:
            msgspec.structs.force_setattr(self, "tags", tuple(full_tag(tag) for tag in self.tags))


_ROWS: Final = TypedRows(TimelineEntry, wide=(*WIDE_FIELDS, "clock_back_ms"))
_COLUMNS: Final = ", ".join(
    "running_at_ms" if name == "clock_back_ms" else name for name in TimelineEntry.__struct_fields__
)

_FIRST_SINCE: Final = f"""
    SELECT MIN((SELECT position FROM {EVENTS} WHERE key = l.key AND running_at_ms >= ?
        ORDER BY running_at_ms, position LIMIT 1)) FROM {LEASES} AS l"""  # noqa: S608  # constants only
_LAST_UNTIL: Final = f"""
    SELECT MAX((SELECT position FROM {EVENTS} WHERE key = l.key AND running_at_ms <= ?
        ORDER BY running_at_ms DESC, position DESC LIMIT 1)) FROM {LEASES} AS l"""  # noqa: S608


def as_texts(values: Iterable[LeaseKey | str] | None) -> tuple[str, ...] | None:
    """Values to filter by, as the audit file holds them."""
    return None if values is None else tuple(sorted({str(value) for value in values}))


def timeline(db: Database, wanted: TimelineFilter, after: int = 0, limit: int = DEFAULT_LIMIT) -> Timeline:
    """The events that answer a filter, in the order they were recorded, one page of them.

    Args:
        db: A caught-up audit file, in a read transaction.
        wanted: What the timeline is about.
        after: The cursor of the page before; 0 for the first page. It is a log position.
        limit: The most events in the page.

    Raises:
        ValueError: ``after`` is negative, or ``limit`` not positive.
    """
    if after < 0:
        raise ValueError(f"a cursor is a log position, not {after}")
    if limit < 1:
        raise ValueError(f"a page holds at least one event, not {limit}")
    conditions, values = _conditions(db, wanted, after)
    query = f"SELECT {_COLUMNS} FROM {EVENTS} WHERE {conditions} ORDER BY position LIMIT ?"  # noqa: S608
    found = _ROWS.read(db.execute(query, (*values, limit + 1)).fetchall())
    page = tuple(msgspec.structs.replace(row, clock_back_ms=row.clock_back_ms - row.at_ms) for row in found[:limit])
    return Timeline(page, page[-1].position if len(found) > limit else None)


def _conditions(db: Database, wanted: TimelineFilter, after: int) -> tuple[str, list[Any]]:
    terms: list[str] = ["position > ?"]
    values: list[Any] = [after]
    for column, chosen in (("key", wanted.keys), ("actor", wanted.actors), ("tag", wanted.tags)):
        if chosen is not None:
            terms.append(f"{column} IN ({', '.join('?' * len(chosen))})")
            values += chosen
    if wanted.correlation_id is not None:
        terms.append("correlation_id = ?")
        values.append(wanted.correlation_id)
    # Events come in roughly the order of their times. For the whole ledger, one seek in each lease finds the stretch
    # of the log that can hold an answer.
    for bound, operator, seek in ((wanted.since_ms, ">=", _FIRST_SINCE), (wanted.until_ms, "<=", _LAST_UNTIL)):
        if bound is None:
            continue
        terms.append(f"running_at_ms {operator} ?")
        values.append(to_column(bound))
        if wanted.keys is None:
            ((edge,),) = db.execute(seek, (to_column(bound),)).fetchall()
            terms.append(f"position {operator} ?")
            values.append(edge)
    return " AND ".join(terms), values
