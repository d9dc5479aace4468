"""Which events an export, or a report, is about."""

import heapq
from collections.abc import Iterator
from typing import Final

import msgspec

from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.reading import RecordedEvent
from projections.tags import TAGS, full_tag

__all__ = ["EVERYTHING", "TAGS", "Selection", "of_keys", "selected"]

_MOST_MERGED: Final = 64


class Selection(msgspec.Struct, frozen=True):
    """Events chosen by lease, time and kind; every condition given has to hold.

    Attributes:
        keys: Only these leases; ``None`` for all.
        since_ms: Epoch milliseconds. An event stands in time where its lease's running maximum had come with it, so
            that a clock that went back takes no event out of its order.
        until_ms: Likewise, and inclusive.
        tags: Only these kinds, such as ``lease.refreshed`` or ``refreshed``; ``None`` for all.

    Raises:
        ValueError: A tag is none that an event can carry.
    """

    keys: tuple[LeaseKey, ...] | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    tags: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.tags is not None:
            msgspec.structs.force_setattr(self, "tags", tuple(full_tag(tag) for tag in self.tags))

    def spans(self, running_at_ms: int) -> bool:
        """Whether that moment of a lease's life lies in the time chosen."""
        return (self.since_ms is None or running_at_ms >= self.since_ms) and (
            self.until_ms is None or running_at_ms <= self.until_ms
        )


EVERYTHING: Final = Selection()
"""All events of all leases."""


def selected(ledger: LeaseLedger, selection: Selection = EVERYTHING) -> Iterator[RecordedEvent]:
    """The chosen events in the order of the log, read page by page.

    Raises:
        CorruptHistory: An event cannot be read.
        UnknownEventTag: A newer version wrote one of them.
        LedgerStorageError: The ledger cannot be read.
    """
    events = of_keys(ledger, selection.keys)
    if selection.since_ms is not None or selection.until_ms is not None:
        events = _in_time(events, selection)
    if selection.tags is None:
        return events
    tags = frozenset(selection.tags)
    return (recorded for recorded in events if recorded.event.tag in tags)


def of_keys(ledger: LeaseLedger, keys: tuple[LeaseKey, ...] | None) -> Iterator[RecordedEvent]:
    """All events of these leases, or of all, in the order of the log; raises as :func:`selected`."""
    if keys is None:
        return ledger.read_all()
    wanted = frozenset(keys)
    if len(wanted) <= _MOST_MERGED:
        return heapq.merge(*map(ledger.read, wanted), key=lambda recorded: recorded.position)
    return (recorded for recorded in ledger.read_all() if recorded.key in wanted)


def _in_time(events: Iterator[RecordedEvent], selection: Selection) -> Iterator[RecordedEvent]:
    running: dict[LeaseKey, int] = {}
    for recorded in events:
        key, at = recorded.key, recorded.event.at
        running[key] = max(running.get(key, at), at)
        if selection.spans(running[key]):
            yield recorded
