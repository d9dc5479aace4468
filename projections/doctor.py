"""What is not in order between a ledger and a token store, with the evidence; and mending what can be mended.

Looking changes nothing. A fix is what the next use of the key would do by itself: it runs under the login guard, and
every change of a lease that it makes is an event.
"""

from collections.abc import Callable, Iterator
from enum import StrEnum

import msgspec

from ledger.credentials import Credentials
from ledger.events import Holder
from ledger.holder import is_provably_gone
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.provenance import Provenance, TokenClass, provenance_of
from ledger.recovery import login_never_saved
from ledger.state import LeaseState
from ledger.store_errors import TokenSerializationError, TokenStoreError
from ledger.stores.base import TokenStore

__all__ = ["Condition", "Diagnosis", "examine", "fix"]


class Condition(StrEnum):
    """What can be found on a key.

    * ``unrecorded``: tokens were saved by an attempt, and their event is missing. Mended by recording it.
    * ``orphaned``: the lease was released, and its tokens are still stored. Mended by clearing them.
    * ``login_not_saved``: a login was recorded, and its tokens were never saved where they should be. Mended by a
      restore event.
    * ``abandoned``: a refresh attempt is open whose holder is provably gone. Mended by recording that.
    * ``missing``: the lease is live, and this store holds no tokens for it.
    * ``superseded``: the stored tokens are older than the lease; another store holds the newer ones.
    * ``foreign``: the stored tokens name an event this ledger never saw.
    * ``ahead``: the same beyond the ledger's own generation: this ledger is an older copy.
    * ``unreadable``: what is stored cannot be read as tokens.
    * ``unavailable``: the store could not be asked.
    """

    UNRECORDED = "unrecorded"
    ORPHANED = "orphaned"
    LOGIN_NOT_SAVED = "login_not_saved"
    ABANDONED = "abandoned"
    MISSING = "missing"
    SUPERSEDED = "superseded"
    FOREIGN = "foreign"
    AHEAD = "ahead"
    UNREADABLE = "unreadable"
    UNAVAILABLE = "unavailable"


_MENDABLE = frozenset({Condition.UNRECORDED, Condition.ORPHANED, Condition.LOGIN_NOT_SAVED, Condition.ABANDONED})


class Diagnosis(msgspec.Struct, frozen=True, omit_defaults=True):
    """One finding.

    Attributes:
        key: The lease.
        condition: What was found.
        text: The same in words, and what to do.
        generation: The lease's generation.
        event_id: The event the stored tokens name, or the one in force.
        attempt: The attempt concerned.
    """

    key: str
    condition: Condition
    text: str
    generation: int
    event_id: str | None = None
    attempt: str | None = None

    @property
    def mendable(self) -> bool:
        """Whether :func:`fix` can mend it."""
        return self.condition in _MENDABLE


def examine(
    ledger: LeaseLedger, store: TokenStore, *, is_gone: Callable[[Holder], bool] = is_provably_gone
) -> Iterator[Diagnosis]:
    """Look at every key of the ledger and of the store. Changes nothing.

    Raises:
        LedgerStorageError: The ledger could not be read.
        TokenStoreError: The store could not say which keys it holds.
    """
    keys = dict.fromkeys([*ledger.keys(), *store.list()])
    for key in keys:
        yield from examine_key(ledger, store, key, is_gone=is_gone)


def examine_key(
    ledger: LeaseLedger,
    store: TokenStore,
    key: LeaseKey,
    *,
    is_gone: Callable[[Holder], bool] = is_provably_gone,
) -> Iterator[Diagnosis]:
    """Look at one key; raises as :func:`examine`."""
    state = ledger.state(key)
    if state.attempt is not None and is_gone(state.attempt.holder):
        yield Diagnosis(
            str(key),
            Condition.ABANDONED,
            f"process {state.attempt.holder.pid} on {state.attempt.holder.host} began a refresh and is gone",
            state.generation,
            attempt=state.attempt.id,
        )
    try:
        tokens = store.load(key)
    except TokenSerializationError as error:
        yield Diagnosis(str(key), Condition.UNREADABLE, f"{error}; log in again to replace it", state.generation)
        return
    except TokenStoreError as error:
        yield Diagnosis(str(key), Condition.UNAVAILABLE, str(error), state.generation)
        return
    provenance = None if tokens is None else provenance_of(ledger, key, state, tokens)
    yield from _of_tokens(ledger, store, key, state, provenance)


def _of_tokens(
    ledger: LeaseLedger, store: TokenStore, key: LeaseKey, state: LeaseState, provenance: Provenance | None
) -> Iterator[Diagnosis]:
    token_class = None if provenance is None else provenance.token_class
    if token_class in (None, TokenClass.SUPERSEDED) and login_never_saved(ledger, store, key, state):
        yield Diagnosis(
            str(key),
            Condition.LOGIN_NOT_SAVED,
            f"the login of generation {state.generation} was recorded, but its tokens were never saved here",
            state.generation,
            event_id=state.published_by,
        )
    elif provenance is None:
        if state.credential_present:
            text = f"generation {state.generation} is live, but this store holds no tokens; use the store that does"
            yield Diagnosis(str(key), Condition.MISSING, text, state.generation, event_id=state.published_by)
    elif provenance.token_class in _WORDS:
        yield Diagnosis(
            str(key),
            Condition(provenance.token_class.value),
            _WORDS[provenance.token_class],
            state.generation,
            event_id=provenance.event_id,
            attempt=provenance.attempt,
        )


_WORDS = {
    TokenClass.UNRECORDED: "tokens were saved by a refresh whose event is missing; the next use records it",
    TokenClass.ORPHANED: "the lease was released, but its tokens are still stored; the next use clears them",
    TokenClass.SUPERSEDED: "the stored tokens are older than the lease and must not be spent; use the newer store",
    TokenClass.FOREIGN: "the stored tokens were published by an event of another ledger; log in again to replace them",
    TokenClass.AHEAD: "the stored tokens are newer than this ledger, which is an older copy; open the current one",
}


def fix(credentials: Credentials, diagnosis: Diagnosis) -> bool:
    """Mend one finding; returns whether it is gone afterwards.

    Raises:
        GuardTimeout: Somebody held the lease's guard all the time.
        LedgerStorageError: The ledger could not be written.
        TokenStoreError: The store could not be written.
    """
    if not diagnosis.mendable:
        return False
    key = LeaseKey.parse(diagnosis.key)
    credentials.recover(key)
    remaining = examine_key(credentials.ledger, credentials.store, key)
    return all(found.condition is not diagnosis.condition for found in remaining)
