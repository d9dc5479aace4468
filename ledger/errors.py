"""What goes wrong, split by whose fault it is: the caller, the history, or the storage beneath.

Token stores have errors of their own in :mod:`ledger.store_errors`.
"""

from typing import Literal

__all__ = [
    "CorruptHistory",
    "LeaseLedgerError",
    "LeaseTransitionError",
    "LedgerStorageError",
    "NotALedger",
    "UnknownEventTag",
    "UnsafeFileSystem",
]


class LeaseLedgerError(Exception):
    """Base of every error the ledger itself raises."""


class LeaseTransitionError(LeaseLedgerError):
    """A command was refused. Nothing was recorded and nothing changed.

    Attributes:
        context: The command and the key it was refused for.
        kind: ``"no_matching_transition"``: the key holds no lease; ``"guard_rejected"``: the lease is in a state
            that forbids it.
        reason: Why, in words.
    """

    def __init__(self, context: str, kind: Literal["no_matching_transition", "guard_rejected"], reason: str) -> None:
        super().__init__(context, kind, reason)
        self.context = context
        self.kind = kind
        self.reason = reason

    def __str__(self) -> str:
        return f"DSL transition rejected in {self.context}: {self.reason}"


class CorruptHistory(LeaseLedgerError):
    """Recorded events contradict each other or cannot be read; ``lease-ledger verify`` shows where.

    Attributes:
        stream: The lease key as text.
        version: The event that does not fit.
        detail: What is wrong with it.
    """

    def __init__(self, stream: str, version: int, detail: str) -> None:
        super().__init__(stream, version, detail)
        self.stream = stream
        self.version = version
        self.detail = detail

    def __str__(self) -> str:
        return (
            f"event {self.version} of {self.stream} is corrupt: {self.detail}; run 'lease-ledger verify' for the extent"
        )


class UnknownEventTag(LeaseLedgerError):
    """An event carries a tag this version does not know: it was written by a newer version.

    Attributes:
        tag: The unknown tag.
    """

    def __init__(self, tag: str) -> None:
        super().__init__(tag)
        self.tag = tag

    def __str__(self) -> str:
        return (
            f"unknown event tag {self.tag!r}: written by a newer version of lease-ledger; upgrade this one to read it"
        )


class LedgerStorageError(LeaseLedgerError):
    """The storage beneath the ledger failed or cannot be used; the message says what to do."""


class NotALedger(LedgerStorageError):
    """The file or database exists but holds no lease ledger, or one that only a newer version may open."""


class UnsafeFileSystem(LedgerStorageError):
    """The ledger lies on a file system where SQLite's write-ahead log corrupts (network or shared mounts)."""
