"""Backwards: who last changed a field of a lease, and by which event."""

from typing import Any, Final

import msgspec

from ledger.keys import LeaseKey
from ledger.reading import RecordedEvent
from ledger.state import LeaseState
from projections.time_travel.moments import When, resolve
from projections.time_travel.streams import Streams

__all__ = ["FIELDS", "Change", "changed_fields", "last_change"]

FIELDS: Final = tuple(name for name in LeaseState.__struct_fields__ if name != "version")
"""The fields of a lease's state that can be asked about. The version changes with every event."""

_PAGES: Final = (16, 64, 256, 512)


class Change(msgspec.Struct, frozen=True):
    """An event that changed a field.

    Attributes:
        field: The field.
        before: Its value before the event.
        after: Its value since.
        by: The event; it names who, when and why.
    """

    field: str
    before: Any
    after: Any
    by: RecordedEvent


def changed_fields(before: LeaseState, after: LeaseState) -> tuple[str, ...]:
    """The fields in which two states differ, the version left out."""
    return tuple(name for name in FIELDS if getattr(before, name) != getattr(after, name))


def last_change(streams: Streams, key: LeaseKey, field: str, when: When | None = None) -> Change | None:
    """The last event that changed a field, up to a moment; ``None`` when none ever did.

    Args:
        streams: Where the lease's events are.
        key: The lease.
        field: One of ``FIELDS``, such as ``expires_at``, ``generation`` or ``phase``.
        when: The moment; now by default.

    Raises:
        ValueError: There is no such field, or the moment is none.
        NoSuchMoment: The version is beyond the lease's last.
        CorruptHistory: The lease's events contradict each other.
        LedgerStorageError: The storage could not be read.
    """
    if field not in FIELDS:
        raise ValueError(f"a lease has no field {field!r}; it has {', '.join(FIELDS)}")
    upto = streams.last_version(key) if when is None else resolve(streams, key, when).version
    first, pages = streams.first_version(key), iter(_PAGES)
    size = next(pages)
    while upto >= first:
        after = max(upto - size, first - 1)
        found: Change | None = None
        for before, recorded, state in streams.steps(key, after, upto):
            was, became = getattr(before, field), getattr(state, field)
            if was != became:
                found = Change(field, was, became, recorded)
        if found is not None:
            return found
        upto, size = after, next(pages, size)
    return None
