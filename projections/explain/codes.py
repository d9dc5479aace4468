"""The classes of verdicts, as stable codes. A code is never renamed; a program may rely on it."""

from enum import StrEnum

from projections.stored_tokens import TokensCode

__all__ = ["TokensCode", "VerdictCode"]


class VerdictCode(StrEnum):
    """Why a lease is as it is.

    * ``never_logged_in``: nobody has logged in yet.
    * ``valid``: a login or a refresh published the credential in force.
    * ``expiring``: somebody said that it is about to expire.
    * ``expired``: its time is over, and nobody has refreshed it.
    * ``recovered``: a refresh saved its tokens and did not record them; whoever came next did.
    * ``taken_over``: a refresh succeeded after an earlier attempt had been given up as gone or silent.
    * ``late_response_adopted``: the response of an attempt that had been closed came after all, and is in force.
    * ``refreshing``: an attempt is open.
    * ``refresh_overdue``: an attempt is open for longer than it said it may take.
    * ``holder_gone``: an attempt is open, and the process that holds it no longer runs.
    * ``refresh_abandoned``: somebody other than its holder gave an attempt up; nobody has tried since.
    * ``refresh_failed``: the server answered with a failure that may pass; of an imported trail, how is not known.
    * ``refresh_unanswered``: an attempt ended with no answer of the server on record; the refresh token may be spent.
    * ``refresh_not_sent``: an attempt ended before anything was sent.
    * ``response_unusable``: the server answered with something that holds no tokens to publish; the refresh token may
      be spent.
    * ``other_account``: the server answered with the tokens of another account than the lease's.
    * ``tokens_not_saved``: the server gave new tokens, and they could not be stored.
    * ``response_lost``: the refresh token was refused, and an earlier attempt that held the same one has no response on
      record, or one that was never saved.
    * ``spent_before``: the refresh token was refused, and an attempt before the login in force had sent the same one,
      or may have.
    * ``spent_by_other_key``: the same under another key of this ledger: one login under two keys.
    * ``spent_by_peer``: the same in another ledger: two copies of one login.
    * ``spent_outside``: the refresh token was refused, and no attempt recorded here is known to have spent it.
    * ``refused``: the server refused the refresh for good, for another reason than its refresh token.
    * ``reauth_marked``: somebody said that a person has to log in again.
    * ``logged_out``: the lease was given up.
    * ``logout_rolled_back``: a logout was undone, as is done when the tokens cannot be cleared.
    * ``login_rolled_back``: a login was undone, as is done when its tokens were not saved.
    * ``restored``: an earlier state was put back for another reason.
    * ``not_recorded_here``: the events that led here are not part of what was asked, such as an incident bundle.
    """

    NEVER_LOGGED_IN = "never_logged_in"
    VALID = "valid"
    EXPIRING = "expiring"
    EXPIRED = "expired"
    RECOVERED = "recovered"
    TAKEN_OVER = "taken_over"
    LATE_RESPONSE_ADOPTED = "late_response_adopted"
    REFRESHING = "refreshing"
    REFRESH_OVERDUE = "refresh_overdue"
    HOLDER_GONE = "holder_gone"
    REFRESH_ABANDONED = "refresh_abandoned"
    REFRESH_FAILED = "refresh_failed"
    REFRESH_UNANSWERED = "refresh_unanswered"
    REFRESH_NOT_SENT = "refresh_not_sent"
    RESPONSE_UNUSABLE = "response_unusable"
    OTHER_ACCOUNT = "other_account"
    TOKENS_NOT_SAVED = "tokens_not_saved"
    RESPONSE_LOST = "response_lost"
    SPENT_BEFORE = "spent_before"
    SPENT_BY_OTHER_KEY = "spent_by_other_key"
    SPENT_BY_PEER = "spent_by_peer"
    SPENT_OUTSIDE = "spent_outside"
    REFUSED = "refused"
    REAUTH_MARKED = "reauth_marked"
    LOGGED_OUT = "logged_out"
    LOGOUT_ROLLED_BACK = "logout_rolled_back"
    LOGIN_ROLLED_BACK = "login_rolled_back"
    RESTORED = "restored"
    NOT_RECORDED_HERE = "not_recorded_here"
