"""A handle and a store that write down what is asked of them, and fail where they are told to."""

from builtins import list as list_of
from typing import Any

from ledger.errors import LeaseTransitionError
from ledger.handle import AuthLeaseHandle, RefreshAttempt
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.snapshot import NEVER_EXPIRES, AuthLeaseSnapshot, AuthLeaseTransition
from ledger.store_errors import (
    KeyringUnavailable,
    TokenIOError,
    TokenPermissionDenied,
    TokenSerializationError,
    TokensNotFound,
    TokenStoreUnavailable,
)
from ledger.stores.base import ANY, Expectation, TokenStore
from ledger.stores.memory import MemoryTokenStore
from ledger.tokens import PersistedTokens


def _shown(expires_at: int | None) -> str:
    return "u64::MAX" if expires_at == NEVER_EXPIRES else str(expires_at)


class ReferenceRefusal(LeaseTransitionError):
    """A refusal in the reference runtime's words, which the recorded texts of other errors quote."""

    def __str__(self) -> str:
        return f"DSL transition rejected in {self.context}: {self.reason}"


class DefaultingHandle(AuthLeaseHandle):
    """A handle on a ledger that has no restore of its own, and so relies on the default one.

    Attributes:
        calls: What was called, in the recorded form; snapshots are left out, for when they are taken binds nobody.
        fails: The methods that raise: ``release``, ``restore``.
    """

    def __init__(self, ledger: LeaseLedger, *fails: str) -> None:
        self.ledger = ledger
        self.calls: list_of[str] = []
        self.fails = fails

    def _called(self, call: str, injection: str = "") -> None:
        self.calls.append(f"handle.{call}")
        if injection in self.fails:
            raise ReferenceRefusal(f"oracle::{injection}", "guard_rejected", f"injected {injection} failure")

    def acquire_lease(self, key: LeaseKey, expires_at: int) -> AuthLeaseTransition:
        self._called(f"acquire_lease({_shown(expires_at)})")
        return self.ledger.acquire_lease(key, expires_at)

    def mark_expiring(self, key: LeaseKey) -> None:
        self._called("mark_expiring")
        self.ledger.mark_expiring(key)

    def begin_refresh(self, key: LeaseKey) -> RefreshAttempt | None:
        self._called("begin_refresh")
        return self.ledger.begin_refresh(key)

    def complete_refresh(
        self, key: LeaseKey, new_expires_at: int, now: int, attempt: RefreshAttempt | str | None = None
    ) -> AuthLeaseTransition:
        self._called("complete_refresh")
        return self.ledger.complete_refresh(key, new_expires_at, now, attempt)

    def refresh_failed(self, key: LeaseKey, permanent: bool) -> None:
        self._called("refresh_failed")
        self.ledger.refresh_failed(key, permanent)

    def mark_reauth_required(self, key: LeaseKey) -> None:
        self._called("mark_reauth_required")
        self.ledger.mark_reauth_required(key)

    def release_lease(self, key: LeaseKey) -> None:
        self._called("release_lease", "release")
        self.ledger.release_lease(key)

    def snapshot(self, key: LeaseKey) -> AuthLeaseSnapshot:
        return self.ledger.snapshot(key)


class RestoringHandle(DefaultingHandle):
    """The same with the ledger's own restore."""

    def restore_auth_lifecycle_snapshot(
        self, key: LeaseKey, snapshot: AuthLeaseSnapshot, expires_at: int | None = None
    ) -> None:
        self._called(f"restore_auth_lifecycle_snapshot(expires_at={_shown(expires_at)})", "restore")
        self.ledger.restore_auth_lifecycle_snapshot(key, snapshot, expires_at)


class FailingStore(TokenStore):
    """A store in memory whose ``load`` and ``clear`` raise what they are told to.

    Args:
        calls: Where calls are written down.
        load: The kind of error ``load`` raises, if any.
        clear: The kind of error ``clear`` raises, if any.
    """

    def __init__(self, calls: list_of[str], load: str | None, clear: str | None) -> None:
        self.inner = MemoryTokenStore()
        self.calls = calls
        self.faults = {"load": load, "clear": clear}

    @property
    def backend_name(self) -> str:
        return "failing"

    def _called(self, method: str, key: LeaseKey) -> None:
        self.calls.append(f"store.{method}({key})")
        fault = self.faults[method]
        if fault is not None:
            raise injected(fault, method, key)

    def load(self, key: LeaseKey) -> PersistedTokens | None:
        self._called("load", key)
        return self.inner.load(key)

    def save(self, key: LeaseKey, tokens: PersistedTokens, *, expect: Expectation = ANY) -> None:
        self.inner.save(key, tokens, expect=expect)

    def clear(self, key: LeaseKey, *, expect: Expectation = ANY) -> None:
        self._called("clear", key)
        self.inner.clear(key, expect=expect)

    def list(self) -> list_of[LeaseKey]:
        return self.inner.list()


def injected(kind: str, method: str, key: LeaseKey) -> Exception:
    """The error of a recorded kind."""
    if kind == "not_found":
        return TokensNotFound(key)
    kinds: dict[str, Any] = {
        "io": TokenIOError,
        "serde": TokenSerializationError,
        "keyring_unavailable": KeyringUnavailable,
        "permission_denied": TokenPermissionDenied,
        "unavailable": TokenStoreUnavailable,
    }
    error: Exception = kinds[kind](f"injected {method}")
    return error
