"""CloudEvents 1.0.2 in structured JSON, one event a line.

``time`` is when it happened: the exchange, for a refresh recorded after a crash; else when it was recorded, which
``recordedtime`` always tells. ``causationid`` names the event that led to this one: the start of the refresh that
ended, or the event that a restore undoes. ``sequence`` is the position in the ledger, padded so that texts sort like
numbers.

``expirytime`` is left out unless asked for: by that extension's meaning, whatever stands between may drop an event once
the time has passed, and a history would lose the logins whose credentials have expired.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from ledger.events import LeaseAcquired, LeaseEvent, LeaseRefreshed, LeaseRefreshFailed, LeaseRestored
from ledger.lease_ledger import LeaseLedger
from ledger.reading import RecordedEvent
from projections.export.json_text import json_line
from projections.export.jsonl import event_fields
from projections.times import utc_text

__all__ = ["DATA_SCHEMA", "lines", "lines_with_expiry", "row"]

DATA_SCHEMA: Final = "urn:lease-ledger:schema:event:1"
"""Names the shape of ``data``: the event's fields as in the JSON lines export."""

_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def _happened_at(event: LeaseEvent) -> int:
    return event.refreshed_at * 1000 if isinstance(event, LeaseRefreshed) and event.recovered else event.at


def _caused_by(recorded: RecordedEvent, ledger: LeaseLedger) -> str | None:
    match recorded.event:
        case LeaseAcquired(attempt=attempt) | LeaseRefreshed(attempt=attempt) | LeaseRefreshFailed(attempt=attempt):
            return attempt
        case LeaseRestored(compensates=int(undone)):
            return next((found.event.id for found in ledger.read(recorded.key, undone - 1)), None)
        case _:
            return None


def _expiry(event: LeaseEvent) -> str | None:
    if isinstance(event, LeaseAcquired | LeaseRefreshed) and event.expires_at is not None:
        return utc_text(event.expires_at * 1000)
    return None


def row(recorded: RecordedEvent, ledger: LeaseLedger, *, expiry: bool = False) -> dict[str, Any]:
    """One event as a CloudEvent; with ``expiry`` also when the published credential expires."""
    event = recorded.event
    correlation = event.correlation_id or None
    traced = correlation is not None and _TRACEPARENT.fullmatch(correlation) is not None
    found: dict[str, Any] = {
        "specversion": "1.0",
        "id": event.id,
        "source": f"urn:lease-ledger:{ledger.ledger_id}",
        "type": event.tag,
        "subject": str(recorded.key),
        "time": utc_text(_happened_at(event)),
        "recordedtime": utc_text(event.at),
        "datacontenttype": "application/json",
        "dataschema": DATA_SCHEMA,
        "sequence": f"{recorded.position:020}",
        "correlationid": correlation,
        "causationid": _caused_by(recorded, ledger),
        "traceparent": correlation if traced else None,
        "expirytime": _expiry(event) if expiry else None,
        "data": {"key": str(recorded.key), "version": recorded.version, **event_fields(recorded)},
    }
    return {name: value for name, value in found.items() if value is not None}


def lines(events: Iterable[RecordedEvent], ledger: LeaseLedger) -> Iterator[str]:
    """The events as lines of CloudEvents."""
    for recorded in events:
        yield json_line(row(recorded, ledger))


def lines_with_expiry(events: Iterable[RecordedEvent], ledger: LeaseLedger) -> Iterator[str]:
    """The events as lines of CloudEvents that also tell when a published credential expires."""
    for recorded in events:
        yield json_line(row(recorded, ledger, expiry=True))
