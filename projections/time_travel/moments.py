"""Naming a moment of a lease's life: a stream version, or a time."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, assert_never

import msgspec

from ledger.errors import LeaseLedgerError
from ledger.keys import LeaseKey

if TYPE_CHECKING:
    from projections.time_travel.streams import Streams

__all__ = ["At", "NoSuchMoment", "When", "resolve", "running_maximum", "utc"]


class At(msgspec.Struct, frozen=True):
    """A time, epoch milliseconds."""

    at_ms: int


When = int | At | datetime
"""A moment: an integer is a stream version, a datetime with a time zone or an ``At`` is a time."""


class NoSuchMoment(LeaseLedgerError, LookupError):
    """The lease has no such version.

    Attributes:
        key: The lease.
        version: The version asked for.
        last: The lease's last version; 0 when nothing ever happened to it.
    """

    def __init__(self, key: LeaseKey, version: int, last: int) -> None:
        super().__init__(key, version, last)
        self.key = key
        self.version = version
        self.last = last

    def __str__(self) -> str:
        if not self.last:
            return f"{self.key} has no events"
        return f"{self.key} has no version {self.version}; its last is {self.last}"


def resolve(streams: "Streams", key: LeaseKey, when: When) -> int:
    """The stream version that a moment means; 0 is the moment before the first event.

    Raises:
        ValueError: A version is negative, or a datetime names no time zone.
        NoSuchMoment: The version is beyond the lease's last.
    """
    match when:
        case At(at_ms):
            return streams.version_at(key, at_ms)
        case datetime():
            if when.tzinfo is None:
                raise ValueError("a time needs a time zone: say datetime(..., tzinfo=UTC)")
            return streams.version_at(key, (when - datetime.fromtimestamp(0, UTC)) // _MILLISECOND)
        case int():
            if when < 0:
                raise ValueError(f"a version counts from 0, the moment before the first event; {when} is none")
            last = streams.last_version(key)
            if when > last:
                raise NoSuchMoment(key, when, last)
            return when
        case _:
            assert_never(when)


_MILLISECOND = datetime.fromtimestamp(0.001, UTC) - datetime.fromtimestamp(0, UTC)


def running_maximum(times_ms: Iterable[int]) -> int | None:
    """The greatest of the times so far; ``None`` when there are none."""
    return max(times_ms, default=None)


def utc(at_ms: int | None) -> str | None:
    """A time for people, to the millisecond; ``None`` for none, and beyond the calendar."""
    if at_ms is None:
        return None
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return None
