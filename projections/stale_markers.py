"""The question "are the stored tokens those the ledger speaks of?". Looking changes nothing."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

import msgspec

from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.provenance import TokenClass, provenance_of
from ledger.state import LeaseState
from ledger.store_errors import TokenSerializationError
from ledger.stores.base import TokenStore
from ledger.tokens import PersistedTokens

__all__ = ["StoredToken", "TokenFinding", "find_stale_markers"]

_LOOKS: Final = 3


class TokenFinding(StrEnum):
    """What the tokens stored under a key are to its lease.

    * ``current``: published by the event in force.
    * ``superseded``: published by an earlier event, or by an attempt that something newer overtook.
    * ``unrecorded``: saved by an attempt whose publication is not recorded yet, and still the newest there are.
    * ``orphaned``: published by an event of this lease that has been released since.
    * ``unmarked``: they name no event: nothing speaks for them, and nothing against.
    * ``foreign``: they name an event this ledger never saw, at a generation it has reached itself.
    * ``ahead``: the same beyond its own generation: this ledger is an older copy.
    * ``unreadable``: something is stored that cannot be read as tokens.
    * ``missing``: the lease holds a credential, and nothing is stored.
    """

    CURRENT = "current"
    SUPERSEDED = "superseded"
    UNRECORDED = "unrecorded"
    ORPHANED = "orphaned"
    UNMARKED = "unmarked"
    FOREIGN = "foreign"
    AHEAD = "ahead"
    UNREADABLE = "unreadable"
    MISSING = "missing"


_OF_CLASS: Final = {token_class: TokenFinding(token_class.value) for token_class in TokenClass}


class StoredToken(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is stored under one key, held against its lease. Never a token's bytes.

    Attributes:
        key: The lease key as text.
        found: What the tokens are.
        lease_generation: The generation the lease has reached.
        generation: The generation the tokens' marker names.
        event_id: The event their marker names.
        attempt: For unrecorded tokens, the attempt that saved them.
        superseded_by: For superseded tokens, the id of the event in force.
        superseded_by_version: Its version.
        detail: For unreadable ones, what is wrong with them.
    """

    key: str
    found: TokenFinding
    lease_generation: int
    generation: int | None = None
    event_id: str | None = None
    attempt: str | None = None
    superseded_by: str | None = None
    superseded_by_version: int | None = None
    detail: str | None = None


def find_stale_markers(ledger: LeaseLedger, store: TokenStore, keys: Iterable[LeaseKey]) -> list[StoredToken]:
    """Class what is stored under every key the store lists and every key given, sorted by key.

    Args:
        ledger: The ledger.
        store: Where the tokens are.
        keys: Keys whose tokens should be there.

    Raises:
        TokenStoreError: The store could not be asked. One that cannot be reached is not an empty one.
        CorruptHistory: A lease's events contradict each other.
        LedgerStorageError: The ledger cannot be read.
    """
    found = (_look(ledger, store, key) for key in sorted({*store.list(), *keys}, key=str))
    return [stored for stored in found if stored is not None]


def _look(ledger: LeaseLedger, store: TokenStore, key: LeaseKey) -> StoredToken | None:
    """What is stored under a key; ``None`` when nothing is and nothing should be."""
    state, tokens, unreadable = _read(ledger, store, key)
    if unreadable is not None:
        return StoredToken(str(key), TokenFinding.UNREADABLE, state.generation, detail=unreadable)
    if tokens is None:
        return StoredToken(str(key), TokenFinding.MISSING, state.generation) if state.credential_present else None
    provenance = provenance_of(ledger, key, state, tokens)
    by = None if provenance.superseded_by is None else ledger.find(key, provenance.superseded_by)
    return StoredToken(
        str(key),
        _OF_CLASS[provenance.token_class],
        state.generation,
        provenance.generation,
        provenance.event_id,
        provenance.attempt,
        provenance.superseded_by,
        None if by is None else by.version,
    )


def _read(
    ledger: LeaseLedger, store: TokenStore, key: LeaseKey
) -> tuple[LeaseState, PersistedTokens | None, str | None]:
    """A lease and its stored tokens, read while neither was seen to change."""
    state = ledger.state(key)
    tokens: PersistedTokens | None = None
    unreadable: str | None = None
    for _ in range(_LOOKS):
        before = state
        try:
            tokens, unreadable = store.load(key), None
        except TokenSerializationError as error:
            tokens, unreadable = None, error.detail
        state = ledger.state(key)
        if state.version == before.version:
            break
    return state, tokens, unreadable
