"""What the tokens stored under a key are to its lease, in words. Looking changes nothing."""

from typing import Final

from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.provenance import TokenClass, provenance_of
from ledger.recovery import login_never_saved
from ledger.state import LeaseState
from ledger.store_errors import TokenSerializationError
from ledger.stores.base import TokenStore
from projections.explain.codes import TokensCode
from projections.explain.verdict import StoredTokens

__all__ = ["explain_tokens"]

_WORDS: Final = {
    TokenClass.CURRENT: "the stored tokens are those in force",
    TokenClass.SUPERSEDED: "the stored tokens are older than the lease: the tokens in force are in another store",
    TokenClass.UNRECORDED: "the stored tokens were saved by a refresh nobody recorded: the next use records them",
    TokenClass.ORPHANED: "the stored tokens belong to a login that has been released since: the next use clears them",
    TokenClass.UNMARKED: "the stored tokens name no event: nothing speaks for them, and nothing against",
    TokenClass.FOREIGN: "the stored tokens name an event this ledger never saw: another ledger published them",
    TokenClass.AHEAD: "the stored tokens are newer than this ledger: it is an older copy, such as a restored backup",
}

_UNSAVED: Final = "the tokens of the login in force were never saved: the next use undoes that login"


def explain_tokens(ledger: LeaseLedger, store: TokenStore, key: LeaseKey) -> StoredTokens:
    """What is stored under a key, held against its lease as it is now.

    Raises:
        CorruptHistory: The lease's events contradict each other.
        LedgerStorageError: The ledger could not be read.
    """
    state = ledger.state(key)
    try:
        tokens = store.load(key)
    except TokenSerializationError:
        return StoredTokens(TokensCode.UNREADABLE, "something is stored that cannot be read as tokens")
    except Exception as error:
        # Whatever a store raises counts as its failure, and its text may be anything.
        return StoredTokens(
            TokensCode.UNAVAILABLE,
            f"the token store could not be asked ({type(error).__name__}); that says nothing about the tokens",
        )
    found = None if tokens is None else provenance_of(ledger, key, state, tokens)
    if found is None or found.token_class is TokenClass.SUPERSEDED:
        if login_never_saved(ledger, store, key, state):
            return StoredTokens(TokensCode.UNSAVED_LOGIN, _UNSAVED)
        if found is None:
            return _nothing_stored(state)
    return StoredTokens(
        TokensCode(found.token_class.value), _WORDS[found.token_class], found.generation, found.event_id
    )


def _nothing_stored(state: LeaseState) -> StoredTokens:
    if not state.credential_present:
        return StoredTokens(TokensCode.NONE, "nothing is stored")
    return StoredTokens(TokensCode.MISSING, "nothing is stored: the tokens in force are in another store, or lost")
