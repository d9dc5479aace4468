"""A verdict: why a lease is as it is, in plain words, with a stable code and the events that prove it."""

import msgspec

from ledger.reading import RecordedEvent
from ledger.state import LeaseState
from projections.explain.codes import VerdictCode
from projections.stored_tokens import TokensCode

__all__ = ["StoredTokens", "Verdict"]


class StoredTokens(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the stored tokens are to a lease. Never a token's bytes.

    Attributes:
        code: The class.
        text: In words.
        generation: The generation their marker names.
        event_id: The event their marker names.
    """

    code: TokensCode
    text: str
    generation: int | None = None
    event_id: str | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a lease is, or was, as it is.

    Attributes:
        key: The lease key as text.
        code: The class of the verdict.
        text: The verdict in words: one or a few clauses, for people.
        at_ms: The moment judged, epoch milliseconds.
        version: The stream version judged; 0 before the first event.
        state: The lease then.
        proof: The events that prove it, in the order of the stream.
        elsewhere: Proving events of other keys, and of other ledgers when some were given.
        expired: Whether the credential's time was over then.
        notes: What else a reader should know, such as clocks that went back.
        tokens: What the stored tokens are, when a store was given.
    """

    key: str
    code: VerdictCode
    text: str
    at_ms: int
    version: int
    state: LeaseState
    proof: tuple[RecordedEvent, ...] = ()
    elsewhere: tuple[RecordedEvent, ...] = ()
    expired: bool = False
    notes: tuple[str, ...] = ()
    tokens: StoredTokens | None = None
