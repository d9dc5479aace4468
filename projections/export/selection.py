"""Which events an export, or a report, is about."""

import heapq
from collections.abc import Iterator
from typing import Final

import msgspec

from ledger.events import EVENT_TYPES
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.reading import RecordedEvent

__all__ = ["EVERYTHING", "TAGS", "Selection", "selected"]

TAGS: Final = tuple(event_type.tag for event_type in EVENT_TYPES)
"""Every tag an event can carry."""

_MOST_MERGED: Final = 64


class Selection(msgspec.Struct, frozen=True):
    """Events chosen by lease, time and kind; every condition given has to hold.

    Attributes:
        keys: Only these leases; ``None`` for all.
        since_ms: Only events recorded at this time or after, epoch milliseconds on the writers' clocks.
        until_ms: Only events recorded at this time or before.
        tags: Only these kinds; ``None`` for all.

    Raises:
        ValueError: A tag is none that an event can carry.
    """

    keys: tuple[LeaseKey, ...] | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    tags: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for tag in self.tags or ():
            if tag not in TAGS:
                raise ValueError(f"no event carries the tag {tag!r}; the tags are {', '.join(TAGS)}")

    def holds(self, recorded: RecordedEvent) -> bool:
        """Whether an event is one of those chosen, its lease aside."""
        event = recorded.event
        return (
            (self.since_ms is None or event.at >= self.since_ms)
            and (self.until_ms is None or event.at <= self.until_ms)
            and (self.tags is None or event.tag in self.tags)
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
    return filter(selection.holds, _of_keys(ledger, selection.keys))


def _of_keys(ledger: LeaseLedger, keys: tuple[LeaseKey, ...] | None) -> Iterator[RecordedEvent]:
    if keys is None:
        return ledger.read_all()
    wanted = frozenset(keys)
    if len(wanted) <= _MOST_MERGED:
        return heapq.merge(*map(ledger.read, wanted), key=lambda recorded: recorded.position)
    return (recorded for recorded in ledger.read_all() if recorded.key in wanted)
