"""How the commands about moments and incidents show leases, events and values to people."""

from collections.abc import Iterable
from typing import Any

import msgspec

from ledger.keys import LeaseKey
from ledger.reading import RecordedEvent
from ledger.state import LeaseState
from projections.answers import to_plain
from projections.audit_rows import summary as summary_of
from projections.cli.output import Cell, styled
from projections.cli.terminal import write_json, write_line
from projections.time_travel.changes import FIELDS
from projections.times import utc_from_ms, utc_from_s

__all__ = ["EVENT_HEADINGS", "emit", "event_row", "key_list", "say", "state_rows", "summary", "value_text"]

EVENT_HEADINGS = ("position", "key", "version", "at", "what", "actor", "cause")


def emit(answer: msgspec.Struct) -> None:
    """One JSON object on standard output."""
    write_json(to_plain(answer))


def say(text: str) -> None:
    """A line for people."""
    write_line(text)


def summary(recorded: RecordedEvent) -> str:
    """An event in a few words."""
    return summary_of(recorded.event)


def event_row(recorded: RecordedEvent) -> tuple[str, ...]:
    """An event under ``EVENT_HEADINGS``."""
    return (
        str(recorded.position),
        str(recorded.key),
        str(recorded.version),
        utc_from_ms(recorded.event.at),
        summary(recorded),
        recorded.event.actor,
        recorded.event.cause or "",
    )


def value_text(field: str, value: Any) -> str:
    """The value of a field of a lease's state."""
    if field == "expires_at":
        return utc_from_s(value)
    if value is None:
        return "none"
    if field in ("published_at", "latest_published_at"):
        return utc_from_ms(value)
    if isinstance(value, str):
        return str(value)
    return msgspec.json.encode(to_plain(value)).decode()


def state_rows(state: LeaseState, fields: Iterable[str] = FIELDS) -> list[tuple[Cell | str, ...]]:
    """A lease's state, field by field; what it does not have is left out, but for phase and expiry."""
    rows: list[tuple[Cell | str, ...]] = []
    for field in fields:
        value = getattr(state, field)
        if field == "phase":
            rows.append((field, styled(value)))
        elif field == "expires_at" and not state.credential_present:
            continue
        elif value is not None or field == "expires_at":
            rows.append((field, value_text(field, value)))
    return rows


def key_list(keys: Iterable[LeaseKey]) -> str:
    """Keys in one line."""
    return ", ".join(str(key) for key in keys)
