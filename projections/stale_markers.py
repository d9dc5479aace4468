"""The question "are the stored tokens those the ledger speaks of?". Looking changes nothing."""

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.stores.base import TokenStore
from projections.stored_tokens import FoundTokens, TokensCode, look_at_tokens

__all__ = ["StoredToken", "TokenFinding", "find_stale_markers"]


class TokenFinding(StrEnum):
    """What the tokens stored under a key are to its lease.

    * ``current``: published by the event in force.
    * ``superseded``: published by an earlier event, or by an attempt that something newer overtook.
    * ``unrecorded``: saved by an attempt whose publication is not recorded yet, and still the newest there are.
    * ``unsaved_login``: older than the login in force, or absent, though that login was to save its tokens here.
    * ``orphaned``: published by an event of this lease that has been released since.
    * ``unmarked``: they name no event: nothing speaks for them, and nothing against.
    * ``foreign``: they name an event this ledger never saw, at a generation it has reached itself.
    * ``ahead``: the same beyond its own generation: this ledger is an older copy, or another one published them.
    * ``unreadable``: what is stored cannot be read, or not as tokens.
    * ``unavailable``: the store could not be asked for this key; that says nothing about the tokens.
    * ``missing``: the lease holds a credential, and nothing is stored.
    """

    CURRENT = "current"
    SUPERSEDED = "superseded"
    UNRECORDED = "unrecorded"
    UNSAVED_LOGIN = "unsaved_login"
    ORPHANED = "orphaned"
    UNMARKED = "unmarked"
    FOREIGN = "foreign"
    AHEAD = "ahead"
    UNREADABLE = "unreadable"
    UNAVAILABLE = "unavailable"
    MISSING = "missing"


class StoredToken(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is stored under one key, held against its lease. Never a token's bytes.

    Attributes:
        key: The lease key as text.
        found: What the tokens are.
        lease_generation: The generation the lease has reached.
        generation: The generation the tokens' marker names.
        event_id: The event their marker names; for an unsaved login, its own.
        attempt: For unrecorded tokens, the attempt that saved them.
        superseded_by: For superseded tokens, the id of the event in force.
        superseded_by_version: Its version.
        detail: For unreadable ones, what is wrong with them; for unavailable ones, with the store.
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
        TokenStoreError: The store could not be asked for any key. One that cannot be reached is not an empty one.
        CorruptHistory: A lease's events contradict each other.
        LedgerStorageError: The ledger cannot be read.
    """
    looks = [(key, look_at_tokens(ledger, store, key)) for key in sorted({*store.list(), *keys}, key=str)]
    failures = [found.failure for _, found in looks if found.code is TokensCode.UNAVAILABLE]
    if failures and failures[0] is not None and len(failures) == len(looks):
        raise failures[0]
    return [_row(ledger, key, found) for key, found in looks if found.code is not TokensCode.NONE]


def _row(ledger: LeaseLedger, key: LeaseKey, found: FoundTokens) -> StoredToken:
    by = None if found.superseded_by is None else ledger.find(key, found.superseded_by)
    return StoredToken(
        str(key),
        TokenFinding(found.code.value),
        found.state.generation,
        found.generation,
        found.event_id,
        found.attempt,
        found.superseded_by,
        None if by is None else by.version,
        found.detail,
    )
