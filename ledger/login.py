"""Logging in and out as procedures, each run under the lease's login guard."""

import contextlib

from ledger.effects import Procedure, guarded, revoke, step
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.lifecycle import clear_tokens_and_publish_lifecycle_released
from ledger.marker import mark_tokens_lifecycle_published_for_transition
from ledger.provenance import TokenClass, provenance_of
from ledger.recovery import place_digest, recover
from ledger.refresh_errors import LedgerBehindStore, TokensNotSaved
from ledger.snapshot import AuthLeaseTransition
from ledger.state import snapshot_of
from ledger.store_errors import TokenSerializationError
from ledger.stores.base import TokenStore
from ledger.tokens import PersistedTokens, persisted_token_expires_at_epoch_secs

__all__ = ["login", "logout", "logout_and_revoke"]


def login(
    ledger: LeaseLedger,
    store: TokenStore,
    key: LeaseKey,
    tokens: PersistedTokens,
    cause: str | None,
    correlation_id: str | None,
) -> Procedure[AuthLeaseTransition]:
    """Publish a login: its event, then one save of the tokens marked with it. A failed save is undone.

    Raises:
        TokensNotSaved: The store refused; a restore event names the login it undoes.
        TokenStoreError: The store could not even be read; nothing was recorded.
        LedgerStorageError: The event could not be stored; nothing changed.
    """
    # Tokens that cannot be read are what this login replaces.
    with contextlib.suppress(TokenSerializationError):
        yield from recover(ledger, store, key)
    expires_at = persisted_token_expires_at_epoch_secs(tokens)
    transition = yield from step(
        lambda: ledger.acquire_lease(
            key, expires_at, store=place_digest(store), cause=cause, correlation_id=correlation_id
        )
    )
    marked = mark_tokens_lifecycle_published_for_transition(tokens, transition)
    try:
        yield from step(lambda: store.save(key, marked))
    except Exception as error:
        # A save may fail after its bytes are in place; what can be read back decides.
        if (yield from _is_stored(store, key, marked)):
            return transition
        restore_error = yield from _undo(ledger, key, transition)
        raise TokensNotSaved(key, tokens, restore_error, error) from error
    return transition


def _is_stored(store: TokenStore, key: LeaseKey, tokens: PersistedTokens) -> Procedure[bool]:
    try:
        stored = yield from step(lambda: store.load(key))
    except Exception:
        return False
    return stored == tokens


def _undo(ledger: LeaseLedger, key: LeaseKey, login: AuthLeaseTransition) -> Procedure[Exception | None]:
    assert login.version is not None
    replaced = login.version - 1
    try:
        # A refresh needs no guard: one may have begun right before the login's event, and its attempt comes back too.
        before = yield from step(lambda: ledger.state(key, replaced))
        yield from step(
            lambda: ledger.restore_auth_lifecycle_snapshot(
                key,
                snapshot_of(before),
                compensates=login.version,
                cause="the tokens of this login could not be stored",
            )
        )
    except Exception as error:
        return error
    return None


def logout(ledger: LeaseLedger, store: TokenStore, key: LeaseKey) -> Procedure[PersistedTokens | None]:
    """Release the lease and destroy the tokens; returns those that were stored, for the server to be told.

    Raises:
        TokenLifecycleClearError: It could not be finished; its subclass says what stands now.
        LedgerBehindStore: The stored tokens are newer than this ledger knows of. Nothing was released or cleared.
    """
    tokens: PersistedTokens | None = None
    behind: LedgerBehindStore | None = None
    # Whatever is wrong with the store shows again in the boundary, which knows what to do about it.
    with contextlib.suppress(Exception):
        yield from recover(ledger, store, key)
        tokens = yield from step(lambda: store.load(key))
        behind = yield from step(lambda: _ledger_behind(ledger, key, tokens))
    if behind is not None:
        raise behind
    yield from step(lambda: clear_tokens_and_publish_lifecycle_released(store, ledger, key))
    return tokens


def logout_and_revoke(ledger: LeaseLedger, store: TokenStore, key: LeaseKey) -> Procedure[None]:
    """Log out under the guard; then tell the server, which cannot undo it any more."""
    tokens = yield from guarded(key, lambda: logout(ledger, store, key))
    if tokens is not None:
        yield from revoke(tokens)


def _ledger_behind(ledger: LeaseLedger, key: LeaseKey, tokens: PersistedTokens | None) -> LedgerBehindStore | None:
    """The error of using an older copy of the ledger, if the tokens show that this is one."""
    if tokens is None:
        return None
    state = ledger.state(key)
    provenance = provenance_of(ledger, key, state, tokens)
    if provenance.token_class is not TokenClass.AHEAD:
        return None
    return LedgerBehindStore(key, state.generation, provenance.generation)
