"""The boundaries between the ledger and a token store, each fail-closed: what could not be finished is undone.

Two stores cannot commit as one. So each boundary fixes an order in which a crash or a failure leaves something that
is true, and keeps every fault in the error it raises.
"""

import dataclasses

from ledger.errors import LeaseLedgerError
from ledger.handle import AuthLeaseHandle
from ledger.keys import LeaseKey
from ledger.snapshot import NEVER_EXPIRES, AuthLeaseSnapshot, AuthLeaseTransition
from ledger.stores.base import TokenStore
from ledger.tokens import PersistedTokens, persisted_token_expires_at_epoch_secs

__all__ = [
    "LifecycleReleaseFailed",
    "TokenClearAndRestoreFailed",
    "TokenClearFailed",
    "TokenLifecycleClearError",
    "TokenLoadAndClearFailed",
    "clear_tokens_and_publish_lifecycle_released",
    "publish_token_lifecycle_acquired",
    "publish_token_lifecycle_released",
    "restore_token_lifecycle_snapshot",
]


class TokenLifecycleClearError(LeaseLedgerError):
    """A logout could not be finished. The subclass says what stands now."""


class LifecycleReleaseFailed(TokenLifecycleClearError):
    """The lease could not be released and is as it was.

    Tokens are untouched, unless they could not be read and had to be cleared first.

    Attributes:
        release_error: What the handle raised.
    """

    def __init__(self, release_error: Exception) -> None:
        super().__init__(f"AuthMachine lifecycle release failed: {release_error}")
        self.release_error = release_error


class TokenClearFailed(TokenLifecycleClearError):
    """The tokens could not be cleared: they are still stored, and the lease is back as it was.

    Attributes:
        clear_error: What the store raised.
    """

    def __init__(self, clear_error: Exception) -> None:
        super().__init__(f"TokenStore clear failed: {clear_error}")
        self.clear_error = clear_error


class TokenLoadAndClearFailed(TokenLifecycleClearError):
    """The tokens could be neither read nor cleared; the lease is untouched.

    Attributes:
        load_error: What the store raised on reading.
        clear_error: What it raised on clearing.
    """

    def __init__(self, load_error: Exception, clear_error: Exception) -> None:
        super().__init__(f"TokenStore load failed: {load_error}; TokenStore clear failed: {clear_error}")
        self.load_error = load_error
        self.clear_error = clear_error


class TokenClearAndRestoreFailed(TokenLifecycleClearError):
    """The tokens could not be cleared and are still stored, but the lease is released and could not be put back.

    Attributes:
        clear_error: What the store raised.
        restore_error: What the handle raised.
    """

    def __init__(self, clear_error: Exception, restore_error: Exception) -> None:
        super().__init__(
            f"TokenStore clear failed: {clear_error}; AuthMachine lifecycle restore failed: {restore_error}"
        )
        self.clear_error = clear_error
        self.restore_error = restore_error


def publish_token_lifecycle_acquired(
    handle: AuthLeaseHandle, key: LeaseKey, tokens: PersistedTokens
) -> AuthLeaseTransition:
    """Publish a login whose expiry is the tokens' own; tokens without one give a lease that never expires.

    Raises whatever the handle raises.
    """
    return handle.acquire_lease(key, persisted_token_expires_at_epoch_secs(tokens))


def publish_token_lifecycle_released(handle: AuthLeaseHandle, key: LeaseKey) -> None:
    """Publish that the lease was given up. Raises whatever the handle raises."""
    handle.release_lease(key)


def restore_token_lifecycle_snapshot(
    handle: AuthLeaseHandle,
    key: LeaseKey,
    snapshot: AuthLeaseSnapshot,
    previous_tokens: PersistedTokens | None = None,
) -> None:
    """Put a lease back as it was before a boundary that could not be finished.

    Does nothing for a snapshot without a live credential: it never clears a lease, and it never makes one out of
    token bytes, whatever ``previous_tokens`` say.

    Args:
        handle: Where the lease is kept.
        key: The lease.
        snapshot: The lease as it was.
        previous_tokens: What was stored then; the snapshot alone decides.

    Raises whatever the handle raises.
    """
    if snapshot.is_live:
        expires_at = NEVER_EXPIRES if snapshot.expires_at is None else snapshot.expires_at
        handle.restore_auth_lifecycle_snapshot(key, snapshot, expires_at)


def clear_tokens_and_publish_lifecycle_released(store: TokenStore, handle: AuthLeaseHandle, key: LeaseKey) -> None:
    """Log out: release the lease, then destroy the tokens, as one fail-closed boundary.

    The ledger goes first: status is already "unknown" while the tokens still exist. If they cannot be cleared, a
    restore event puts the lease back and names the release it undoes; it is refused when anything, such as a newer
    login, came in between. Tokens that cannot even be read are cleared first, for nobody could put them back.

    Raises:
        LifecycleReleaseFailed: The lease could not be released; tokens untouched, unless they were unreadable and
            had to be cleared first.
        TokenClearFailed: Tokens survive, and the lease is back as it was.
        TokenLoadAndClearFailed: Tokens unreadable and not to be cleared; the lease is untouched.
        TokenClearAndRestoreFailed: Tokens survive, and the lease stays released.
    """
    before = handle.snapshot(key)
    try:
        previous = store.load(key)
    except Exception as load_error:
        try:
            store.clear(key)
        except Exception as clear_error:
            raise TokenLoadAndClearFailed(load_error, clear_error) from clear_error
        _release(handle, key)
        return
    _release(handle, key)
    try:
        store.clear(key)
    except Exception as clear_error:
        try:
            restore_token_lifecycle_snapshot(handle, key, _undoing_the_next_event(before), previous)
        except Exception as restore_error:
            raise TokenClearAndRestoreFailed(clear_error, restore_error) from clear_error
        raise TokenClearFailed(clear_error) from clear_error


def _undoing_the_next_event(snapshot: AuthLeaseSnapshot) -> AuthLeaseSnapshot:
    # The release came right after the snapshot unless somebody came in between, and then it must not be undone.
    if snapshot.version is None:
        return snapshot
    return dataclasses.replace(snapshot, undoes=snapshot.version + 1)


def _release(handle: AuthLeaseHandle, key: LeaseKey) -> None:
    try:
        publish_token_lifecycle_released(handle, key)
    except Exception as error:
        raise LifecycleReleaseFailed(error) from error
