"""The contract of anything that can keep auth leases, and the defaults it may rely on.

Names and defaults are those of the reference runtime (meerkat-core 0.6.0), so that its users find them.
"""

from abc import ABC, abstractmethod

import msgspec

from ledger.keys import LeaseKey
from ledger.snapshot import NEVER_EXPIRES, AuthLeasePhase, AuthLeaseSnapshot, AuthLeaseTransition

__all__ = ["AuthLeaseHandle", "RefreshAttempt"]


class RefreshAttempt(msgspec.Struct, frozen=True):
    """The right to spend a refresh token once, won by :meth:`AuthLeaseHandle.begin_refresh`.

    Attributes:
        id: Names the attempt; the id of the event that recorded its start.
        key: The lease.
        version: Stream version of that event.
        started_at_ms: Epoch milliseconds on this process's clock.
        duration_ms: How long it may take before others may take over.
    """

    id: str
    key: LeaseKey
    version: int
    started_at_ms: int
    duration_ms: int


class AuthLeaseHandle(ABC):
    """Keeps auth leases. :class:`ledger.LeaseLedger` is the durable one; write your own to test against."""

    @abstractmethod
    def acquire_lease(self, key: LeaseKey, expires_at: int) -> AuthLeaseTransition:
        """Publish a credential that expires at ``expires_at`` (epoch seconds; ``NEVER_EXPIRES``: never)."""

    @abstractmethod
    def mark_expiring(self, key: LeaseKey) -> None:
        """Say that the credential is about to expire."""

    @abstractmethod
    def begin_refresh(self, key: LeaseKey) -> RefreshAttempt | None:
        """Win the right to refresh. A handle that keeps no attempts returns ``None``."""

    @abstractmethod
    def complete_refresh(
        self, key: LeaseKey, new_expires_at: int, now: int, attempt: RefreshAttempt | str | None = None
    ) -> AuthLeaseTransition:
        """Publish what a refresh brought at ``now``. Both times are epoch seconds."""

    @abstractmethod
    def refresh_failed(self, key: LeaseKey, permanent: bool) -> None:
        """Close the open attempt without a credential."""

    @abstractmethod
    def mark_reauth_required(self, key: LeaseKey) -> None:
        """Say that only a person can go on."""

    @abstractmethod
    def release_lease(self, key: LeaseKey) -> None:
        """Give the lease up. Accepted also when the key holds none."""

    @abstractmethod
    def snapshot(self, key: LeaseKey) -> AuthLeaseSnapshot:
        """The lease as it is now."""

    def release_credential_lifecycle(self, key: LeaseKey) -> None:
        """Give the credential up, keeping login flows where a handle has them. By default the whole lease."""
        self.release_lease(key)

    def restore_auth_lifecycle_snapshot(
        self, key: LeaseKey, snapshot: AuthLeaseSnapshot, expires_at: int | None = None
    ) -> None:
        """Put an earlier state back in force, by default as well as public commands can.

        The default acquires anew and issues the one command that leads to the phase, so it publishes a new
        generation; nothing happens for a snapshot without a live credential.

        Args:
            key: The lease.
            snapshot: The state to bring back.
            expires_at: Epoch seconds (``NEVER_EXPIRES``: never); ``None`` takes the snapshot's own expiry.
        """
        if not snapshot.is_live:
            return
        if expires_at is None:
            expires_at = NEVER_EXPIRES if snapshot.expires_at is None else snapshot.expires_at
        self.acquire_lease(key, expires_at)
        match snapshot.phase:
            case AuthLeasePhase.EXPIRING:
                self.mark_expiring(key)
            case AuthLeasePhase.REFRESHING:
                self.begin_refresh(key)
            case AuthLeasePhase.REAUTH_REQUIRED:
                self.mark_reauth_required(key)
            case _:
                pass
