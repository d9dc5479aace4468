"""CSV (RFC 4180): a header and one row an event, in columns that stay what and where they are.

An empty cell says that the event carries no such field; ``never`` in ``expires_at``, that the credential never
expires. Times are given twice: as the event tells them, and in UTC for people where a calendar reaches that far.

A text that a spreadsheet would take for a formula gets an apostrophe before it. Control characters stay as they were
recorded: this is data for programs, and a terminal is no place for it (the ``export`` command escapes them there).
Numbers are written with all their
digits; a spreadsheet rounds those of more than fifteen.
"""

import csv
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from ledger.events import LeaseAcquired, LeaseRefreshed, LeaseRestored
from ledger.lease_ledger import LeaseLedger
from ledger.reading import RecordedEvent
from projections.times import utc_text

__all__ = ["COLUMNS", "lines", "row"]

COLUMNS: Final = (
    "position",
    "key",
    "version",
    "tag",
    "id",
    "at",
    "at_utc",
    "actor",
    "cause",
    "correlation_id",
    "generation",
    "expires_at",
    "expires_utc",
    "published_at",
    "refreshed_at",
    "attempt",
    "duration_ms",
    "holder_host",
    "holder_boot",
    "holder_pid",
    "holder_started",
    "holder_instance",
    "fingerprint",
    "recovered",
    "permanent",
    "abandoned",
    "error",
    "status",
    "retry_after",
    "reason",
    "store",
    "restored_phase",
    "restored_credential",
    "published_by",
    "captured_at_version",
    "compensates",
    "prev",
    "ended",
)

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%", "＝", "＋", "－", "＠")  # wide forms count too


class _Line:
    """A file for :mod:`csv` to write to that keeps the last line alone."""

    text = ""

    def write(self, text: str) -> int:
        self.text = text
        return len(text)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    if isinstance(value, str) and text.startswith(_FORMULA):
        return f"'{text}"
    return text


def _holder(fields: dict[str, Any]) -> dict[str, Any]:
    return {f"holder_{name}": value for name, value in fields.items()}


def _restored(event: LeaseRestored, fields: dict[str, Any]) -> dict[str, Any]:
    lease, attempt = event.snapshot, event.attempt
    found: dict[str, Any] = {
        "generation": lease.generation,
        "restored_phase": lease.phase,
        "restored_credential": lease.credential_present,
        "published_at": lease.published_at,
    }
    if attempt is not None:
        found |= {"attempt": attempt.id, "duration_ms": attempt.duration_ms, "fingerprint": attempt.fingerprint}
        found |= _holder(fields["attempt"]["holder"])
    return found


def _publishes(recorded: RecordedEvent) -> tuple[bool, int | None]:
    match recorded.event:
        case LeaseAcquired(expires_at=expires_at) | LeaseRefreshed(expires_at=expires_at):
            return True, expires_at
        case LeaseRestored(snapshot=lease) if lease.credential_present:
            return True, lease.expires_at
        case _:
            return False, None


def row(recorded: RecordedEvent) -> list[str]:
    """One event as cells, in the order of :data:`COLUMNS`."""
    event = recorded.event
    fields: dict[str, Any] = msgspec.to_builtins(event)
    found = {"position": recorded.position, "key": str(recorded.key), "version": recorded.version, "tag": event.tag}
    found |= fields | _holder(fields.get("holder", {})) | {"at_utc": utc_text(event.at)}
    if isinstance(event, LeaseRestored):
        found |= _restored(event, fields)
    holds_credential, expires_at = _publishes(recorded)
    if holds_credential:
        found["expires_at"] = "never" if expires_at is None else expires_at
        found["expires_utc"] = None if expires_at is None else utc_text(expires_at * 1000)
    return [_cell(found.get(column)) for column in COLUMNS]


def lines(events: Iterable[RecordedEvent], ledger: LeaseLedger) -> Iterator[str]:
    """The header and the events as lines of CSV."""
    del ledger
    line = _Line()
    writer = csv.writer(line)
    writer.writerow(COLUMNS)
    yield line.text
    for recorded in events:
        writer.writerow(row(recorded))
        yield line.text
