"""The question "why?", as a method of an audit log."""

from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec

from ledger.events import Holder
from ledger.holder import is_provably_gone
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.stores.base import TokenStore
from projections.explain.explaining import explain
from projections.explain.stored import explain_tokens
from projections.explain.verdict import Verdict
from projections.time_travel.moments import chosen
from projections.time_travel.questions import TimeQuestions
from projections.time_travel.streams import LedgerStreams

__all__ = ["ExplainQuestions"]


class ExplainQuestions(TimeQuestions):
    """Asks why a lease is, or was, as it is. Raises as :class:`TimeQuestions`."""

    def explain(
        self,
        key: LeaseKey,
        version: int | None = None,
        at: int | datetime | None = None,
        *,
        store: TokenStore | None = None,
        peers: Sequence[LeaseLedger] = (),
        is_gone: Callable[[Holder], bool] = is_provably_gone,
    ) -> Verdict:
        """A verdict in plain words, with a stable code and the events that prove it. Looking changes nothing.

        Args:
            key: The lease.
            version: As it was after the event at this stream version.
            at: As it was at this time instead: epoch milliseconds, or a datetime with a time zone. With neither, as
                it is now.
            store: Where its tokens are; the verdict then says what they are to the lease as it is now.
            peers: Other ledgers that may hold a copy of the same login. They show an attempt of theirs that sent the
                same refresh token, if they share the fingerprint key.
            is_gone: Whether a holder's process certainly no longer runs.

        Raises:
            ValueError: The moment is none, or a store is given for a moment in the past.
        """
        when = chosen(version, at)
        if when is not None and store is not None:
            raise ValueError("what is stored is known for now alone; ask about the past without a store")
        with self._streams() as streams:
            verdict = explain(streams, key, when, peers=[LedgerStreams(peer) for peer in peers], is_gone=is_gone)
        if store is None:
            return verdict
        return msgspec.structs.replace(verdict, tokens=explain_tokens(self.ledger, store, key))
