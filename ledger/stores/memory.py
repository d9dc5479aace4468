"""Tokens in memory, for tests and for processes that must leave nothing behind."""

import builtins
import secrets
import threading

from ledger.keys import LeaseKey
from ledger.stores.base import ANY, Expectation, TokenStore, refuse_unless_expected, sorted_keys
from ledger.tokens import PersistedTokens

__all__ = ["MemoryTokenStore"]


class MemoryTokenStore(TokenStore):
    """Keeps tokens for as long as the object lives. Safe to share between threads; compare-and-swap is
    atomic.

    Holds their JSON rather than the objects, so that what comes back has been through the same as in any
    other store, and nobody can change it from outside.
    """

    def __init__(self) -> None:
        self._stored: dict[LeaseKey, bytes] = {}
        self._lock = threading.Lock()
        self._location = f"memory:{secrets.token_hex(8)}"

    @property
    def backend_name(self) -> str:
        """``"memory"``."""
        return "memory"

    @property
    def location(self) -> str:
        """This object."""
        return self._location

    def load(self, key: LeaseKey) -> PersistedTokens | None:
        """The tokens stored under the key; ``None`` when it holds nothing."""
        data = self._stored.get(key)
        return None if data is None else PersistedTokens.from_json(data)

    def save(self, key: LeaseKey, tokens: PersistedTokens, *, expect: Expectation = ANY) -> None:
        """Store the tokens under the key.

        Raises:
            TokensChanged: Something else than ``expect`` is stored. Nothing was written.
            TokenSerializationError: These tokens cannot be written as JSON. Nothing was written.
        """
        data = tokens.to_json()
        with self._lock:
            refuse_unless_expected(key, expect, lambda: self.load(key))
            self._stored[key] = data

    def clear(self, key: LeaseKey, *, expect: Expectation = ANY) -> None:
        """Forget what is stored under the key. Clearing nothing succeeds.

        Raises:
            TokensChanged: Something else than ``expect`` is stored. It stays.
        """
        with self._lock:
            refuse_unless_expected(key, expect, lambda: self.load(key))
            self._stored.pop(key, None)

    def list(self) -> builtins.list[LeaseKey]:
        """The keys that hold tokens, sorted by realm, binding and profile."""
        with self._lock:
            return sorted_keys(self._stored)
