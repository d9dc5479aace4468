"""A saved incident: one JSON file that proves itself, and can be replayed and explained without its ledger.

It holds the events as they were stored, their digests and the digests before them, the states at the edges, and a
digest over the whole. The bytes of the file are a function of its contents, so a file that was changed anywhere, be it
by one space, is not the file that was saved. As with the ledger's own chain, this shows accidents and edits; it does
not stop somebody who recomputes every digest. :func:`projections.incident.check_against` holds it against the ledger.
"""

from hashlib import sha256
from typing import Final

import msgspec

from ledger.errors import LeaseLedgerError
from ledger.state import LeaseState

__all__ = [
    "FORMAT",
    "LONGEST_BYTES",
    "Bundle",
    "BundledEvent",
    "BundledStream",
    "Edge",
    "IncidentTooLong",
    "Selection",
    "encode",
    "is_saved_incident",
    "seal",
]

FORMAT: Final = "lease-ledger incident 1"
_HEAD: Final = b'{\n "format": "lease-ledger incident '

LONGEST_BYTES: Final = 256 * 1024 * 1024
"""How long a saved incident may be; whatever is longer is some other file."""


class IncidentTooLong(LeaseLedgerError):
    """An incident is longer than what can be read back.

    Attributes:
        length_bytes: How long it is.
    """

    def __init__(self, length_bytes: int) -> None:
        super().__init__(length_bytes)
        self.length_bytes = length_bytes

    def __str__(self) -> str:
        return (
            f"the incident has {self.length_bytes:,} bytes, and a saved one at most {LONGEST_BYTES:,}; "
            "choose fewer events by key or time"
        )


class Selection(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """How an incident was chosen; whatever is not given left the choice open.

    Attributes:
        keys: The leases asked for.
        since_ms: Events from this time on, epoch milliseconds.
        until_ms: Events up to this time.
        correlation_id: Events filed under this, and those between them.
        attempt: A refresh attempt, with what had published the tokens it spent.
    """

    keys: tuple[str, ...] = ()
    since_ms: int | None = None
    until_ms: int | None = None
    correlation_id: str | None = None
    attempt: str | None = None


class Edge(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A lease at one end of an incident.

    Attributes:
        version: The stream version there.
        digest: The digest of the event at that version; for version 0, what the first event follows.
        state: The lease there.
    """

    version: int
    digest: str
    state: LeaseState


class BundledStream(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One lease of an incident: its key as text, and the lease before its first and after its last event here."""

    key: str
    before: Edge
    after: Edge


class BundledEvent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One event of an incident, as the ledger stores it.

    Attributes:
        position: Its place in the ledger's log.
        key: Its lease, as text.
        version: Its place in the lease's stream.
        tag: What kind of event.
        body: The stored bytes, as text.
        prev: Digest of the event before it in its stream.
        digest: Its own digest.
    """

    position: int
    key: str
    version: int
    tag: str
    body: str
    prev: str
    digest: str


class Bundle(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the file holds.

    Attributes:
        format: Name and version of the format.
        ledger_id: The ledger the events are from; part of every digest.
        judged_at_ms: The time that "now" means to whoever asks, epoch milliseconds.
        selection: How the incident was chosen.
        streams: Its leases, sorted by key.
        events: Its events, in the order of the log.
        digest: SHA-256 over all of the above.
    """

    format: str
    ledger_id: str
    judged_at_ms: int
    selection: Selection
    streams: tuple[BundledStream, ...]
    events: tuple[BundledEvent, ...]
    digest: str = ""


def encode(bundle: Bundle) -> bytes:
    """The bytes of the file: the same for the same contents."""
    return msgspec.json.format(msgspec.json.encode(bundle), indent=1) + b"\n"


def is_saved_incident(head: bytes) -> bool:
    """Whether a file that begins like this was saved as an incident, by whatever version."""
    return head.startswith(_HEAD)


def seal(bundle: Bundle) -> Bundle:
    """The bundle with the digest over everything else in it."""
    unsealed = msgspec.structs.replace(bundle, digest="")
    return msgspec.structs.replace(bundle, digest=sha256(encode(unsealed)).hexdigest())
