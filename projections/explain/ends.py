"""How a failed attempt ended, and what that says of the refresh token it held.

Events written before that fact was recorded tell less; what they do not tell is unknown.
"""

from enum import Enum, auto
from typing import Final

from ledger.events import AttemptEnd, LeaseRefreshFailed
from projections.explain import words

__all__ = ["INVALID_GRANT", "Sent", "end_of", "end_words", "is_about_the_request", "sent"]

INVALID_GRANT: Final = "invalid_grant"

_ABOUT_THE_REQUEST: Final = frozenset(
    {
        "invalid_request",
        "invalid_client",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
        "invalid_target",
        "invalid_client_metadata",
        "invalid_dpop_proof",
        "use_dpop_nonce",
        "invalid_authorization_details",
        "unsupported_token_type",
    }
)
"""Codes of a token endpoint that find fault with the client or its request."""

_REGISTERED: Final = _ABOUT_THE_REQUEST | {
    INVALID_GRANT,
    "access_denied",
    "account_selection_required",
    "authorization_pending",
    "consent_required",
    "expired_token",
    "insufficient_scope",
    "insufficient_user_authentication",
    "interaction_required",
    "invalid_redirect_uri",
    "invalid_request_object",
    "invalid_request_uri",
    "invalid_software_statement",
    "invalid_token",
    "login_required",
    "missing_user_code",
    "need_info",
    "registration_not_supported",
    "request_denied",
    "request_not_supported",
    "request_submitted",
    "request_uri_not_supported",
    "server_error",
    "slow_down",
    "temporarily_unavailable",
    "unapproved_software_statement",
    "unknown_user",
    "unsupported_response_type",
}
"""The OAuth error codes of RFC 6749 and of IANA's registry of OAuth extensions errors: only a server says them."""

_MAY_BE_LOST_BEHIND: Final = frozenset({500, 502, 504})
"""HTTP statuses that a gateway also gives when the server beyond it has done its work."""

_WORDS: Final = {
    AttemptEnd.NOT_SENT: "ended before it sent anything{details}",
    AttemptEnd.UNANSWERED: "failed{details}: its outcome is unknown",
    AttemptEnd.ANSWERED: "was answered with a refusal{details}",
    AttemptEnd.UNUSABLE: "was answered with something that holds no tokens to publish{details}",
    AttemptEnd.OTHER_ACCOUNT: "was answered with the tokens of another account than the lease's{details}",
    AttemptEnd.NOT_SAVED: "was answered with new tokens that could not be stored{details}",
    AttemptEnd.INTERRUPTED: "was interrupted before it sent anything{details}",
    AttemptEnd.ABANDONED: "was given up as abandoned by its holder{details}: its outcome is unknown",
}


class Sent(Enum):
    """Whether a failed attempt let its refresh token out of its hands, to be spent by the server."""

    NO = auto()
    MAYBE = auto()
    YES = auto()
    REFUSED = auto()
    """It was sent, and the server said that it did not take it."""


def end_of(failed: LeaseRefreshFailed) -> AttemptEnd | None:
    """How the attempt ended; ``None`` where that is not known."""
    if failed.ended is not None:
        return failed.ended
    if failed.abandoned:
        return AttemptEnd.ABANDONED
    if failed.permanent or failed.status is not None or failed.error in _REGISTERED:
        return AttemptEnd.ANSWERED
    return None


def sent(failed: LeaseRefreshFailed) -> Sent:
    """What became of the refresh token that the attempt held."""
    match end_of(failed):
        case AttemptEnd.NOT_SENT | AttemptEnd.INTERRUPTED:
            return Sent.NO
        case AttemptEnd.ANSWERED:
            return Sent.MAYBE if failed.status in _MAY_BE_LOST_BEHIND else Sent.REFUSED
        case AttemptEnd.UNUSABLE | AttemptEnd.OTHER_ACCOUNT | AttemptEnd.NOT_SAVED:
            return Sent.YES
        case _:
            return Sent.MAYBE


def end_words(failed: LeaseRefreshFailed) -> str:
    """How the attempt ended, in words, with the details that its event holds."""
    end, details = end_of(failed), words.failure_details(failed)
    if end is None:
        return f"failed{details}: how it ended is not recorded"
    if end in _WORDS:
        return _WORDS[end].format(details=details)
    return f"ended as {end.value!r}{details}, which this version does not know"


def is_about_the_request(error: str | None) -> bool:
    """Whether an error code finds fault with the client or its request, not with the refresh token."""
    return error in _ABOUT_THE_REQUEST
