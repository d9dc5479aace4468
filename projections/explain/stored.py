"""What the tokens stored under a key are to its lease, on top of a verdict. Looking changes nothing."""

from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.stores.base import TokenStore
from projections.explain.verdict import StoredTokens
from projections.stored_tokens import TokensCode, look_at_tokens

__all__ = ["explain_tokens"]


def explain_tokens(ledger: LeaseLedger, store: TokenStore, key: LeaseKey) -> StoredTokens:
    """What is stored under a key, held against its lease as it is now.

    Raises:
        CorruptHistory: The lease's events contradict each other.
        LedgerStorageError: The ledger could not be read.
    """
    found = look_at_tokens(ledger, store, key)
    # The event that an unsaved login has is its own, not one that stored tokens name.
    named = None if found.code is TokensCode.UNSAVED_LOGIN else found.event_id
    return StoredTokens(found.code, found.text, found.generation, named)
