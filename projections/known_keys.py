"""Keys that a question is about: whether the ledger ever heard of them, and what was probably meant."""

import difflib
from collections.abc import Iterable
from typing import Final

from ledger.errors import LeaseLedgerError
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.store_errors import TokenStoreError
from ledger.stores.base import TokenStore

__all__ = ["UnknownKey", "require_known"]

_MOST_EVENTS: Final = 10_000
"""Of a larger ledger not every key is read to find a close name."""

_MOST_SUGGESTIONS: Final = 3
_CLOSE: Final = 0.75


class UnknownKey(LeaseLedgerError, LookupError):
    """Nothing ever happened to a lease of that name. Nothing was recorded.

    Attributes:
        key: The key.
        suggestions: Keys that are there, and written much like it.
    """

    def __init__(self, key: LeaseKey, suggestions: tuple[str, ...] = ()) -> None:
        super().__init__(key, suggestions)
        self.key = key
        self.suggestions = suggestions

    def __str__(self) -> str:
        if self.suggestions:
            return f"unknown key {self.key}; did you mean {' or '.join(self.suggestions)}?"
        return f"unknown key {self.key}; 'lease-ledger leases' lists the keys there are"


def require_known(ledger: LeaseLedger, keys: Iterable[LeaseKey], store: TokenStore | None = None) -> None:
    """Make sure that keys are no slips of the pen: each has events, or tokens in the store.

    Raises:
        UnknownKey: One has neither.
        TokenStoreError: The store cannot be asked.
        LedgerStorageError: The ledger cannot be read.
    """
    for key in keys:
        if not ledger.recorder.last_version(str(key)) and not (store is not None and _holds(store, key)):
            raise UnknownKey(key, _close_to(ledger, key))


def _holds(store: TokenStore, key: LeaseKey) -> bool:
    try:
        return store.load(key) is not None
    except TokenStoreError:
        # What cannot be read is there; a store that cannot be asked says so to whoever needs the tokens next.
        return True


def _close_to(ledger: LeaseLedger, key: LeaseKey) -> tuple[str, ...]:
    if ledger.recorder.last_position() > _MOST_EVENTS:
        return ()
    return tuple(difflib.get_close_matches(str(key), ledger.recorder.streams(), _MOST_SUGGESTIONS, _CLOSE))
