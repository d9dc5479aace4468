"""What goes wrong, split by whose fault it is. Everything that a caller of ``Credentials`` can meet has one root.

    LeaseLedgerError
        IdentityError (ValueError)          a lease key is not written as one
        LeaseTransitionError                a command was refused, nothing changed
        GuardTimeout (TimeoutError)         others held the lease's guard all the time
        GuardReentered (RuntimeError)       the guard was taken again by its own holder
        RefreshError                        a refresh failed, for now or for good
        RefreshTimedOut (TimeoutError)      others were refreshing all the time
        ReauthRequired                      no way on without a person
        TokensElsewhere                     the stored tokens are not those the lease is about
        LedgerBehindStore                   the ledger is an older copy than the stored tokens
        TokensNotSaved                      new tokens are in the caller's hands only: in this error
        TokenStoreError                     the token store could not do what it was asked
            TokenIOError                    its medium failed
                KeyringCannotKeep           no room for these tokens there
            TokenSerializationError         what is stored is unreadable, or what is to be stored unwritable
            TokenPermissionDenied           access refused, or its files are open to others
            TokenStoreUnavailable           it cannot be reached
            KeyringUnavailable              the operating system offers no keyring
            TokensNotFound                  nothing is stored under the key
            TokensChanged                   somebody else stored something meanwhile
        TokenLifecycleClearError            a logout could not be finished
            LifecycleReleaseFailed          the lease stands, and so do the tokens if they could be read
            TokenLoadAndClearFailed         the lease stands, and so do the unreadable tokens
            TokenClearFailed                tokens and lease stand
            TokenClearAndRestoreFailed      the tokens stand, the lease is released
        LedgerStorageError                  the storage beneath the ledger failed
            NotALedger                      it holds something else
            UnsafeFileSystem                SQLite's log would corrupt there
        CorruptHistory                      recorded events contradict each other
        UnknownEventTag                     a newer version wrote the event
        AuthStatusRehydrateError            kept for callers that catch it; nothing raises it

In parentheses: what else it is, for callers that know nothing of ledgers.
"""

from typing import Any, Literal

from ledger.portable_errors import arrive, portable

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
    """Base of every error the ledger itself raises.

    Each can be pickled, copied and deep-copied, with its attributes and its cause: in a process pool it arrives whole.
    """

    def __init__(self, *facts: object) -> None:
        # Not super(): beside TimeoutError that is OSError's, which takes facts for an error number and a file name.
        Exception.__init__(self, *facts)

    def __reduce__(self) -> tuple[Any, ...]:
        facts = {name: portable(value) for name, value in vars(self).items()}
        return arrive, (type(self), self.args, portable(self.__cause__)), facts


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
        return f"{self.context} was refused: {self.reason}"


class CorruptHistory(LeaseLedgerError):
    """Recorded events contradict each other or cannot be read; ``lease-ledger verify`` shows where.

    Attributes:
        stream: The lease key as text.
        version: The event that does not fit.
        detail: What is wrong with it.
        position: Its place in the whole log, where that is known.
    """

    def __init__(self, stream: str, version: int, detail: str, position: int | None = None) -> None:
        super().__init__(stream, version, detail, position)
        self.stream = stream
        self.version = version
        self.detail = detail
        self.position = position

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
