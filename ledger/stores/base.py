"""What every token store answers to, and the one comparison their compare-and-swap rests on."""

import builtins
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Final, Literal, TypeAlias

from ledger.keys import LeaseKey
from ledger.marker import marker_event
from ledger.store_errors import TokensChanged, TokenSerializationError
from ledger.tokens import PersistedTokens

__all__ = ["ANY", "AnyTokens", "Expectation", "TokenStore", "expectation_of", "refuse_unless_expected", "sorted_keys"]


class AnyTokens(Enum):
    """The type of ``ANY``, a value no event id and no tokens can be."""

    ANY = "any"

    def __repr__(self) -> str:
        return self.name


ANY: Final = AnyTokens.ANY
"""Write whatever is stored now, be it nothing, other tokens, or bytes that cannot be read."""

Expectation: TypeAlias = str | PersistedTokens | Literal[AnyTokens.ANY] | None
"""What a caller of ``save`` and ``clear`` last saw stored, and wants to find there still.

``ANY``: no matter what. ``None``: nothing. An event id: tokens whose marker names that event. Tokens: those
very tokens, told by their marker's event, or by all of their content when they carry no event. ``None``
therefore never matches unmarked tokens, such as an API key: who holds some and means to replace just them
passes them.
"""


class TokenStore(ABC):
    """Where the tokens of a lease are kept: secrets, one set for each key, and nothing else.

    The ledger says which credential is current; a store only keeps bytes. What is stored under one key is
    replaced whole or not at all, and a reader sees the old tokens or the new ones.

    Every method raises a ``TokenStoreError``, whose text never holds a secret, and nothing is ever answered
    in its stead: a store that cannot be reached is not an empty one.
    """

    @property
    @abstractmethod
    def backend_name(self) -> str:
        """A short name of what keeps the tokens, for people."""

    @property
    def location(self) -> str | None:
        """Where the tokens lie, so exactly that an equal answer means the same place.

        ``None`` when a store cannot tell; then nobody concludes from a key it does not hold that the key's tokens
        were never saved.
        """
        return None

    @abstractmethod
    def load(self, key: LeaseKey) -> PersistedTokens | None:
        """The tokens stored under the key; ``None`` when it holds nothing.

        Raises:
            TokenSerializationError: Something is stored that cannot be read as tokens. It stays where it is.
            TokenStoreError: The store could not be asked.
        """

    @abstractmethod
    def save(self, key: LeaseKey, tokens: PersistedTokens, *, expect: Expectation = ANY) -> None:
        """Store the tokens under the key, in place of what it held.

        Raises:
            TokensChanged: Something else than ``expect`` is stored, or something unreadable while ``expect``
                is not ``ANY``. Nothing was written.
            TokenSerializationError: These tokens cannot be written as JSON. Nothing was written.
            TokenStoreError: The store could not be written; the old tokens are still there, or the new ones
                already are, and ``load`` tells which.
        """

    def check_savable(self, key: LeaseKey) -> None:  # noqa: B027  # most stores can tell nothing in advance
        """Make sure that a ``save`` would not be refused, as far as that can be told. Asked before a token is spent.

        Raises:
            TokenStoreError: It would be. Nothing was written.
        """

    @abstractmethod
    def clear(self, key: LeaseKey, *, expect: Expectation = ANY) -> None:
        """Destroy what is stored under the key, readable or not. Clearing nothing succeeds.

        Raises:
            TokensChanged: As for ``save``. Nothing was destroyed.
            TokenStoreError: The tokens could not be destroyed.
        """

    @abstractmethod
    def list(self) -> builtins.list[LeaseKey]:
        """The keys that hold something, sorted by realm, binding and profile.

        Raises:
            TokenStoreError: The store could not be asked.
        """


def expectation_of(tokens: PersistedTokens | None) -> Expectation:
    """What to pass as ``expect`` to replace just these tokens: their event where they name one."""
    event = None if tokens is None else marker_event(tokens)
    return tokens if event is None else event


def refuse_unless_expected(key: LeaseKey, expect: Expectation, load: Callable[[], PersistedTokens | None]) -> None:
    """Compare what is stored with what the caller expects, for a store to do before it writes.

    Args:
        key: The key, for the error.
        expect: What the caller handed to ``save`` or ``clear``.
        load: Reads what is stored; not called for ``ANY``.

    Raises:
        TokensChanged: They differ, or what is stored cannot be read; then the reason is its cause.
    """
    if expect is ANY:
        return
    try:
        stored = load()
    except TokenSerializationError as error:
        raise TokensChanged(key, _event(expect), None) from error
    found = _event(stored)
    if isinstance(expect, str):
        as_expected = found == expect
    elif expect is None or marker_event(expect) is None:
        as_expected = stored == expect
    else:
        as_expected = found == marker_event(expect)
    if not as_expected:
        raise TokensChanged(key, _event(expect), found)


def _event(identity: str | PersistedTokens | None) -> str | None:
    return marker_event(identity) if isinstance(identity, PersistedTokens) else identity


def sorted_keys(keys: Iterable[LeaseKey]) -> builtins.list[LeaseKey]:
    """The keys in the order every store lists them: a key comes right before its own profiles."""
    return sorted(keys, key=lambda key: (key.realm, key.binding, key.profile or ""))
