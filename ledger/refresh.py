"""Getting tokens that are good for use now, refreshing them at most once among all who ask.

A refresh token may be spent once. So the right to spend it is won in the ledger, everybody else waits for the outcome
and shares it, and the new tokens are saved and recorded before anyone uses them.
"""

import contextlib
import sys
from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec

from ledger.effects import Procedure, exchange, guarded, pause, revoke, step
from ledger.errors import LeaseTransitionError
from ledger.events import AttemptEnd, Holder
from ledger.handle import RefreshAttempt
from ledger.holder import is_provably_gone
from ledger.lease_ledger import LeaseLedger
from ledger.look import FreshRequest, Look, is_same
from ledger.provenance import Provenance, TokenClass
from ledger.publishing import Saved, recordable_code, save_and_record
from ledger.recovery import abandon, recover
from ledger.refresh_errors import (
    LedgerBehindStore,
    ReauthRequired,
    RefreshError,
    RefreshTimedOut,
    TokensElsewhere,
    TokensNotSaved,
)
from ledger.snapshot import MAX_U64, AuthLeasePhase
from ledger.state import LastFailure, LeaseState
from ledger.store_errors import TokenStoreError
from ledger.stores.base import TokenStore
from ledger.threads import Stopped
from ledger.tokens import PersistedTokens
from ledger.watch import HOLDER_CHECK_EVERY_S, AttemptWatch, duration_s

__all__ = ["fresh_tokens"]

PATIENCE_IN_DEADLINES: Final = 4
LONGEST_COOL_DOWN_S: Final = 30.0
LARGEST_SKEW_S: Final = 60.0


