"""The question "what are the tokens stored under a key to its lease?": one look, for everybody who asks.

Looking takes no guard and changes nothing. So what it sees may be somebody's work half done.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.provenance import TokenClass, provenance_of
from ledger.recovery import login_never_saved
from ledger.state import LeaseState
from ledger.store_errors import UNUSABLE_TOKENS, TokenSerializationError, TokenStoreError
from ledger.stores.base import TokenStore
from ledger.tokens import PersistedTokens

__all__ = ["FoundTokens", "TokensCode", "look_at_tokens"]

_LOOKS: Final = 3


class TokensCode(StrEnum):
    """What the stored tokens are to the lease.

    * ``current``: published by the event in force.
    * ``superseded``: published by an earlier event, or by an attempt that something newer overtook; the tokens in force
      are not here.
    * ``unrecorded``: saved by an attempt whose publication is not recorded, and still the newest there are; the next
      use records them.
    * ``unsaved_login``: older than the login in force, or absent, though that login was to save its tokens here; the
      next use undoes it.
    * ``orphaned``: published by an event that has been released since.
    * ``unmarked``: they name no event: nothing speaks for them, and nothing against.
    * ``foreign``: they name an event this ledger never saw, at a generation it has reached itself.
    * ``ahead``: the same beyond its own generation: this ledger is an older copy, or another one published them.
    * ``missing``: the lease holds a credential, and nothing is stored.
    * ``none``: nothing is stored, and nothing should be.
    * ``unreadable``: what is stored cannot be read, or not as tokens.
    * ``unavailable``: the store could not be asked; that says nothing about the tokens.
    """

    CURRENT = "current"
    SUPERSEDED = "superseded"
    UNRECORDED = "unrecorded"
    UNSAVED_LOGIN = "unsaved_login"
    ORPHANED = "orphaned"
    UNMARKED = "unmarked"
    FOREIGN = "foreign"
    AHEAD = "ahead"
    MISSING = "missing"
    NONE = "none"
    UNREADABLE = "unreadable"
    UNAVAILABLE = "unavailable"


_WORDS: Final = {
    TokensCode.CURRENT: "the stored tokens are those in force",
    TokensCode.SUPERSEDED: "the stored tokens are older than the lease: those in force are in another store, or lost",
    TokensCode.UNRECORDED: "the stored tokens were saved by a refresh that is not recorded: the next use records it",
    TokensCode.UNSAVED_LOGIN: (
        "the login in force was to save its tokens here, and they are not here: never saved, removed since, or about "
        "to be saved; the next use undoes that login unless they are"
    ),
    TokensCode.ORPHANED: "the stored tokens belong to a login that has been released since",
    TokensCode.UNMARKED: "the stored tokens name no event: nothing speaks for them, and nothing against",
    TokensCode.FOREIGN: (
        "the stored tokens name an event this ledger never saw: another ledger published them, or a past of this one "
        "that is gone"
    ),
    TokensCode.AHEAD: (
        "the stored tokens are newer than this ledger: it is an older copy, such as a restored backup, or another "
        "ledger published them"
    ),
    TokensCode.MISSING: "nothing is stored: the tokens in force are in another store, or lost",
    TokensCode.NONE: "nothing is stored",
    TokensCode.UNREADABLE: "what is stored cannot be read, or not as tokens",
    TokensCode.UNAVAILABLE: "the token store could not be asked",
}


@dataclass(frozen=True, slots=True)
class FoundTokens:
    """What one look found. Never a token's bytes.

    Attributes:
        code: What the tokens are.
        state: The lease they were held against.
        generation: The generation their marker names.
        event_id: The event their marker names.
        attempt: For unrecorded tokens, the attempt that saved them.
        superseded_by: For superseded tokens, the id of the event in force.
        failure: Why they could not be read, or the store not be asked.
    """

    code: TokensCode
    state: LeaseState
    generation: int | None = None
    event_id: str | None = None
    attempt: str | None = None
    superseded_by: str | None = None
    failure: Exception | None = None

    @property
    def detail(self) -> str | None:
        """What went wrong, in words that hold no secret."""
        if isinstance(self.failure, TokenSerializationError):
            return self.failure.detail
        if isinstance(self.failure, TokenStoreError):
            return str(self.failure)
        # Whatever else a store raises counts as its failure, and its text may be anything.
        return None if self.failure is None else type(self.failure).__name__

    @property
    def is_mended_by_use(self) -> bool:
        """Whether the next use of the key finishes what was left here."""
        if self.code is TokensCode.ORPHANED:
            # Only tokens that name the event that was released are cleared.
            return self.event_id is not None
        return self.code in (TokensCode.UNRECORDED, TokensCode.UNSAVED_LOGIN)

    @property
    def text(self) -> str:
        """What was found, in words."""
        words = _WORDS[self.code]
        if self.code is TokensCode.ORPHANED:
            return f"{words}: {'the next use clears them' if self.is_mended_by_use else 'they name no event of it'}"
        if self.code is TokensCode.UNREADABLE:
            return f"{words} ({self.detail})"
        if self.code is TokensCode.UNAVAILABLE:
            return f"{words} ({self.detail}); that says nothing about the tokens"
        return words


def look_at_tokens(ledger: LeaseLedger, store: TokenStore, key: LeaseKey) -> FoundTokens:
    """What is stored under a key, held against its lease as it is now. Changes nothing.

    Raises:
        CorruptHistory: The lease's events contradict each other.
        UnknownEventTag: A newer version wrote one of them.
        LedgerStorageError: The ledger cannot be read.
    """
    state = ledger.state(key)
    tokens, failure = _loaded(store, key)
    for _ in range(_LOOKS):
        now = ledger.state(key)
        if now.version == state.version:
            break
        state = now
        tokens, failure = _loaded(store, key)
    return _found(ledger, store, key, state, tokens, failure)


def _loaded(store: TokenStore, key: LeaseKey) -> tuple[PersistedTokens | None, Exception | None]:
    try:
        return store.load(key), None
    except Exception as error:
        return None, error


def _found(
    ledger: LeaseLedger,
    store: TokenStore,
    key: LeaseKey,
    state: LeaseState,
    tokens: PersistedTokens | None,
    failure: Exception | None,
) -> FoundTokens:
    if failure is not None:
        code = TokensCode.UNREADABLE if isinstance(failure, UNUSABLE_TOKENS) else TokensCode.UNAVAILABLE
        return FoundTokens(code, state, failure=failure)
    found = None if tokens is None else provenance_of(ledger, key, state, tokens)
    if (found is None or found.token_class is TokenClass.SUPERSEDED) and login_never_saved(ledger, store, key, state):
        return FoundTokens(TokensCode.UNSAVED_LOGIN, state, event_id=state.published_by)
    if found is None:
        return FoundTokens(TokensCode.MISSING if state.credential_present else TokensCode.NONE, state)
    return FoundTokens(
        TokensCode(found.token_class.value),
        state,
        found.generation,
        found.event_id,
        found.attempt,
        found.superseded_by,
    )
