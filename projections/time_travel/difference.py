"""The question "what changed between these two moments, and by which events?"."""

from typing import Any

import msgspec

from ledger.keys import LeaseKey
from ledger.reading import RecordedEvent
from ledger.state import LeaseState
from projections.time_travel.changes import changed_fields
from projections.time_travel.moments import When, resolve
from projections.time_travel.streams import Streams

__all__ = ["FieldChange", "LeaseDifference", "diff"]


class FieldChange(msgspec.Struct, frozen=True):
    """A field that differs between two moments.

    Attributes:
        field: Name of the field of the lease's state.
        before: Its value at the first moment.
        after: Its value at the second.
        versions: Every event in between that changed it, by stream version.
        by: The last of them in the order of the stream.
    """

    field: str
    before: Any
    after: Any
    versions: tuple[int, ...]
    by: RecordedEvent


class LeaseDifference(msgspec.Struct, frozen=True):
    """What changed on a lease between two moments.

    Attributes:
        key: The lease key as text.
        before_version: The stream version at the first moment.
        after_version: The stream version at the second. Smaller than the first when they were asked for backwards.
        before: The state at the first moment.
        after: The state at the second.
        changes: The fields that differ, in the order of the state.
        passing: Fields that changed in between and came back to what they were.
    """

    key: str
    before_version: int
    after_version: int
    before: LeaseState
    after: LeaseState
    changes: tuple[FieldChange, ...]
    passing: tuple[str, ...] = ()


def diff(streams: Streams, key: LeaseKey, a: When, b: When) -> LeaseDifference:
    """What changed on a lease from one moment to another, whichever is earlier.

    Args:
        streams: Where the lease's events are.
        key: The lease.
        a: The first moment: a version or a time.
        b: The second.

    Raises:
        ValueError: A version is negative, or a datetime names no time zone.
        NoSuchMoment: A version is beyond the lease's last.
        CorruptHistory: The lease's events contradict each other.
        LedgerStorageError: The storage could not be read.
    """
    from_version, to_version = resolve(streams, key, a).version, resolve(streams, key, b).version
    low, high = sorted((from_version, to_version))
    first = last = streams.state(key, low)
    versions: dict[str, list[int]] = {}
    by: dict[str, RecordedEvent] = {}
    for before, recorded, last in streams.steps(key, low, high):
        for name in changed_fields(before, last):
            versions.setdefault(name, []).append(recorded.version)
            by[name] = recorded
    before, after = (first, last) if from_version <= to_version else (last, first)
    differing = changed_fields(before, after)
    return LeaseDifference(
        key=str(key),
        before_version=from_version,
        after_version=to_version,
        before=before,
        after=after,
        changes=tuple(
            FieldChange(name, getattr(before, name), getattr(after, name), tuple(versions[name]), by[name])
            for name in differing
        ),
        passing=tuple(name for name in versions if name not in differing),
    )
