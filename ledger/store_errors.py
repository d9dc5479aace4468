"""What a token store may raise: one class per thing that went wrong, none of which ever quotes a token."""

from typing import Any, ClassVar, Final

from ledger.errors import LeaseLedgerError
from ledger.keys import LeaseKey

__all__ = [
    "UNUSABLE_TOKENS",
    "KeyringUnavailable",
    "TokenIOError",
    "TokenPermissionDenied",
    "TokenSerializationError",
    "TokenStoreError",
    "TokenStoreUnavailable",
    "TokensChanged",
    "TokensNotFound",
]


class TokenStoreError(LeaseLedgerError):
    """A token store could not do what it was asked.

    Attributes:
        detail: What went wrong, in a few words. Never a secret: it ends up in logs and on terminals.
    """

    _prefix: ClassVar[str] = ""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        return f"{self._prefix}{self.detail}"


class TokenIOError(TokenStoreError):
    """The medium failed: a file, a disk, a connection in the middle of a call."""

    _prefix = "io error: "


class TokenSerializationError(TokenStoreError):
    """What is stored cannot be read as tokens, or these tokens cannot be written."""

    _prefix = "serialization error: "


class KeyringUnavailable(TokenStoreError):
    """The operating system offers no usable keyring."""

    _prefix = "keyring backend unavailable: "


class TokenPermissionDenied(TokenStoreError):
    """The store refused access, or its files are open to others."""

    _prefix = "permission denied: "


class TokenStoreUnavailable(TokenStoreError):
    """The store cannot be reached at all."""

    _prefix = "backend unavailable: "


UNUSABLE_TOKENS: Final = (TokenSerializationError, TokenPermissionDenied, TokenIOError)
"""What is wrong with the tokens of one key, and says nothing about those of the next."""


class TokensNotFound(TokenStoreError):
    """Tokens were needed for a key that holds none.

    Attributes:
        key: The key. The text names its realm and binding; the profile is here.
    """

    def __init__(self, key: LeaseKey) -> None:
        super().__init__(f"no credentials found for {key.realm}:{key.binding}")
        self.args: tuple[Any, ...] = (key,)
        self.key = key


class TokensChanged(TokenStoreError):
    """A compare-and-swap lost: the store holds something else than the caller last saw. Nothing was written.

    Attributes:
        key: The key.
        expected: Id of the event the stored tokens were expected to be marked with; ``None`` for no tokens or
            unmarked ones.
        found: Id of the event the stored tokens are marked with; ``None`` likewise.
    """

    def __init__(self, key: LeaseKey, expected: str | None, found: str | None) -> None:
        super().__init__(
            f"stored tokens of {key} changed: expected {_published_by(expected)}, found {_published_by(found)}"
        )
        self.args: tuple[Any, ...] = (key, expected, found)
        self.key = key
        self.expected = expected
        self.found = found


def _published_by(event: str | None) -> str:
    return "no known event" if event is None else f"event {event}"
