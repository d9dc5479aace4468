"""How refresh attempts came out: what each event says of the attempt it names. The ``attempts`` view says the same.

The last event that names an attempt says how it ended. Where none does, the event after its start, or after the restore
that revived it, overtook it.
"""

from enum import StrEnum
from typing import assert_never

from ledger.events import (
    AttemptEnd,
    LeaseAcquired,
    LeaseCredentialReleased,
    LeaseEvent,
    LeaseExpiring,
    LeaseReauthRequired,
    LeaseRefreshed,
    LeaseRefreshFailed,
    LeaseRefreshStarted,
    LeaseReleased,
    LeaseRestored,
)

__all__ = ["AttemptOutcome", "attempt_named", "ended_as", "outcome_said"]


class AttemptOutcome(StrEnum):
    """What came of an attempt.

    * ``open``: nothing yet.
    * ``refreshed``: its tokens were published.
    * ``recovered``: the same, recorded after a crash from the stored tokens.
    * ``late``: it had been closed or overtaken, and its tokens were published after all.
    * ``abandoned``: somebody other than its holder closed it, to take over.
    * ``refused``: it failed, and only a person can go on.
    * ``failed``: it failed, and may be tried again.
    * ``overtaken``: a login, a logout, a restore or a demand to log in again put an end to it.
    """

    OPEN = "open"
    REFRESHED = "refreshed"
    RECOVERED = "recovered"
    LATE = "late"
    ABANDONED = "abandoned"
    REFUSED = "refused"
    FAILED = "failed"
    OVERTAKEN = "overtaken"


def attempt_named(event: LeaseEvent) -> str | None:
    """The refresh attempt that an event is about."""
    match event:
        case LeaseRefreshStarted() | LeaseRefreshed() | LeaseRefreshFailed() | LeaseAcquired():
            return event.attempt
        case LeaseRestored():
            return None if event.attempt is None else event.attempt.id
        case LeaseExpiring() | LeaseReauthRequired() | LeaseReleased() | LeaseCredentialReleased():
            return None
        case _:
            assert_never(event)


def outcome_said(event: LeaseEvent) -> AttemptOutcome:
    """What an event says of the attempt it names; of one that is open and that it does not name: overtaken."""
    if attempt_named(event) is None:
        return AttemptOutcome.OVERTAKEN
    match event:
        case LeaseRefreshStarted() | LeaseRestored():
            return AttemptOutcome.OPEN
        case LeaseRefreshed():
            return AttemptOutcome.RECOVERED if event.recovered else AttemptOutcome.REFRESHED
        case LeaseAcquired():
            return AttemptOutcome.LATE
        case LeaseRefreshFailed():
            if event.abandoned:
                return AttemptOutcome.ABANDONED
            return AttemptOutcome.REFUSED if event.permanent else AttemptOutcome.FAILED
        case _:
            return AttemptOutcome.OVERTAKEN


def ended_as(event: LeaseEvent) -> AttemptEnd | None:
    """How the attempt that an event closed had ended, where the event says."""
    return event.ended if isinstance(event, LeaseRefreshFailed) else None
