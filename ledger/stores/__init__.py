"""Token stores: where the secrets of a lease are kept, in one of several places with one contract."""

from ledger.stores.auto import AutoTokenStore
from ledger.stores.base import ANY, AnyTokens, Expectation, TokenStore
from ledger.stores.file import FileTokenStore
from ledger.stores.keyring import KeyringCannotKeep, KeyringTokenStore
from ledger.stores.memory import MemoryTokenStore
from ledger.stores.postgres import PostgresTokenStore

__all__ = [
    "ANY",
    "AnyTokens",
    "AutoTokenStore",
    "Expectation",
    "FileTokenStore",
    "KeyringCannotKeep",
    "KeyringTokenStore",
    "MemoryTokenStore",
    "PostgresTokenStore",
    "TokenStore",
]
