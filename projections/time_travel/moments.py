"""Naming a moment of a lease's life: a stream version, or a time."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple, assert_never

import msgspec

from ledger.errors import LeaseLedgerError
from ledger.keys import LeaseKey
from projections.time_travel.streams import Streams

__all__ = ["At", "Moment", "NoSuchMoment", "When", "as_ms", "chosen", "resolve"]

_EPOCH = datetime.fromtimestamp(0, UTC)


class At(msgspec.Struct, frozen=True):
    """A time, epoch milliseconds."""

    at_ms: int


When = int | At | datetime
"""A moment: an integer is a stream version, a datetime with a time zone or an ``At`` is a time."""


class Moment(NamedTuple):
    """What a moment means for one lease.

    Attributes:
        version: The stream version then; 0 before the first event.
        at_ms: The time asked for, if a time was.
    """

    version: int
    at_ms: int | None


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


def resolve(streams: Streams, key: LeaseKey, when: When) -> Moment:
    """What a moment means for a lease.

    Raises:
        ValueError: A version is negative, or a datetime names no time zone.
        NoSuchMoment: The version is beyond the lease's last.
    """
    match when:
        case At(at_ms):
            return Moment(streams.times.version_at(key, at_ms), at_ms)
        case datetime():
            return resolve(streams, key, At(as_ms(when)))
        case int():
            if when < 0:
                raise ValueError(f"a version counts from 0, the moment before the first event; {when} is none")
            last = streams.last_version(key)
            if when > last:
                raise NoSuchMoment(key, when, last)
            return Moment(when, None)
        case _:
            assert_never(when)


def chosen(version: int | None, at: int | datetime | None) -> When | None:
    """The moment that a pair of options names: a stream version, or a time as epoch milliseconds or a datetime.

    Raises:
        ValueError: Both are given.
    """
    if version is not None and at is not None:
        raise ValueError("give a version or a time, not both")
    if at is None:
        return version
    return at if isinstance(at, datetime) else At(at)


def as_ms(at: int | datetime) -> int:
    """A time as epoch milliseconds.

    Raises:
        ValueError: A datetime names no time zone.
    """
    if not isinstance(at, datetime):
        return at
    if at.tzinfo is None:
        raise ValueError("a time needs a time zone, such as datetime(2025, 1, 31, tzinfo=UTC)")
    return (at - _EPOCH) // timedelta(milliseconds=1)
