"""Who else had sent a refresh token: attempts that carry its fingerprint, under any key of any ledger at hand."""

from collections.abc import Iterable

import msgspec

from ledger.events import LeaseAcquired, LeaseRefreshed, LeaseRefreshFailed
from ledger.keys import LeaseKey
from ledger.reading import RecordedEvent
from projections.attempts import AttemptOutcome, attempt_named, outcome_said
from projections.explain.case import Case
from projections.explain.ends import Sent, sent
from projections.time_travel.streams import Streams

__all__ = ["Spending", "Spendings", "earlier_spendings", "spendings_elsewhere"]

_BROUGHT_TOKENS = (AttemptOutcome.REFRESHED, AttemptOutcome.RECOVERED, AttemptOutcome.LATE)


class Spending(msgspec.Struct, frozen=True):
    """An attempt that sent a refresh token, or may have.

    Attributes:
        started: The event that began it.
        ended: The event that said how it ended, as far as was looked.
        brought_tokens: Whether the server answered with tokens that were published.
    """

    started: RecordedEvent
    ended: RecordedEvent | None
    brought_tokens: bool

    @property
    def sent(self) -> Sent:
        """Whether it let the token out of its hands."""
        if self.brought_tokens:
            return Sent.YES
        event = None if self.ended is None else self.ended.event
        return sent(event) if isinstance(event, LeaseRefreshFailed) else Sent.MAYBE

    @property
    def is_certain(self) -> bool:
        """Whether it certainly sent the token."""
        return self.sent in (Sent.YES, Sent.REFUSED)


class Spendings(msgspec.Struct, frozen=True):
    """What a ledger knows of a refresh token before it was refused.

    Attributes:
        latest: The latest attempt that may have spent it, one that brought tokens before all others.
        is_reusable: Whether it brought tokens more than once, or brought those in force: being sent did not spend it.
    """

    latest: Spending | None
    is_reusable: bool


def earlier_spendings(case: Case, refused: RecordedEvent, own: RecordedEvent, fingerprint: str) -> Spendings:
    """What the attempts under any key, begun before a refusal, did with the refresh token that was refused.

    Args:
        case: The lease to be judged.
        refused: The refusal.
        own: The event that began the attempt that was refused.
        fingerprint: Of the refresh token.
    """
    since_login = _login_version(case, refused.version)
    others: list[Spending] = []
    successes, is_proven = 0, False
    for started in case.streams.attempts_holding(fingerprint):
        if started.position >= refused.position or started.event.id == own.event.id:
            continue
        spending = _spending(case.streams, started, refused.position)
        is_same_login = started.key == case.key and started.version > since_login
        successes += spending.brought_tokens
        is_proven |= spending.brought_tokens and is_same_login
        if not is_same_login and spending.sent in (Sent.YES, Sent.MAYBE):
            others.append(spending)
    best = max(others, key=lambda spending: (spending.brought_tokens, spending.started.position), default=None)
    return Spendings(best, is_proven or successes > 1)


def spendings_elsewhere(case: Case, fingerprint: str) -> Spending | None:
    """An attempt of another ledger that sent the token, or may have; one that brought tokens before all others."""
    found = [_spending(peer, started, None) for peer in case.peers for started in peer.attempts_holding(fingerprint)]
    likely = [spending for spending in found if spending.sent in (Sent.YES, Sent.MAYBE)]
    return max(likely, key=lambda spending: spending.brought_tokens, default=None)


def _login_version(case: Case, upto: int) -> int:
    """The version of the login that the credential in force goes back to; 0 where that is not known."""
    for recorded in case.streams.newest_first(case.key, upto):
        if isinstance(recorded.event, LeaseAcquired) and recorded.event.attempt is None:
            return recorded.version
    return 0


def _spending(streams: Streams, started: RecordedEvent, before: int | None) -> Spending:
    """What came of an attempt up to a position."""
    ended: RecordedEvent | None = None
    outcome = AttemptOutcome.OPEN
    for recorded in _until_next_publication(streams, started.key, started.version):
        if before is not None and recorded.position >= before:
            break
        if attempt_named(recorded.event) == started.event.id:
            ended, outcome = recorded, outcome_said(recorded.event)
    return Spending(started, ended, outcome in _BROUGHT_TOKENS)


def _until_next_publication(streams: Streams, key: LeaseKey, after: int) -> Iterable[RecordedEvent]:
    """The events after a version, up to the next that published a credential: no attempt outlives that."""
    for recorded in streams.oldest_first(key, after, streams.last_version(key)):
        yield recorded
        if isinstance(recorded.event, LeaseAcquired | LeaseRefreshed):
            return
