"""Judging a refresh that the server refused for good: was the refresh token spent before, and by whom?"""

from ledger.events import LeaseRefreshFailed, LeaseRefreshStarted
from ledger.reading import RecordedEvent
from projections.explain import words
from projections.explain.case import AttemptSeen, Case, Judgement
from projections.explain.codes import VerdictCode
from projections.explain.ends import INVALID_GRANT, Sent, end_words, is_about_the_request, sent
from projections.explain.spending import Spending, earlier_spendings, spendings_elsewhere

__all__ = ["judge_refused"]


def judge_refused(
    case: Case, last: RecordedEvent, event: LeaseRefreshFailed, started: RecordedEvent | None
) -> Judgement:
    """The server said that it will not refresh any more."""
    whose = "a refresh" if started is None else words.attempt(started)
    if event.error != INVALID_GRANT:
        return Judgement(
            VerdictCode.REFUSED,
            f"reauth required: the server refused {whose} for good ({words.failure(event)}), {_unsaid(event)}",
            (started, last),
        )
    opening = f"reauth required: refresh token refused ({words.failure(event)}) in {whose}"
    attempts = [seen for seen in case.attempts(last.version - 1, case.state.published_by) if seen.started != started]
    culprit = next((seen for seen in reversed(attempts) if _may_have_spent(seen, started)), None)
    if culprit is not None:
        return Judgement(
            VerdictCode.RESPONSE_LOST,
            f"{opening}; {_lost(culprit, started)}",
            (culprit.started, culprit.failed, started, last),
        )
    return _spent_elsewhere(case, last, started, opening)


def _unsaid(event: LeaseRefreshFailed) -> str:
    if event.error is None:
        return "why is not recorded"
    if is_about_the_request(event.error):
        return "which says nothing against the refresh token itself"
    return "and what that says of the refresh token is not known"


def _fingerprint(started: RecordedEvent | None) -> str | None:
    return started.event.fingerprint if started and isinstance(started.event, LeaseRefreshStarted) else None


def _may_have_spent(seen: AttemptSeen, refused: RecordedEvent | None) -> bool:
    """Whether an earlier attempt may have spent the token that was refused later."""
    mine, its = _fingerprint(refused), _fingerprint(seen.started)
    if mine is not None and its is not None and mine != its:
        return False
    if seen.failed is None or not isinstance(seen.failed.event, LeaseRefreshFailed):
        return True
    return sent(seen.failed.event) in (Sent.MAYBE, Sent.YES)


def _lost(culprit: AttemptSeen, refused: RecordedEvent | None) -> str:
    whose = f"the earlier {words.attempt(culprit.started)}"
    known = _fingerprint(refused) is not None and _fingerprint(refused) == _fingerprint(culprit.started)
    held = "held the same refresh token" if known else "may have held the same refresh token"
    failed = None if culprit.failed is None else culprit.failed.event
    if not isinstance(failed, LeaseRefreshFailed):
        return f"{whose} {held} and was overtaken; no response to it is on record"
    nothing_since = "" if sent(failed) is Sent.YES else "; no response to it is on record"
    return f"{whose} {held} and {end_words(failed)}{nothing_since}"


def _spent_elsewhere(case: Case, last: RecordedEvent, started: RecordedEvent | None, opening: str) -> Judgement:
    proof = (case.publication(), started, last)
    outside = (
        f"no attempt in {case.streams.scope} is known to have spent it; perhaps the refresh token was spent outside "
        f"{case.streams.scope} (by a copy of the token file, say), or the server revoked or expired it, or had given "
        "it to another client"
    )
    fingerprint = _fingerprint(started)
    if started is None or fingerprint is None:
        return Judgement(
            VerdictCode.SPENT_OUTSIDE,
            f"{opening}; {outside}; attempts under other keys cannot be compared, for this one carries no fingerprint",
            proof,
        )
    found = earlier_spendings(case, last, started, fingerprint)
    if found.is_reusable:
        return Judgement(
            VerdictCode.SPENT_OUTSIDE,
            f"{opening}; {outside}; earlier attempts had sent it and were given tokens, so that sending it does not "
            "seem to spend it",
            proof,
        )
    if found.latest is not None:
        return _spent_here(case, found.latest, opening, proof)
    peer = spendings_elsewhere(case, fingerprint)
    if peer is not None:
        return Judgement(
            VerdictCode.SPENT_BY_PEER,
            f"{opening}; {words.attempt(peer.started)} in another ledger {_had_sent(peer)}: two copies of one login "
            "were in use",
            proof,
            (peer.started,),
        )
    return Judgement(VerdictCode.SPENT_OUTSIDE, f"{opening}; {outside}", proof)


def _had_sent(spending: Spending) -> str:
    return "had sent the same refresh token" if spending.is_certain else "may have sent the same refresh token"


def _spent_here(case: Case, spending: Spending, opening: str, proof: tuple[RecordedEvent | None, ...]) -> Judgement:
    whose, how = words.attempt(spending.started), _had_sent(spending)
    came = (spending.started,) if spending.ended is None else (spending.started, spending.ended)
    if spending.started.key == case.key:
        return Judgement(
            VerdictCode.SPENT_BEFORE,
            f"{opening}; before the login in force, {whose} {how}: older tokens were logged in again",
            (*came, *proof),
        )
    return Judgement(
        VerdictCode.SPENT_BY_OTHER_KEY,
        f"{opening}; under the key {spending.started.key}, {whose} {how}: one login is in use under two keys",
        proof,
        came,
    )
