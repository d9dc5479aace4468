"""The classes of verdicts, as stable codes. A code is never renamed; a program may rely on it."""

from enum import StrEnum

__all__ = ["TokensCode", "VerdictCode"]


class VerdictCode(StrEnum):
    """Why a lease is as it is.

    * ``never_logged_in``: nobody has logged in yet.
    * ``valid``: a login or a refresh published the credential in force.
    * ``expiring``: somebody said that it is about to expire.
    * ``expired``: its time is over, and nobody has refreshed it.
    * ``recovered``: a refresh saved its tokens and crashed; whoever came next recorded it.
    * ``taken_over``: a refresh succeeded after it was taken over from a holder that was gone or silent.
    * ``late_response_adopted``: the response of an attempt that had been taken over came after all, and is in force.
    * ``refreshing``: an attempt is open.
    * ``refresh_overdue``: an attempt is open for longer than it said it may take.
    * ``holder_gone``: an attempt is open, and the process that holds it no longer runs.
    * ``refresh_abandoned``: an attempt was given up because its holder was gone or silent; nobody has tried since.
    * ``refresh_failed``: the server answered with a failure that may pass.
    * ``refresh_unanswered``: an attempt ended without the server's answer; the refresh token may be spent.
    * ``refresh_not_sent``: an attempt ended before anything was sent.
    * ``tokens_not_saved``: the server gave new tokens, and they could not be stored.
    * ``response_lost``: the refresh token was refused because an earlier attempt had spent it, whose response never
      arrived or was never saved.
    * ``spent_outside``: the refresh token was refused, and no attempt in this ledger had spent it: it was spent,
      revoked or expired outside.
    * ``spent_by_peer``: the same, and another ledger's attempt had sent it: two copies of one login.
    * ``refused``: the server refused the refresh for good, for another reason than its refresh token.
    * ``reauth_marked``: somebody said that a person has to log in again.
    * ``logged_out``: the lease was given up.
    * ``logout_rolled_back``: a logout was undone, because the tokens could not be cleared.
    * ``login_rolled_back``: a login was undone, because its tokens were not saved.
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
    TOKENS_NOT_SAVED = "tokens_not_saved"
    RESPONSE_LOST = "response_lost"
    SPENT_OUTSIDE = "spent_outside"
    SPENT_BY_PEER = "spent_by_peer"
    REFUSED = "refused"
    REAUTH_MARKED = "reauth_marked"
    LOGGED_OUT = "logged_out"
    LOGOUT_ROLLED_BACK = "logout_rolled_back"
    LOGIN_ROLLED_BACK = "login_rolled_back"
    RESTORED = "restored"
    NOT_RECORDED_HERE = "not_recorded_here"


class TokensCode(StrEnum):
    """What the stored tokens are to the lease.

    * ``current``: published by the event in force.
    * ``superseded``: published by an earlier event; the newer tokens are elsewhere.
    * ``unrecorded``: saved by an attempt that crashed before its event; the next use records them.
    * ``unsaved_login``: older than the login in force, or absent, because that login was never saved; the next use
      undoes it.
    * ``orphaned``: published by an event that has been released since; the next use clears them.
    * ``unmarked``: they name no event: nothing speaks for them, and nothing against.
    * ``foreign``: they name an event this ledger never saw, at a generation it has reached itself.
    * ``ahead``: the same beyond its own generation: this ledger is an older copy.
    * ``missing``: the lease holds a credential, and nothing is stored.
    * ``none``: nothing is stored, and nothing should be.
    * ``unreadable``: something is stored that cannot be read as tokens.
    * ``unavailable``: the store could not be asked; that says nothing about the tokens.
    """

    CURRENT = "current"
    SUPERSEDED = "superseded"
    UNRECORDED = "unrecorded"
    UNSAVED_LOGIN = "unsaved_login"
    ORPHANED = "orphaned"
    UNMARKED = "unmarked"
    FOREIGN = "foreign"
    AHEAD = "ahead"
    MISSING = "missing"
    NONE = "none"
    UNREADABLE = "unreadable"
    UNAVAILABLE = "unavailable"
