"""The lifecycle marker: what a stored token says about the publication that made it.

Tokens of an OAuth login carry, inside their metadata, the generation and the event that published them. Any
copy of a token can so be traced to its event, or shown to be stale. A marker is only ever evidence: it grants
no credential and changes no lease.
"""

from typing import Any, Final

import msgspec

from ledger.snapshot import MAX_U64, AuthLeaseSnapshot, AuthLeaseTransition
from ledger.tokens import (
    PersistedTokens,
    persisted_auth_mode_uses_oauth_login_lifecycle,
    persisted_token_expires_at_epoch_secs,
)

__all__ = [
    "TokenLifecyclePublication",
    "mark_tokens_lifecycle_published",
    "mark_tokens_lifecycle_published_for_generation",
    "mark_tokens_lifecycle_published_for_snapshot",
    "mark_tokens_lifecycle_published_for_transition",
    "marker_attempt",
    "marker_event",
    "tokens_lifecycle_publication",
    "tokens_lifecycle_publication_with_explicit_expiry",
    "tokens_lifecycle_published",
    "tokens_lifecycle_published_credential_time",
    "tokens_lifecycle_published_generation",
]

# Stored tokens are shared with the reference runtime (meerkat-core 0.6.0), so these names are its own.
_MARKER: Final = "meerkat_auth_lifecycle"
_PREVIOUS: Final = "meerkat_previous_metadata"
_VERSION: Final = 2


class TokenLifecyclePublication(msgspec.Struct, frozen=True):
    """The publication a marker tells of.

    Attributes:
        generation: The generation published, if the marker knows it.
        expires_at: Epoch seconds; ``NEVER_EXPIRES`` for tokens that never expire.
        credential_published_at_millis: Epoch milliseconds of the publication, if the marker knows it.
        event: Id of the event that published, if the marker knows it.
        attempt: Id of the refresh attempt that led to it, if one did and the marker knows it.
    """

    generation: int | None
    expires_at: int
    credential_published_at_millis: int | None
    event: str | None = None
    attempt: str | None = None


def mark_tokens_lifecycle_published(tokens: PersistedTokens) -> PersistedTokens:
    """Mark the tokens as published, without saying by which generation.

    Like every marking here: tokens of an auth mode without an OAuth login come back as they are, an older
    marker is replaced whole, other metadata is kept, and metadata that is no object moves aside under a name
    of its own.
    """
    return _mark(tokens)


def mark_tokens_lifecycle_published_for_generation(tokens: PersistedTokens, generation: int) -> PersistedTokens:
    """Mark the tokens as published by a generation.

    Raises:
        ValueError: The generation is outside 0..2^64-1.
    """
    return _mark(tokens, generation=generation)


def mark_tokens_lifecycle_published_for_transition(
    tokens: PersistedTokens, transition: AuthLeaseTransition
) -> PersistedTokens:
    """Mark the tokens with the publication a command returned, its event and refresh attempt included.

    Raises:
        ValueError: The generation or the time is outside 0..2^64-1.
    """
    return _mark(
        tokens,
        generation=transition.generation,
        published_at_millis=transition.credential_published_at_millis,
        event=transition.event_id,
        attempt=transition.attempt,
    )


def mark_tokens_lifecycle_published_for_snapshot(
    tokens: PersistedTokens, snapshot: AuthLeaseSnapshot
) -> PersistedTokens:
    """Mark the tokens with the publication a lease shows; its generation is written even when it is 0.

    The marker's expiry is still the tokens' own: that the two differ is what a reader has to be able to see.

    Raises:
        ValueError: The generation or the time is outside 0..2^64-1.
    """
    return _mark(
        tokens,
        generation=snapshot.generation,
        published_at_millis=snapshot.credential_published_at_millis,
        event=snapshot.published_by,
    )


def tokens_lifecycle_published(tokens: PersistedTokens) -> bool:
    """Whether the tokens carry a marker that says they were published. The auth mode is not asked."""
    return _published_marker(tokens) is not None


def tokens_lifecycle_published_generation(tokens: PersistedTokens) -> int | None:
    """The generation that published the tokens, if they are marked and the marker knows it."""
    marker = _published_marker(tokens)
    return None if marker is None else _unsigned(marker.get("generation"))


