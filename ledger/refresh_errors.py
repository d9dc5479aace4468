"""What using credentials can run into, each with what it means for the login."""

from ledger.errors import LeaseLedgerError
from ledger.keys import LeaseKey
from ledger.tokens import PersistedTokens

__all__ = [
    "LedgerBehindStore",
    "ReauthRequired",
    "RefreshError",
    "RefreshTimedOut",
    "TokensElsewhere",
    "TokensNotSaved",
]


class RefreshError(LeaseLedgerError):
    """A refresh failed. Raised by refresh functions for what the server said, and to callers who needed the tokens.

    Args:
        permanent: Whether the server refused for good (``invalid_grant`` and the like).
        error: OAuth error code; never a message, for that may hold a secret.
        status: HTTP status.
        retry_after: Seconds the server asked to wait.
    """

    def __init__(
        self,
        permanent: bool,
        error: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(permanent, error, status, retry_after)
        self.permanent = permanent
        self.error = error
        self.status = status
        self.retry_after = retry_after

    def __str__(self) -> str:
        what = ", ".join(
            part for part in (self.error, None if self.status is None else f"HTTP {self.status}") if part is not None
        )
        how = "refused for good" if self.permanent else "failed for now"
        when = "" if self.retry_after is None else f"; try again in {self.retry_after:g} s"
        return f"refresh {how} ({what or 'no details'}){when}"


class ReauthRequired(LeaseLedgerError):
    """No way on without a person: nobody is logged in, or the login was refused for good.

    Attributes:
        key: The lease.
        reason: Why, in words.
        error: OAuth error code of the refusal, if one led here.
    """

    def __init__(self, key: LeaseKey, reason: str, error: str | None = None) -> None:
        super().__init__(key, reason, error)
        self.key = key
        self.reason = reason
        self.error = error

    def __str__(self) -> str:
        return f"{self.key} needs a new login: {self.reason}"


class RefreshTimedOut(LeaseLedgerError, TimeoutError):
    """Others were refreshing all the time a caller could wait. The credential is not dead for it; try again.

    Attributes:
        key: The lease.
        waited_s: Seconds waited.
    """

    def __init__(self, key: LeaseKey, waited_s: float) -> None:
        super().__init__(key, waited_s)
        self.key = key
        self.waited_s = waited_s

    def __str__(self) -> str:
        return f"waited {self.waited_s:.1f} s for others to refresh {self.key}; the login stands, try again"


class TokensElsewhere(LeaseLedgerError):
    """The tokens stored here are not those the lease is about. Spending them could log everybody out.

    Attributes:
        key: The lease.
        generation: The generation in force, whose tokens are in another store.
    """

    def __init__(self, key: LeaseKey, generation: int) -> None:
        super().__init__(key, generation)
        self.key = key
        self.generation = generation

    def __str__(self) -> str:
        return (
            f"the tokens of generation {self.generation} of {self.key} are not in this store; "
            "use the store that holds them, or log in here"
        )


class LedgerBehindStore(LeaseLedgerError):
    """The stored tokens were published by an event this ledger never saw, beyond its own generation.

    The ledger is an older copy, such as a restored backup. Nothing is cleared or spent.

    Attributes:
        key: The lease.
        ledger_generation: The generation of the ledger.
        store_generation: The generation the stored tokens name.
    """

    def __init__(self, key: LeaseKey, ledger_generation: int, store_generation: int | None) -> None:
        super().__init__(key, ledger_generation, store_generation)
        self.key = key
        self.ledger_generation = ledger_generation
        self.store_generation = store_generation

    def __str__(self) -> str:
        return (
            f"the ledger knows {self.key} up to generation {self.ledger_generation}, the stored tokens are of "
            f"{self.store_generation}: this ledger is an older copy; open the current one, or log in again"
        )


class TokensNotSaved(LeaseLedgerError):
    """Tokens came from the server but could not be stored. They are good; the caller may still use or save them.

    Attributes:
        key: The lease.
        tokens: The tokens; never part of the error's text.
        restore_error: Why the lease could not be put back either, when it could not.
        save_error: Why they could not be stored; the cause of this error as well.
    """

    def __init__(
        self,
        key: LeaseKey,
        tokens: PersistedTokens,
        restore_error: Exception | None = None,
        save_error: Exception | None = None,
    ) -> None:
        super().__init__(key)
        self.key = key
        self.tokens = tokens
        self.restore_error = restore_error
        # Beside the cause, in whose place a process pool puts the traceback of its worker.
        self.save_error = save_error

    def __str__(self) -> str:
        undone = "" if self.restore_error is None else f"; undoing the login failed too: {self.restore_error}"
        reason = self.save_error or self.__cause__ or "unknown reason"
        return f"the new tokens of {self.key} could not be stored: {reason}{undone}"
