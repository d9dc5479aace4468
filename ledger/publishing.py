"""The last part of a refresh: the new tokens saved, then their event appended, as one boundary under the guard.

The store goes first. A crash after the save leaves tokens whose marker names the attempt and the event to come, and
whoever looks next finishes that; a crash the other way round would lose the only live token.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec

from ledger.arguments import is_code
from ledger.commands import Publication
from ledger.effects import Procedure, pause, step
from ledger.errors import LeaseTransitionError
from ledger.events import AttemptEnd
from ledger.handle import RefreshAttempt
from ledger.lease_ledger import LeaseLedger
from ledger.marker import marker_attempt
from ledger.provenance import TokenClass, provenance_of
from ledger.recovery import marked_for, recover
from ledger.refresh_errors import TokensNotSaved
from ledger.state import LeaseState
from ledger.store_errors import TokensChanged
from ledger.stores.base import TokenStore, expectation_of
from ledger.tokens import PersistedTokens, persisted_token_expires_at_epoch_secs

__all__ = ["Saved", "recordable_code", "save_and_record"]

FIRST_RETRY_S: Final = 0.05
LONGEST_RETRY_S: Final = 1.0

_REPLACEABLE: Final = (
    TokenClass.CURRENT,
    TokenClass.UNMARKED,
    TokenClass.SUPERSEDED,
    TokenClass.ORPHANED,
)


class Saved(msgspec.Struct, frozen=True):
    """How a refresh ended.

    Attributes:
        tokens: The tokens now in force; ``None`` when something newer overtook them, or a logout did.
        unwanted: Tokens the server gave out that nobody will use, to be revoked where that can be done.
    """

    tokens: PersistedTokens | None
    unwanted: PersistedTokens | None = None


class _Written(msgspec.Struct, frozen=True):
    """Tokens that are saved, and the publication that is still to be recorded."""

    publication: Publication
    marked: PersistedTokens
    late: bool


class _Publishing:
    def __init__(
        self,
        ledger: LeaseLedger,
        store: TokenStore,
        attempt: RefreshAttempt,
        began: LeaseState,
        spent: PersistedTokens,
        received: PersistedTokens,
        monotonic: Callable[[], float],
    ) -> None:
        self.ledger = ledger
        self.store = store
        self.attempt = attempt
        self.key = attempt.key
        self.began = began
        self.spent = spent
        self.received = received
        self.monotonic = monotonic
        self.started_s = monotonic()
        self.settled = False

    def run(self) -> Procedure[Saved]:
        pause_s = FIRST_RETRY_S
        while True:
            try:
                written = yield from self._save_if_wanted()
            except Exception as error:
                if self.monotonic() - self.started_s < self.attempt.duration_ms / 1000:
                    yield from pause(pause_s)
                    pause_s = min(pause_s * 2, LONGEST_RETRY_S)
                    continue
                yield from self._give_up(error)
                raise TokensNotSaved(self.key, self.received, save_error=error) from error
            if isinstance(written, Saved):
                return written
            try:
                yield from step(partial(self._record, written.publication, late=written.late))
            except LeaseTransitionError:
                # Somebody without the guard came in between. What stands now decides anew; the marker of the bytes
                # just saved names an event that will never be, so the next save replaces exactly those.
                self.spent = written.marked
                yield from self._drop_if_released(written.marked)
                continue
            return Saved(written.marked)

    def _save_if_wanted(self) -> "Procedure[Saved | _Written]":
        """Save the new tokens, unless something newer overtook them."""
        state = yield from step(lambda: self.ledger.state(self.key))
        is_open = state.attempt is not None and state.attempt.id == self.attempt.id
        if not is_open and not self._is_only_live_token(state):
            if not self.settled:
                # What overtook us may be a login that was never saved: undone, it leaves our attempt open again.
                yield from recover(self.ledger, self.store, self.key)
                self.settled = True
                return (yield from self._save_if_wanted())
            return Saved(None, None if state.credential_present else self.received)
        publication = yield from step(lambda: self.ledger.plan_publication(self.key))
        marked = marked_for(publication, self.attempt.id, self.received)
        yield from self._save(state, marked)
        return _Written(publication, marked, late=not is_open)

    def _is_only_live_token(self, state: LeaseState) -> bool:
        """Whether nothing was published or released since our attempt began, though it was taken over."""
        return state.credential_present and state.published_by == self.began.published_by

    def _save(self, state: LeaseState, marked: PersistedTokens) -> Procedure[None]:
        spent = self.spent
        try:
            yield from step(lambda: self.store.save(self.key, marked, expect=expectation_of(spent)))
        except Exception as error:
            # A save may fail after its bytes are in place; what can be read back decides.
            found = yield from step(lambda: self.store.load(self.key))
            if found == marked:
                return
            if not isinstance(error, TokensChanged) or not (yield from self._may_replace(state, found)):
                raise
            now = yield from step(lambda: self.ledger.state(self.key))
            if now.version != state.version:
                # Somebody without the guard came in between: what was found may be newer than it seemed.
                raise
            yield from step(lambda: self.store.save(self.key, marked, expect=expectation_of(found)))

    def _may_replace(self, state: LeaseState, found: PersistedTokens | None) -> Procedure[bool]:
        if found is None or marker_attempt(found) == self.attempt.id:
            return True
        provenance = yield from step(lambda: provenance_of(self.ledger, self.key, state, found))
        return provenance.token_class in _REPLACEABLE

    def _record(self, publication: Publication, *, late: bool) -> None:
        expires_at = persisted_token_expires_at_epoch_secs(self.received)
        if late:
            self.ledger.acquire_lease(
                self.key,
                expires_at,
                publication=publication,
                attempt=self.attempt.id,
                cause="late response of an attempt taken over since; its tokens are the only live ones",
            )
            return
        now_s = max(self.ledger.clock() // 1000, 0)
        self.ledger.complete_refresh(self.key, expires_at, now_s, self.attempt, publication=publication)

    def _give_up(self, error: Exception) -> Procedure[None]:
        try:
            yield from step(
                lambda: self.ledger.refresh_failed(
                    self.key,
                    False,
                    attempt=self.attempt,
                    ended=AttemptEnd.NOT_SAVED,
                    error=recordable_code(type(error).__name__),
                    cause="the server gave new tokens, but they could not be stored",
                )
            )
        except Exception:
            # Overtaken, or the ledger fails as well: what matters now is that the caller gets the tokens.
            return

    def _drop_if_released(self, marked: PersistedTokens) -> Procedure[None]:
        state = yield from step(lambda: self.ledger.state(self.key))
        if not state.credential_present:
            try:
                yield from step(lambda: self.store.clear(self.key, expect=expectation_of(marked)))
            except TokensChanged:
                return


def recordable_code(error: object) -> str | None:
    """The error code, unless it is not one: a server may put anything there, and a class may have any name."""
    if error is None:
        return None
    return error if isinstance(error, str) and is_code(error) else "unrecordable_error"


def save_and_record(
    ledger: LeaseLedger,
    store: TokenStore,
    attempt: RefreshAttempt,
    began: LeaseState,
    spent: PersistedTokens,
    received: PersistedTokens,
    monotonic: Callable[[], float],
) -> Procedure[Saved]:
    """Store what an exchange brought and publish it, or find that something newer overtook it.

    Args:
        ledger: Where the publication is recorded.
        store: Where the tokens go.
        attempt: The attempt that was won.
        began: The lease as it was when the attempt began.
        spent: The tokens that were exchanged, and are expected in the store still.
        received: What the server gave.
        monotonic: Seconds on a clock of this process that nobody sets.

    Raises:
        TokensNotSaved: The store refused, or the ledger could not be read, for as long as the attempt lived.
        LedgerStorageError: The tokens are saved, but their event could not be stored; the next use records it.
    """
    return _Publishing(ledger, store, attempt, began, spent, received, monotonic).run()
