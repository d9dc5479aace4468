"""What is not in order between a ledger and a token store, with the evidence; and mending what can be mended.

Looking changes nothing. A fix is what the next use of the key would do by itself: it runs under the login guard, and
every change of a lease that it makes is an event.
"""

from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Final

import msgspec

from ledger.credentials import Credentials
from ledger.events import Holder
from ledger.holder import is_provably_gone
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.snapshot import AuthLeasePhase
from ledger.state import LeaseState
from ledger.stores.base import TokenStore
from ledger.watch import duration_s
from projections.stored_tokens import FoundTokens, TokensCode, look_at_tokens
from projections.times import utc_text

__all__ = ["Condition", "Diagnosis", "examine", "fix"]


class Condition(StrEnum):
    """What can be found on a key.

    * ``unrecorded``: tokens were saved by an attempt, and their event is missing. Mended by recording it.
    * ``orphaned``: the lease was released, and its tokens are still stored. Mended by clearing them, if they name the
      event that was released.
    * ``unsaved_login``: a login was recorded, and its tokens are not where they were to be saved. Mended by a restore
      event.
    * ``abandoned``: a refresh attempt is open whose holder is provably gone. Mended by recording that.
    * ``overdue``: a refresh attempt is open for longer than it said it may take, or is dated so far ahead that nobody
      can tell. Whoever uses the key next waits for it as long as it may take, and takes over.
    * ``missing``: the lease is live, and this store holds no tokens for it.
    * ``superseded``: the stored tokens are older than the lease; those in force are not here.
    * ``foreign``: the stored tokens name an event this ledger never saw.
    * ``ahead``: the same beyond the ledger's own generation: this ledger is an older copy, or another published them.
    * ``unreadable``: what is stored cannot be read, or not as tokens.
    * ``unavailable``: the store could not be asked.
    """

    UNRECORDED = "unrecorded"
    ORPHANED = "orphaned"
    UNSAVED_LOGIN = "unsaved_login"
    LOGIN_NOT_SAVED = UNSAVED_LOGIN
    ABANDONED = "abandoned"
    OVERDUE = "overdue"
    MISSING = "missing"
    SUPERSEDED = "superseded"
    FOREIGN = "foreign"
    AHEAD = "ahead"
    UNREADABLE = "unreadable"
    UNAVAILABLE = "unavailable"


_LARGEST_SKEW_MS: Final = 60_000

_ADVICE: Final = {
    TokensCode.UNRECORDED: "",
    TokensCode.ORPHANED: "",
    TokensCode.UNSAVED_LOGIN: "",
    TokensCode.MISSING: "; use the store that holds them, or log in again",
    TokensCode.SUPERSEDED: "; they must not be spent: use the store that holds the newer ones, or log in again",
    TokensCode.FOREIGN: "; log in again to replace them",
    TokensCode.AHEAD: "; open the ledger that published them, or log in again",
    TokensCode.UNREADABLE: "; make it readable, or log in again to replace it",
    TokensCode.UNAVAILABLE: "",
}
"""What to do about what is not in order; whatever is not here is."""


class Diagnosis(msgspec.Struct, frozen=True, omit_defaults=True):
    """One finding.

    Attributes:
        key: The lease.
        condition: What was found.
        text: The same in words, and what to do.
        generation: The lease's generation.
        event_id: The event the stored tokens name, or the one in force.
        attempt: The attempt concerned.
        mendable: Whether :func:`fix` can mend it.
        since_ms: Of an open attempt: when it began, epoch milliseconds on its holder's clock.
        overdue_from_ms: Of an open attempt: from when on it takes longer than it may, on that clock.
    """

    key: str
    condition: Condition
    text: str
    generation: int
    event_id: str | None = None
    attempt: str | None = None
    mendable: bool = False
    since_ms: int | None = None
    overdue_from_ms: int | None = None


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
    found = look_at_tokens(ledger, store, key)
    yield from _of_attempt(ledger, key, found.state, is_gone)
    yield from _of_tokens(key, found)


def _of_attempt(
    ledger: LeaseLedger, key: LeaseKey, state: LeaseState, is_gone: Callable[[Holder], bool]
) -> Iterator[Diagnosis]:
    if state.phase is not AuthLeasePhase.REFRESHING:
        return
    attempt, now_ms = state.attempt, ledger.clock()
    since_ms, actor = _opened(ledger, key, state)
    over_ms = since_ms + round(duration_s(state) * 1000)
    gone = attempt is not None and is_gone(attempt.holder)
    if not gone and since_ms - _LARGEST_SKEW_MS <= now_ms < over_ms:
        return
    whose = (
        "a refresh that nobody here began"
        if attempt is None
        else f"attempt {attempt.id[:8]} of {actor} (process {attempt.holder.pid} on {attempt.holder.host})"
    )
    how = (
        "its process is gone, so whoever uses the key next on this machine takes over at once"
        if gone
        else f"whether its process still runs is not proven; from {_when(over_ms)} on whoever has waited for it "
        f"{duration_s(state):g} s takes over"
    )
    yield Diagnosis(
        str(key),
        Condition.ABANDONED if gone else Condition.OVERDUE,
        f"{whose} is open since {_when(since_ms)}, by the clock of whoever began it, and may take "
        f"{duration_s(state):g} s; {how}",
        state.generation,
        attempt=None if attempt is None else attempt.id,
        mendable=gone,
        since_ms=since_ms,
        overdue_from_ms=over_ms,
    )


def _opened(ledger: LeaseLedger, key: LeaseKey, state: LeaseState) -> tuple[int, str]:
    """When the attempt that is open began, or came back by a restore that alone is known; and by whom."""
    began = None if state.attempt is None else ledger.find(key, state.attempt.id)
    since = state.version if state.refreshing_since is None else state.refreshing_since
    event = next(iter(ledger.read(key, since - 1))).event if began is None else began.event
    return event.at, event.actor


def _when(at_ms: int) -> str:
    return utc_text(at_ms) or f"{at_ms} ms"


def _of_tokens(key: LeaseKey, found: FoundTokens) -> Iterator[Diagnosis]:
    if found.code in _ADVICE:
        yield Diagnosis(
            str(key),
            Condition(found.code.value),
            f"generation {found.state.generation}: {found.text}{_ADVICE[found.code]}",
            found.state.generation,
            event_id=found.state.published_by if found.code is TokensCode.MISSING else found.event_id,
            attempt=found.attempt,
            mendable=found.is_mended_by_use,
        )


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