class _Fresh:
    """One call of ``fresh``: its request, its clocks, and what it has seen so far."""

    def __init__(
        self,
        ledger: LeaseLedger,
        store: TokenStore,
        request: FreshRequest,
        monotonic: Callable[[], float],
        is_gone: Callable[[Holder], bool],
        look: Look | None,
    ) -> None:
        self.first_look = look
        self.ledger = ledger
        self.store = store
        self.request = request
        self.key = request.key
        self.monotonic = monotonic
        self.is_gone = is_gone
        self.started_s = monotonic()
        self.watch: AttemptWatch | None = None

    def run(self) -> Procedure[PersistedTokens]:
        while True:
            state, tokens, remaining_s = yield from self._current()
            rejected = is_same(tokens, self.request.rejected)
            if not rejected and (remaining_s >= self.request.window_s or self._was_published(state, remaining_s)):
                return tokens
            usable = not rejected and remaining_s >= self.request.leeway_s
            if state.phase is AuthLeasePhase.REFRESHING:
                if usable:
                    return tokens
                yield from self._wait_for_outcome(state)
                continue
            if usable and self._is_cooling_down(state):
                return tokens
            failure = self._failure_to_share(state)
            if failure is not None:
                raise failure
            saved = yield from self._attempt(state, tokens, usable=usable)
            if saved is not None:
                return saved

    def _current(self) -> Procedure[tuple[LeaseState, PersistedTokens, float]]:
        """The lease, its current tokens and their remaining seconds, after finishing what a crash may have left."""
        look, self.first_look = self.first_look, None
        if look is None:
            look = yield from step(partial(Look.at, self.ledger, self.store, self.key))
        if not look.is_usable:
            # Somebody may be between its two writes right now: whoever is holds the guard.
            look = yield from guarded(self.key, self._settled)
        self._raise_unless_live(look.state)
        if look.tokens is None or not look.is_usable:
            raise self._not_usable(look.state, look.provenance)
        return look.state, look.tokens, look.remaining_s(self.ledger)

    def _settled(self) -> Procedure[Look]:
        yield from recover(self.ledger, self.store, self.key)
        look = yield from step(partial(Look.at, self.ledger, self.store, self.key))
        return look

    def _raise_unless_live(self, state: LeaseState) -> None:
        if not state.credential_present:
            reason = "it was logged out" if state.generation else "nobody has logged in yet"
            raise ReauthRequired(self.key, reason)
        if state.phase is AuthLeasePhase.REAUTH_REQUIRED:
            last = state.last_failure
            if last is not None and last.permanent:
                raise ReauthRequired(self.key, f"the refresh was refused for good ({last.error})", last.error)
            raise ReauthRequired(self.key, "the lease says that only a person can go on")

    def _not_usable(self, state: LeaseState, provenance: Provenance | None) -> TokensElsewhere | LedgerBehindStore:
        if provenance is not None and provenance.token_class is TokenClass.AHEAD:
            return LedgerBehindStore(self.key, state.generation, provenance.generation)
        return TokensElsewhere(self.key, state.generation)

    def _was_published(self, state: LeaseState, remaining_s: float) -> bool:
        """Whether what we waited for came; then its tokens will do however short they live."""
        return self.watch is not None and state.published_by != self.watch.published_by and remaining_s > 0

    def _wait_for_outcome(self, state: LeaseState) -> Procedure[None]:
        if self.watch is None or not self.watch.is_on(state):
            self.watch = AttemptWatch(state, self.monotonic())
        watch = self.watch
        since = yield from step(self.ledger.recorder.change_token)
        state = yield from step(lambda: self.ledger.state(self.key))
        while watch.is_on(state):
            now_s = self.monotonic()
            patience_s = PATIENCE_IN_DEADLINES * max(self.request.refresh_deadline_s, duration_s(state))
            if now_s - self.started_s > patience_s:
                raise RefreshTimedOut(self.key, now_s - self.started_s)
            if watch.is_over(now_s, self.is_gone):
                yield from self._take_over(state)
                return
            yield from pause(HOLDER_CHECK_EVERY_S, since)
            since = yield from step(self.ledger.recorder.change_token)
            state = yield from step(lambda: self.ledger.state(self.key))

    def _take_over(self, state: LeaseState) -> Procedure[None]:
        # Tokens it saved before it fell silent are finished instead of thrown away.
        yield from guarded(self.key, lambda: recover(self.ledger, self.store, self.key))
        yield from abandon(self.ledger, self.key, state, "its holder is gone or its time is over")

    def _failure_to_share(self, state: LeaseState) -> RefreshError | None:
        """The failure of the attempt we waited for, or the one after which the server wants to be left alone."""
        last = state.last_failure
        if last is None or last.abandoned:
            return None
        wait_s = (last.retry_after or 0.0) - self._passed_s(last)
        if wait_s <= 0 and (self.watch is None or not self.watch.failed_with(last)):
            return None
        return RefreshError(False, last.error, last.status, wait_s if wait_s > 0 else None)

    def _is_cooling_down(self, state: LeaseState) -> bool:
        """Whether a refresh failed so lately that tokens which still live are better used than refreshed again."""
        last = state.last_failure
        if last is None or last.abandoned:
            return False
        doubling_s = min(2.0 ** min(last.consecutive - 1, 10), LONGEST_COOL_DOWN_S)
        return self._passed_s(last) < max(last.retry_after or 0.0, doubling_s)

    def _passed_s(self, last: LastFailure) -> float:
        passed_s = (self.ledger.clock() - last.at) / 1000
        # A failure far in the future was told by another clock, or ours was set back: its time then says nothing.
        return float("inf") if passed_s < -LARGEST_SKEW_S else max(passed_s, 0.0)

    def _attempt(
        self, state: LeaseState, tokens: PersistedTokens, *, usable: bool
    ) -> Procedure[PersistedTokens | None]:
        """Try to refresh. ``None``: somebody else was first, look again."""
        try:
            # Once a token is spent it is too late to hear that its successor cannot be kept.
            yield from step(lambda: self.store.check_savable(self.key))
        except TokenStoreError:
            if usable:
                return tokens
            raise
        attempt = yield from self._begin(state, tokens)
        if attempt is None:
            return None
        ended = AttemptEnd.NOT_SENT
        try:
            if not (yield from self._is_still_ours(attempt, tokens)):
                return None
            ended = AttemptEnd.UNANSWERED
            response = yield from exchange(tokens)
            ended = AttemptEnd.UNUSABLE
            received = _carried_forward(tokens, response)
        except GeneratorExit:
            raise
        except BaseException as error:
            return (yield from self._failed(attempt, tokens, error, ended, usable=usable))
        saved = yield from self._publish(attempt, state, tokens, received)
        if saved.unwanted is not None:
            yield from revoke(saved.unwanted)
        return saved.tokens

    def _publish(
        self, attempt: RefreshAttempt, state: LeaseState, spent: PersistedTokens, received: PersistedTokens
    ) -> Procedure[Saved]:
        entered = False

        def part() -> Procedure[Saved]:
            nonlocal entered
            entered = True
            return (
                yield from save_and_record(self.ledger, self.store, attempt, state, spent, received, self.monotonic)
            )

        try:
            saved = yield from guarded(self.key, part, holds_new_tokens=True)
        except Exception as error:
            if entered:
                raise
            # The guard was not to be had, so nobody but the caller holds what the server gave.
            with contextlib.suppress(Exception):
                yield from self._close(attempt, AttemptEnd.NOT_SAVED, error=type(error).__name__)
            raise TokensNotSaved(self.key, received, save_error=error) from error
        return saved

    def _begin(self, state: LeaseState, tokens: PersistedTokens) -> Procedure[RefreshAttempt | None]:
        refresh_token = tokens.refresh_token
        fingerprint: str | None = None
        if refresh_token is not None:
            fingerprint = yield from step(lambda: self.ledger.fingerprint(refresh_token))
        try:
            attempt = yield from step(
                lambda: self.ledger.begin_refresh(
                    self.key,
                    duration_ms=round(self.request.refresh_deadline_s * 1000),
                    fingerprint=fingerprint,
                    at_version=state.version,
                )
            )
        except LeaseTransitionError:
            return None
        return attempt

    def _is_still_ours(self, attempt: RefreshAttempt, tokens: PersistedTokens) -> Procedure[bool]:
        """Whether the store still holds what we are about to spend and the attempt is still ours to make."""
        stored = yield from step(lambda: self.store.load(self.key))
        if stored is None or not is_same(stored, tokens):
            yield from self._close(attempt, AttemptEnd.NOT_SENT, error="TokensChanged")
            return False
        now = yield from step(lambda: self.ledger.state(self.key))
        return now.attempt is not None and now.attempt.id == attempt.id

    def _failed(
        self,
        attempt: RefreshAttempt,
        tokens: PersistedTokens,
        error: BaseException,
        ended: AttemptEnd,
        *,
        usable: bool,
    ) -> Procedure[PersistedTokens | None]:
        if ended is AttemptEnd.NOT_SENT or not isinstance(error, Exception):
            # Stopped means that the exchange was not begun; any other interrupt may have come out of its midst.
            stopped = isinstance(error, Stopped)
            how = AttemptEnd.INTERRUPTED if stopped else ended
            # Whatever closing the attempt runs into, what ended it comes out.
            with contextlib.suppress(Exception):
                yield from self._close(attempt, how, error=None if stopped else type(error).__name__)
            raise error
        what = error if isinstance(error, RefreshError) else RefreshError(False, type(error).__name__)
        answered = isinstance(error, RefreshError) and (error.error is not None or error.status is not None)
        closed = yield from self._close(
            attempt,
            AttemptEnd.ANSWERED if answered else ended,
            permanent=what.permanent,
            error=what.error,
            status=what.status,
            retry_after=what.retry_after,
        )
        if not closed:
            # Taken over or overtaken: what stands now decides, not an answer to a request that no longer counts.
            return None
        if what.permanent:
            code = recordable_code(what.error)
            raise ReauthRequired(self.key, f"the refresh was refused for good ({code})", code) from error
        if usable:
            return tokens
        raise what from (None if what is error else error)

    def _close(
        self,
        attempt: RefreshAttempt,
        ended: AttemptEnd,
        *,
        permanent: bool = False,
        error: str | None,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> Procedure[bool]:
        try:
            yield from step(
                lambda: self.ledger.refresh_failed(
                    self.key,
                    permanent,
                    attempt=attempt,
                    ended=ended,
                    error=recordable_code(error),
                    status=_recordable_status(status),
                    retry_after=_recordable_wait(retry_after),
                )
            )
        except LeaseTransitionError:
            return False
        return True


def _carried_forward(old: PersistedTokens, response: PersistedTokens) -> PersistedTokens:
    """The response, completed by what it leaves out and the old tokens still say."""
    if not isinstance(response, PersistedTokens):
        raise TypeError(f"a refresh function returns PersistedTokens, not {type(response).__name__}")
    return msgspec.structs.replace(
        response,
        refresh_token=old.refresh_token if response.refresh_token is None else response.refresh_token,
        id_token=old.id_token if response.id_token is None else response.id_token,
        account_id=old.account_id if response.account_id is None else response.account_id,
        scopes=response.scopes or old.scopes,
        metadata=old.metadata if response.metadata is None else response.metadata,
    )


def _recordable_status(status: object) -> int | None:
    """The HTTP status, unless it is no number that an event can carry."""
    return status if isinstance(status, int) and not isinstance(status, bool) and 0 <= status <= MAX_U64 else None


def _recordable_wait(seconds: object) -> float | None:
    """The seconds to wait, unless no event can carry them; a moment already past is no wait at all."""
    # Integers may be greater than any float.
    if not isinstance(seconds, int | float) or not abs(seconds) <= sys.float_info.max:
        return None
    return max(float(seconds), 0.0)


def fresh_tokens(
    ledger: LeaseLedger,
    store: TokenStore,
    request: FreshRequest,
    look: Look | None = None,
    *,
    monotonic: Callable[[], float],
    is_gone: Callable[[Holder], bool] = is_provably_gone,
) -> Procedure[PersistedTokens]:
    """The procedure behind ``Credentials.fresh``; see there.

    Args:
        ledger: Where the right to refresh is won and the outcome recorded.
        store: Where the tokens are.
        request: What the caller asks for.
        look: The caller's own look, just taken; the procedure takes one itself without it.
        monotonic: Seconds on a clock of this process that nobody sets.
        is_gone: Whether a holder's process certainly no longer runs.
    """
    return _Fresh(ledger, store, request, monotonic, is_gone, look).run()
