"""JSON lines: one object an event, with everything the event carries.

``position``, ``key``, ``version`` and ``tag`` say where the event stands and what it is; the other members are the
event's own fields, as :mod:`ledger.events` documents them. A field without a value is left out, except ``expires_at``
of a credential published: ``null`` says that it never expires. An integer greater than 2^53-1 is written as a string
of its digits, for many JSON readers round such numbers.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from ledger.events import LeaseAcquired, LeaseRefreshed, LeaseRestored
from ledger.lease_ledger import LeaseLedger
from ledger.reading import RecordedEvent
from projections.export.json_text import exact, json_line

__all__ = ["event_fields", "lines", "row"]


def event_fields(recorded: RecordedEvent) -> dict[str, Any]:
    """The event's own fields, integers exact; those without a value left out, ``expires_at`` as told above."""
    event = recorded.event
    fields: dict[str, Any] = msgspec.to_builtins(event)
    if isinstance(event, LeaseAcquired | LeaseRefreshed):
        fields["expires_at"] = event.expires_at
    elif isinstance(event, LeaseRestored) and event.snapshot.credential_present:
        fields["snapshot"]["expires_at"] = event.snapshot.expires_at
    exact_fields: dict[str, Any] = exact(fields)
    return exact_fields


def row(recorded: RecordedEvent) -> dict[str, Any]:
    """One event as an object."""
    return {
        "position": recorded.position,
        "key": str(recorded.key),
        "version": recorded.version,
        "tag": recorded.event.tag,
        **event_fields(recorded),
    }


def lines(events: Iterable[RecordedEvent], ledger: LeaseLedger) -> Iterator[str]:
    """The events as JSON lines."""
    del ledger
    for recorded in events:
        yield json_line(row(recorded))
