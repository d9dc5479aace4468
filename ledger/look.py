"""One look at a lease and its stored tokens: are they the current ones, and for how long?"""

from typing import Final

import msgspec

from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.marker import marker_event
from ledger.provenance import Provenance, TokenClass, provenance_of
from ledger.snapshot import AuthLeasePhase
from ledger.state import LeaseState
from ledger.stores.base import TokenStore
from ledger.tokens import PersistedTokens

__all__ = ["FreshRequest", "Look", "is_same", "usable_now"]

_USABLE: Final = (TokenClass.CURRENT, TokenClass.UNMARKED)


class FreshRequest(msgspec.Struct, frozen=True):
    """What a caller asks for.

    Attributes:
        key: The lease.
        window_s: Refresh when less than so many seconds remain.
        leeway_s: While another refreshes, tokens with so many seconds left will do.
        rejected: Tokens that the server refused before their time.
        refresh_deadline_s: How long an attempt of ours may take before others may take over.
    """

    key: LeaseKey
    window_s: float
    leeway_s: float
    rejected: PersistedTokens | None
    refresh_deadline_s: float


class Look(msgspec.Struct, frozen=True):
    """What one look at the ledger and the store shows."""

    state: LeaseState
    tokens: PersistedTokens | None
    provenance: Provenance | None

    @classmethod
    def at(cls, ledger: LeaseLedger, store: TokenStore, key: LeaseKey) -> "Look":
        state = ledger.state(key)
        tokens = store.load(key)
        return cls(state, tokens, None if tokens is None else provenance_of(ledger, key, state, tokens))

    @property
    def is_usable(self) -> bool:
        return self.provenance is not None and self.provenance.token_class in _USABLE

    def remaining_s(self, ledger: LeaseLedger) -> float:
        of_tokens = None if self.tokens is None else self.tokens.expires_at
        known = [expiry for expiry in (of_tokens, self.state.expires_at) if expiry is not None]
        return min(known) - ledger.clock() / 1000 if known else float("inf")

    def has_left(self, seconds: float, ledger: LeaseLedger, rejected: PersistedTokens | None) -> bool:
        """Whether the tokens are the current ones of a live lease, nobody refused them, and so many seconds remain."""
        return (
            self.tokens is not None
            and self.is_usable
            and self.state.credential_present
            and self.state.phase is not AuthLeasePhase.REAUTH_REQUIRED
            and not is_same(self.tokens, rejected)
            and self.remaining_s(ledger) >= seconds
        )


def is_same(tokens: PersistedTokens, other: PersistedTokens | None) -> bool:
    if other is None:
        return False
    event = marker_event(tokens)
    if event is not None or marker_event(other) is not None:
        return event == marker_event(other)
    return tokens.primary_secret == other.primary_secret and tokens.refresh_token == other.refresh_token


def usable_now(ledger: LeaseLedger, store: TokenStore, request: FreshRequest) -> PersistedTokens | None:
    """Current tokens that will do while somebody else refreshes; ``None`` when the outcome must be waited for.

    Raises whatever reading the ledger or the store raises.
    """
    look = Look.at(ledger, store, request.key)
    return look.tokens if look.has_left(request.leeway_s, ledger, request.rejected) else None
