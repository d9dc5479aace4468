"""Where stored tokens come from: their marker's event, held against the ledger's own stream.

A generation counts, an event id identifies: two ledgers may both be at generation 7, but no two events share an id.
"""

from enum import StrEnum

import msgspec

from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.marker import marker_attempt, marker_event, tokens_lifecycle_publication
from ledger.state import LeaseState
from ledger.tokens import PersistedTokens

__all__ = ["Provenance", "TokenClass", "provenance_of"]


class TokenClass(StrEnum):
    """What stored tokens are to the lease as it stands.

    * ``current``: published by the event in force.
    * ``superseded``: published by an earlier event, or by an attempt that something newer overtook.
    * ``unrecorded``: saved by an attempt whose publication is not recorded, and still the newest there are.
    * ``orphaned``: published by an event of this lease that has been released since.
    * ``unmarked``: they name no event; nothing speaks against them, and nothing for them.
    * ``foreign``: they name an event this ledger never saw, at a generation it has reached itself.
    * ``ahead``: the same beyond its own generation: this ledger is an older copy.
    """

    CURRENT = "current"
    SUPERSEDED = "superseded"
    UNRECORDED = "unrecorded"
    ORPHANED = "orphaned"
    UNMARKED = "unmarked"
    FOREIGN = "foreign"
    AHEAD = "ahead"


class Provenance(msgspec.Struct, frozen=True):
    """The class of stored tokens and what shows it.

    Attributes:
        token_class: What they are.
        event_id: The event their marker names.
        generation: The generation their marker names.
        attempt: For unrecorded tokens, the attempt that saved them.
        superseded_by: For superseded tokens, the event in force.
    """

    token_class: TokenClass
    event_id: str | None = None
    generation: int | None = None
    attempt: str | None = None
    superseded_by: str | None = None


def provenance_of(ledger: LeaseLedger, key: LeaseKey, state: LeaseState, tokens: PersistedTokens) -> Provenance:
    """Class stored tokens against a lease. Reads the lease's events only when the tokens are not current.

    Args:
        ledger: Where the lease's events are.
        key: The lease.
        state: The lease as it stands.
        tokens: What is stored under the key.

    Raises whatever reading the ledger raises.
    """
    event_id = marker_event(tokens)
    if event_id is not None and event_id == state.published_by:
        return Provenance(TokenClass.CURRENT, event_id, state.generation)
    publication = tokens_lifecycle_publication(tokens)
    if publication is None:
        return Provenance(TokenClass.UNMARKED)
    generation = publication.generation
    if event_id is None:
        return _without_event(state, generation, publication.credential_published_at_millis)
    if ledger.find(key, event_id) is not None:
        return _superseded(state, event_id, generation)
    attempt = marker_attempt(tokens)
    started = None if attempt is None else ledger.find(key, attempt)
    if attempt is not None and started is not None:
        before = ledger.state(key, started.version)
        if state.credential_present and before.published_by == state.published_by:
            return Provenance(TokenClass.UNRECORDED, event_id, generation, attempt)
        return _superseded(state, event_id, generation)
    if generation is not None and generation > state.generation:
        return Provenance(TokenClass.AHEAD, event_id, generation)
    return Provenance(TokenClass.FOREIGN, event_id, generation)


def _superseded(state: LeaseState, event_id: str | None, generation: int | None) -> Provenance:
    if not state.credential_present:
        return Provenance(TokenClass.ORPHANED, event_id, generation)
    return Provenance(TokenClass.SUPERSEDED, event_id, generation, superseded_by=state.published_by)


def _without_event(state: LeaseState, generation: int | None, published_at: int | None) -> Provenance:
    # Markers of the reference runtime name no event. Publication times of a lease never repeat, so a time and a
    # generation together still tell which publication it was; a generation alone does not.
    if generation is None:
        return Provenance(TokenClass.UNMARKED)
    if generation > state.generation:
        return Provenance(TokenClass.AHEAD, generation=generation)
    if published_at is not None and (generation, published_at) == (state.generation, state.published_at):
        return Provenance(TokenClass.CURRENT, generation=generation)
    if generation < state.generation or (published_at is not None and state.published_at is not None):
        return _superseded(state, None, generation)
    return Provenance(TokenClass.UNMARKED, generation=generation)