def tokens_lifecycle_publication(tokens: PersistedTokens) -> TokenLifecyclePublication | None:
    """The publication the marker tells of, or ``None`` for unmarked tokens.

    A marker without a usable expiry gets the tokens' own.
    """
    marker = _published_marker(tokens)
    if marker is None:
        return None
    expires_at = _unsigned(marker.get("expires_at"))
    if expires_at is None:
        expires_at = persisted_token_expires_at_epoch_secs(tokens)
    return _publication(marker, expires_at)


def tokens_lifecycle_publication_with_explicit_expiry(
    tokens: PersistedTokens,
) -> TokenLifecyclePublication | None:
    """The publication the marker tells of, or ``None`` without one or if it names no usable expiry itself."""
    marker = _published_marker(tokens)
    if marker is None:
        return None
    expires_at = _unsigned(marker.get("expires_at"))
    return None if expires_at is None else _publication(marker, expires_at)


def tokens_lifecycle_published_credential_time(tokens: PersistedTokens) -> int | None:
    """The publication time in the marker, epoch milliseconds, even if the marker does not say "published"."""
    marker = _marker(tokens)
    return None if marker is None else _unsigned(marker.get("credential_published_at_millis"))


def marker_event(tokens: PersistedTokens) -> str | None:
    """Id of the event that published the tokens, if they are marked and the marker knows it."""
    marker = _published_marker(tokens)
    return None if marker is None else _text(marker.get("event"))


def marker_attempt(tokens: PersistedTokens) -> str | None:
    """Id of the refresh attempt that led to the tokens, if they are marked and the marker knows it."""
    marker = _published_marker(tokens)
    return None if marker is None else _text(marker.get("attempt"))


def _mark(
    tokens: PersistedTokens,
    *,
    generation: int | None = None,
    published_at_millis: int | None = None,
    event: str | None = None,
    attempt: str | None = None,
) -> PersistedTokens:
    if not persisted_auth_mode_uses_oauth_login_lifecycle(tokens.auth_mode):
        return tokens
    marker: dict[str, Any] = {
        "published": True,
        "version": _VERSION,
        "expires_at": persisted_token_expires_at_epoch_secs(tokens),
    }
    for name, number in (("generation", generation), ("credential_published_at_millis", published_at_millis)):
        if number is not None:
            # A reader takes anything else for absent: the marker would silently say less than it was told.
            if _unsigned(number) is None:
                raise ValueError(f"{name} is an integer from 0 to 2^64-1")
            marker[name] = number
    if event is not None:
        marker["event"] = event
    if attempt is not None:
        marker["attempt"] = attempt
    return msgspec.structs.replace(tokens, metadata=_with_marker(tokens.metadata, marker))


def _with_marker(metadata: Any, marker: dict[str, Any]) -> dict[str, Any]:
    if isinstance(metadata, dict):
        return {**metadata, _MARKER: marker}
    if metadata is None:
        return {_MARKER: marker}
    return {_MARKER: marker, _PREVIOUS: metadata}


def _marker(tokens: PersistedTokens) -> dict[str, Any] | None:
    metadata = tokens.metadata
    if not isinstance(metadata, dict):
        return None
    marker = metadata.get(_MARKER)
    return marker if isinstance(marker, dict) else None


def _published_marker(tokens: PersistedTokens) -> dict[str, Any] | None:
    marker = _marker(tokens)
    return marker if marker is not None and marker.get("published") is True else None


def _publication(marker: dict[str, Any], expires_at: int) -> TokenLifecyclePublication:
    return TokenLifecyclePublication(
        generation=_unsigned(marker.get("generation")),
        expires_at=expires_at,
        credential_published_at_millis=_unsigned(marker.get("credential_published_at_millis")),
        event=_text(marker.get("event")),
        attempt=_text(marker.get("attempt")),
    )


def _unsigned(value: object) -> int | None:
    # By exact type: a bool is an int to Python, and 1.0 equals 1, but neither is a JSON integer.
    return value if type(value) is int and 0 <= value <= MAX_U64 else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
