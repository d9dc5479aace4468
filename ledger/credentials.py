"""What an agent uses: log in, get tokens that are good now, log out. Leaves nothing half done."""

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from ledger.driver import perform
from ledger.effects import guarded
from ledger.events import Holder
from ledger.holder import is_provably_gone
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.login import login, logout_and_revoke
from ledger.look import FreshRequest, Look
from ledger.recovery import recover
from ledger.refresh import fresh_tokens
from ledger.snapshot import AuthLeaseTransition
from ledger.status import PublishedAuthStatus, project_published_auth_status
from ledger.stores.base import TokenStore
from ledger.tokens import PersistedTokens

__all__ = ["Credentials"]

DEFAULT_REFRESH_DEADLINE_S: Final = 60.0
DEFAULT_WINDOW_S: Final = 60.0
DEFAULT_LEEWAY_S: Final = 10.0


class Credentials:
    """Logins shared by many threads and processes, none of which logs another out.

    An interrupt (Ctrl-C, or whatever a signal handler raises) tears none of it: what it meets is stopped where nothing
    is lost, or comes to its end, and then the interrupt comes out. An exchange under way is waited for, at most
    ``refresh_deadline`` more seconds, for its answer may be the only live token. A second interrupt comes out at once
    (a third one, while there are tokens that no store has yet), with a note on what goes on without it.

    Args:
        ledger: The ledger, shared by all.
        store: Where the tokens are, shared by all.
        refresh_deadline: Seconds a refresh may take before others may take it over. Longer than the HTTP timeout
            of the refresh function.
        revoke: Tells the server that tokens are no longer wanted; used for late responses that a logout overtook.
        monotonic: Seconds on a clock that nobody sets.
        is_gone: Whether a holder's process certainly no longer runs.

    Raises:
        ValueError: The deadline is no positive number of seconds, or has no end.
    """

    def __init__(
        self,
        ledger: LeaseLedger,
        store: TokenStore,
        *,
        refresh_deadline: float = DEFAULT_REFRESH_DEADLINE_S,
        revoke: Callable[[PersistedTokens], object] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        is_gone: Callable[[Holder], bool] = is_provably_gone,
    ) -> None:
        if not 0 < refresh_deadline < math.inf:
            raise ValueError(f"refresh_deadline is a positive number of seconds, not {refresh_deadline!r}")
        self.ledger = ledger
        self.store = store
        self.refresh_deadline = refresh_deadline
        self._revoke = revoke
        self._monotonic = monotonic
        self._is_gone = is_gone

    def __repr__(self) -> str:
        return f"<Credentials of {self.ledger!r} in {self.store.backend_name}>"

    def login(
        self, key: LeaseKey, tokens: PersistedTokens, *, cause: str | None = None, correlation_id: str | None = None
    ) -> AuthLeaseTransition:
        """Publish a login: one event, then one save of the tokens marked with it.

        A save that fails is undone by a recorded restore: the lease is as it was, and so are the stored tokens.

        Args:
            key: The lease.
            tokens: What the server gave.
            cause: Why, for the history.
            correlation_id: What to file the event under.

        Raises:
            TokensNotSaved: The store refused; the tokens are in the error, never in its text.
            LedgerStorageError: The event could not be stored; nothing changed.
            GuardTimeout: Another login, logout or recovery held the lease's guard all the time.
        """
        return perform(
            lambda: guarded(key, lambda: login(self.ledger, self.store, key, tokens, cause, correlation_id)),
            self.ledger,
        )

    def fresh(
        self,
        key: LeaseKey,
        refresh: Callable[[PersistedTokens], PersistedTokens],
        *,
        window: float = DEFAULT_WINDOW_S,
        leeway: float = DEFAULT_LEEWAY_S,
        rejected: PersistedTokens | None = None,
    ) -> PersistedTokens:
        """Tokens good for use now, refreshed at most once among all threads, processes and machines that ask.

        With tokens that live long enough this reads one file and writes nothing.

        Args:
            key: The lease.
            refresh: Spends the refresh token of the tokens it is given and returns the new ones. What they leave
                out (refresh token, scopes, account, metadata) is carried forward. Raises :class:`RefreshError` for
                what the server said; anything else counts as a failure for now.
            window: Seconds; a refresh starts when less remain.
            leeway: Seconds; while another refreshes, tokens with so many left are returned at once, else the call
                waits for the outcome and shares it.
            rejected: Tokens the server refused before their time. Refreshed only if they are still the current
                ones; else the newer ones are returned.

        Raises:
            ReauthRequired: No way on without a person.
            RefreshError: The refresh failed for now, here or in the process waited for, and the tokens have too
                little life left to go on with.
            RefreshTimedOut: Others were refreshing all the time; the login stands.
            GuardTimeout: Something had to be finished first, and somebody held the lease's guard all the time.
            TokensNotSaved: The server gave new tokens, the store refused them; they are in the error.
            TokensElsewhere: The stored tokens are not those of the lease, or there are none.
            LedgerBehindStore: This ledger is an older copy. Nothing was spent.
            TokenStoreError: The store could not be read.
            LedgerStorageError: The ledger could not be read or written.
        """
        request = FreshRequest(key, window, leeway, rejected, self.refresh_deadline)
        # Reading tears nothing, so it needs no thread of its own.
        look = Look.at(self.ledger, self.store, key)
        if look.tokens is not None and look.has_left(window, self.ledger, rejected):
            return look.tokens
        return perform(
            lambda: fresh_tokens(
                self.ledger, self.store, request, look, monotonic=self._monotonic, is_gone=self._is_gone
            ),
            self.ledger,
            refresh,
            self._revoke,
            patience_s=self.refresh_deadline,
        )

    def logout(
        self,
        key: LeaseKey,
        *,
        revoke: Callable[[PersistedTokens], object] | None = None,
    ) -> None:
        """Log out: release the lease and destroy the tokens, as one fail-closed boundary; then tell the server.

        A refresh in flight cannot undo it: its attempt is fenced, and its tokens are dropped.

        Args:
            key: The lease.
            revoke: Tells the server. Called after the logout, with the tokens that were stored; whatever it raises
                does not stop or undo the logout.

        Raises:
            TokenLifecycleClearError: It could not be finished; its subclass says what stands now.
            LedgerBehindStore: This ledger is an older copy. Nothing was released or cleared.
            GuardTimeout: Another login, logout or recovery held the lease's guard all the time.
        """
        perform(lambda: logout_and_revoke(self.ledger, self.store, key), self.ledger, revoke=revoke or self._revoke)

    def recover(self, key: LeaseKey) -> None:
        """Finish what a crash left on the lease, as the next use of it would; nothing, when nothing was left.

        Raises:
            GuardTimeout: Another login, logout or recovery held the lease's guard all the time.
            TokenStoreError: The store could not be read or written.
            LedgerStorageError: The ledger could not be read or written.
        """
        perform(lambda: guarded(key, lambda: recover(self.ledger, self.store, key, is_gone=self._is_gone)), self.ledger)

    def status(self, key: LeaseKey) -> PublishedAuthStatus:
        """The lease's status by the ledger, with the stored tokens passed through. Changes nothing.

        Raises:
            TokenStoreError: The store could not be read.
            LedgerStorageError: The ledger could not be read.
        """
        now = datetime.fromtimestamp(self.ledger.clock() / 1000, UTC)
        return project_published_auth_status(now, self.store.load(key), self.ledger.snapshot(key))
