"""The hash chain of a stream, and the rolling digest of a whole ledger.

Each event names the digest of its predecessor, so a changed, removed or swapped event is shown by its successor.
The rolling digest runs over all events in order of position; whoever keeps one elsewhere has a witness of the
last event of every stream too. Without a kept witness this guards against accidents, not against somebody who
can rewrite the file and every digest in it.
"""

from hashlib import sha256

__all__ = ["EMPTY_ROLL", "event_digest", "fold_digest", "genesis_digest", "roll"]

EMPTY_ROLL = sha256(b"").hexdigest()
"""The rolling digest of a ledger without events."""


def _framed(*parts: bytes) -> bytes:
    return b"".join([b"%d:%b" % (len(part), part) for part in parts])


def genesis_digest(ledger_id: str, stream: str) -> str:
    """The ``prev`` of a stream's first event: SHA-256 over the length-framed ledger id and key, in hex."""
    return sha256(_framed(ledger_id.encode(), stream.encode())).hexdigest()


def event_digest(ledger_id: str, stream: str, version: int, tag: str, body: bytes) -> str:
    """SHA-256, in hex, over length-framed ledger id, key, version, tag and stored bytes of one event."""
    owner, name, number, kind = ledger_id.encode(), stream.encode(), b"%d" % version, tag.encode()
    # Framed in one go: this runs with every append.
    framed = b"%d:%b%d:%b%d:%b%d:%b%d:%b" % (
        len(owner), owner, len(name), name, len(number), number, len(kind), kind, len(body), body,
    )  # fmt: skip
    return sha256(framed).hexdigest()


def fold_digest(event_digest: str, state: bytes) -> str:
    """SHA-256, in hex, over the length-framed digest of an event and the state stored as the fold up to it."""
    return sha256(_framed(event_digest.encode(), state)).hexdigest()


def roll(rolling: str, position: int, digest: str) -> str:
    """Extend a rolling digest by the event at ``position`` whose own digest is ``digest``."""
    return sha256(f"{rolling}:{position}:{digest}".encode()).hexdigest()
