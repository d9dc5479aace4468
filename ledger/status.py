"""What a person is told about a login: a lease snapshot and a clock in, a status out.

Nothing here reads a clock or a store, and nothing here changes a lease: status is a projection. Token bytes
can add an expiry date to what the lease says, never a login the lease does not know.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, assert_never

from ledger.errors import LeaseLedgerError
from ledger.keys import LeaseKey
from ledger.marker import tokens_lifecycle_publication_with_explicit_expiry
from ledger.snapshot import NEVER_EXPIRES, AuthLeasePhase, AuthLeaseSnapshot, LeasePhaseName
from ledger.tokens import PersistedTokens, persisted_token_expires_at_epoch_secs

__all__ = [
    "AuthStatusPhase",
    "AuthStatusRehydrateError",
    "PublishedAuthStatus",
    "lease_snapshot_expires_at_datetime",
    "oauth_status_projection_snapshot_from_newer_marker",
    "project_published_auth_status",
    "rehydrate_marked_oauth_tokens_for_status",
]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EXPIRING_WINDOW_SECS: Final = 60


class AuthStatusPhase(StrEnum):
    """How a login stands, as told to people.

    ``REFRESH_FAILED`` is a word of the public vocabulary that nothing here produces: a failed refresh shows
    as ``EXPIRING`` while it may be tried again, and as ``REAUTH_REQUIRED`` when only a person can go on.
    """

    VALID = "valid"
    EXPIRING = "expiring"
    EXPIRED = "expired"
    REAUTH_REQUIRED = "reauth_required"
    REFRESH_FAILED = "refresh_failed"
    UNKNOWN = "unknown"

    @classmethod
    def from_lease_snapshot(cls, now: datetime, snapshot: AuthLeaseSnapshot) -> "AuthStatusPhase":
        """The status of a lease at ``now``.

        A lease without a credential is unknown, whatever its phase.

        Raises:
            TypeError: ``now`` has no time zone.
        """
        if not snapshot.credential_present:
            return cls.UNKNOWN
        match snapshot.phase:
            case AuthLeasePhase.VALID:
                return cls.from_lease_expires_at(now, snapshot.expires_at)
            case AuthLeasePhase.EXPIRING | AuthLeasePhase.REFRESHING:
                expires_at = snapshot.expires_at
                past = expires_at is not None and _remaining_secs(now, expires_at) <= 0
                return cls.EXPIRED if past else cls.EXPIRING
            case AuthLeasePhase.REAUTH_REQUIRED | AuthLeasePhase.RELEASED | None:
                return cls.from_lease_phase(snapshot.phase)
            case _:
                assert_never(snapshot.phase)

    @classmethod
    def from_lease_expires_at(cls, now: datetime, expires_at: int | None) -> "AuthStatusPhase":
        """The status of a valid lease at ``now``, told by its expiry (epoch seconds; ``None`` means never).

        With less than 60 whole seconds to go it is expiring, with none it is expired.

        Raises:
            TypeError: ``now`` has no time zone.
        """
        if expires_at is None:
            return cls.VALID
        remaining = _remaining_secs(now, expires_at)
        if remaining <= 0:
            return cls.EXPIRED
        return cls.EXPIRING if remaining < _EXPIRING_WINDOW_SECS else cls.VALID

    @classmethod
    def from_lease_phase(cls, phase: AuthLeasePhase | LeasePhaseName | None) -> "AuthStatusPhase":
        """The status a phase stands for when no clock is at hand; so nothing is ever expired.

        Raises:
            ValueError: There is no phase of that name.
        """
        held = None if phase is None else AuthLeasePhase(phase)
        match held:
            case AuthLeasePhase.VALID:
                return cls.VALID
            case AuthLeasePhase.EXPIRING | AuthLeasePhase.REFRESHING:
                return cls.EXPIRING
            case AuthLeasePhase.REAUTH_REQUIRED:
                return cls.REAUTH_REQUIRED
            case AuthLeasePhase.RELEASED | None:
                return cls.UNKNOWN
            case _:
                assert_never(held)


@dataclass(frozen=True, slots=True)
class PublishedAuthStatus:
    """A status with what may be shown beside it.

    Attributes:
        phase: How the login stands.
        expires_at: When it ends, in UTC; ``None`` when it never does, or on a date beyond ``datetime``.
        tokens: The stored tokens, for a caller that goes on to use them. No part of ``repr``.
    """

    phase: AuthStatusPhase
    expires_at: datetime | None = None
    tokens: PersistedTokens | None = field(default=None, repr=False)


class AuthStatusRehydrateError(LeaseLedgerError):
    """A lease could not be rebuilt for a status. Nothing raises it: no lease is ever rebuilt for one."""


def project_published_auth_status(
    now: datetime, stored: PersistedTokens | None, snapshot: AuthLeaseSnapshot
) -> PublishedAuthStatus:
    """The status of a lease at ``now``, with its expiry and the tokens stored under its key.

    The lease decides. When it is unknown, neither expiry nor tokens are shown: token bytes that happen to lie
    in a store are no login. The tokens' own expiry stands in only where the lease has none, or none that
    ``datetime`` can hold.

    Raises:
        TypeError: ``now`` has no time zone.
    """
    phase = AuthStatusPhase.from_lease_snapshot(now, snapshot)
    if phase is AuthStatusPhase.UNKNOWN:
        return PublishedAuthStatus(phase)
    expires_at = lease_snapshot_expires_at_datetime(snapshot)
    if expires_at is None and stored is not None:
        expires_at = _utc(stored.expires_at)
    return PublishedAuthStatus(phase, expires_at, stored)


def lease_snapshot_expires_at_datetime(snapshot: AuthLeaseSnapshot) -> datetime | None:
    """When the lease expires, in UTC; ``None`` when it never does, or after the year 9999."""
    return _utc(snapshot.expires_at)


def rehydrate_marked_oauth_tokens_for_status(store: object, handle: object, key: LeaseKey) -> PersistedTokens | None:
    """Always answers ``None``, and asks neither the store nor the handle.

    A marker is evidence of a publication, not authority for one. A lease rebuilt from token bytes would let a
    stale file shadow the ledger, so a status never brings one back; the function stays for callers that ask.
    """
    return None


def oauth_status_projection_snapshot_from_newer_marker(
    snapshot: AuthLeaseSnapshot, tokens: PersistedTokens
) -> AuthLeaseSnapshot | None:
    """The lease as the stored tokens tell it, if their marker is newer than the lease at hand; else ``None``.

    For a reader whose view of the lease lags behind a store that another process writes to. The marker has to
    be whole (its own expiry, equal to the tokens', and a publication time later than the lease's). A lease
    without a credential stays without: tokens never bring back a login that was released. The answer is for
    display; it is not to be restored.
    """
    if not snapshot.credential_present:
        return None
    marker = tokens_lifecycle_publication_with_explicit_expiry(tokens)
    if marker is None or marker.expires_at != persisted_token_expires_at_epoch_secs(tokens):
        return None
    lease_time, marker_time = snapshot.credential_published_at_millis, marker.credential_published_at_millis
    if lease_time is None or marker_time is None or marker_time <= lease_time:
        return None
    return AuthLeaseSnapshot(
        phase=AuthLeasePhase.VALID,
        expires_at=None if marker.expires_at == NEVER_EXPIRES else marker.expires_at,
        credential_present=True,
        generation=snapshot.generation if marker.generation is None else marker.generation,
        credential_published_at_millis=marker_time,
        published_by=marker.event,
    )


def _remaining_secs(now: datetime, expires_at: int) -> int:
    # Whole-number arithmetic: a float timestamp rounds up the last microsecond of a far second.
    now_secs = (now - _EPOCH) // timedelta(seconds=1)
    return expires_at - now_secs


def _utc(epoch_secs: int | None) -> datetime | None:
    if epoch_secs is None:
        return None
    try:
        return _EPOCH + timedelta(seconds=epoch_secs)
    except OverflowError:
        return None
