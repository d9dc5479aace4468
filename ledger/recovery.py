"""Finishing what a crash left between a token store and the ledger, from what both of them hold.

Runs under the login guard: whoever is between a save and its event holds it, so what is seen here is final.
"""

from collections.abc import Callable
from hashlib import sha256

from ledger.commands import Publication
from ledger.effects import Procedure, step
from ledger.errors import LeaseTransitionError
from ledger.events import Holder, LeaseAcquired
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.marker import (
    mark_tokens_lifecycle_published_for_transition,
    marker_event,
    tokens_lifecycle_publication,
)
from ledger.provenance import Provenance, TokenClass, provenance_of
from ledger.snapshot import AuthLeaseSnapshot, AuthLeaseTransition
from ledger.state import LeaseState, snapshot_of
from ledger.stores.base import TokenStore
from ledger.tokens import PersistedTokens, persisted_token_expires_at_epoch_secs

__all__ = ["abandon", "login_never_saved", "marked_for", "place_digest", "recover"]


def marked_for(publication: Publication, attempt: str | None, tokens: PersistedTokens) -> PersistedTokens:
    """The tokens marked with a publication that is planned but not recorded yet."""
    transition = AuthLeaseTransition(publication.generation, publication.published_at_ms, publication.event_id, attempt)
    return mark_tokens_lifecycle_published_for_transition(tokens, transition)


def place_digest(store: TokenStore) -> str | None:
    """What an event says about the place its tokens go to; ``None`` for a store that cannot tell its place."""
    location = store.location
    return None if location is None else sha256(location.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def login_never_saved(ledger: LeaseLedger, store: TokenStore, key: LeaseKey, state: LeaseState) -> bool:
    """Whether the lease's latest event is a login whose tokens were to be saved in just this store.

    For a caller who has found that the store does not hold them.
    """
    place = place_digest(store)
    if place is None or state.published_by is None:
        return False
    login = ledger.find(key, state.published_by)
    return (
        login is not None
        and login.version == state.version
        and isinstance(login.event, LeaseAcquired)
        and login.event.store == place
    )


def recover(
    ledger: LeaseLedger,
    store: TokenStore,
    key: LeaseKey,
    *,
    is_gone: Callable[[Holder], bool] | None = None,
) -> Procedure[None]:
    """Finish what a crash left on one lease. Does nothing when nothing was left.

    * Tokens saved by the open attempt but not recorded: recorded as refreshed, with the marker's event id.
    * Tokens saved by an attempt that was taken over, with nothing published or released since: they are the only
      live ones, and recorded as an acquire.
    * Tokens whose publication was released here: cleared.
    * A login recorded but never saved: undone by a restore event, so that the tokens it was to replace count again.
    * An attempt whose holder is gone, where ``is_gone`` can tell: recorded as abandoned.
    """
    yield from _finish_tokens(ledger, store, key)
    state = yield from step(lambda: ledger.state(key))
    attempt = state.attempt
    if is_gone is not None and attempt is not None and is_gone(attempt.holder):
        yield from abandon(ledger, key, state, "its holder is gone")


def abandon(ledger: LeaseLedger, key: LeaseKey, state: LeaseState, cause: str) -> Procedure[None]:
    """Record that the attempt open in ``state`` was abandoned, unless anything came after that state."""
    attempt = None if state.attempt is None else state.attempt.id
    try:
        yield from step(
            lambda: ledger.refresh_failed(
                key, False, attempt=attempt, abandoned=True, at_version=state.version, cause=cause
            )
        )
    except LeaseTransitionError:
        return


def _finish_tokens(ledger: LeaseLedger, store: TokenStore, key: LeaseKey) -> Procedure[None]:
    state = yield from step(lambda: ledger.state(key))
    tokens = yield from step(lambda: store.load(key))
    if tokens is None:
        yield from _undo_unsaved_login(ledger, store, key, state, None)
        return
    stored = tokens
    provenance = yield from step(lambda: provenance_of(ledger, key, state, stored))
    if provenance.token_class is TokenClass.SUPERSEDED:
        yield from _undo_unsaved_login(ledger, store, key, state, stored)
    elif provenance.token_class is TokenClass.UNRECORDED:
        yield from _record(ledger, store, key, state, stored, provenance)
    elif provenance.token_class is TokenClass.ORPHANED and provenance.event_id is not None:
        yield from step(lambda: store.clear(key, expect=provenance.event_id))


def _undo_unsaved_login(
    ledger: LeaseLedger, store: TokenStore, key: LeaseKey, state: LeaseState, stored: PersistedTokens | None
) -> Procedure[None]:
    """Undo the login in force if its tokens were to be saved in just this store; they are not there.

    Under the guard nobody is between a login's event and its save, so they will never be.
    """
    unsaved = yield from step(lambda: login_never_saved(ledger, store, key, state))
    if not unsaved:
        return
    before = yield from step(lambda: ledger.state(key, state.version - 1))
    still_stored = stored is not None and before.published_by in (marker_event(stored), None)
    snapshot = snapshot_of(before) if still_stored else AuthLeaseSnapshot()
    try:
        yield from step(
            lambda: ledger.restore_auth_lifecycle_snapshot(
                key, snapshot, compensates=state.version, cause="the tokens of this login were never saved"
            )
        )
    except LeaseTransitionError:
        # Somebody who holds no guard came in between; the newer state wins.
        return


def _record(
    ledger: LeaseLedger,
    store: TokenStore,
    key: LeaseKey,
    state: LeaseState,
    tokens: PersistedTokens,
    provenance: Provenance,
) -> Procedure[None]:
    publication = _publication_of(provenance, tokens)
    if publication is None or publication.generation != state.generation + 1:
        planned = yield from step(lambda: ledger.plan_publication(key))
        publication = planned
        marked = marked_for(publication, provenance.attempt, tokens)
        yield from step(lambda: store.save(key, marked, expect=provenance.event_id))
    expires_at = persisted_token_expires_at_epoch_secs(tokens)
    final = publication
    if state.attempt is not None and state.attempt.id == provenance.attempt:
        try:
            yield from step(
                lambda: ledger.complete_refresh(
                    key,
                    expires_at,
                    max(ledger.clock() // 1000, 0),
                    provenance.attempt,
                    publication=final,
                    recovered=True,
                    cause="the tokens were saved, but their event was not recorded",
                )
            )
        except LeaseTransitionError:
            # Somebody who holds no guard closed the attempt just now; the next look sees what stands.
            return
        return
    yield from step(
        lambda: ledger.acquire_lease(
            key,
            expires_at,
            publication=final,
            attempt=provenance.attempt,
            cause="the tokens were saved by an attempt taken over since, and are the only live ones",
        )
    )


def _publication_of(provenance: Provenance, tokens: PersistedTokens) -> Publication | None:
    marker = tokens_lifecycle_publication(tokens)
    if (
        marker is None
        or provenance.event_id is None
        or marker.generation is None
        or marker.credential_published_at_millis is None
    ):
        return None
    return Publication(provenance.event_id, marker.generation, marker.credential_published_at_millis)
