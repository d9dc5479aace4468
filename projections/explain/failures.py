"""Judging leases whose last event is a refresh that failed or was given up: what became of the refresh token?"""

from enum import Enum, auto
from typing import Final

from ledger import store_errors
from ledger.events import LeaseRefreshFailed, LeaseRefreshStarted
from ledger.reading import RecordedEvent
from projections.explain import words
from projections.explain.case import AttemptSeen, Case, Judgement
from projections.explain.codes import VerdictCode

__all__ = ["judge_failed"]

NOT_STORED: Final = "the server gave new tokens, but they could not be stored"
"""The cause that ``Credentials`` records when it gives up saving what an exchange brought."""

_REFUSED_TOKEN: Final = "invalid_grant"  # noqa: S105  # an OAuth error code
_STORE_ERRORS: Final = frozenset(store_errors.__all__)
_MAY_BE_LOST_BEHIND: Final = frozenset({500, 502, 504})
"""HTTP statuses that a gateway also gives when the server beyond it has done its work."""


class _Ending(Enum):
    """What a failed attempt says about the refresh token it held."""

    ABANDONED = auto()
    NOT_SAVED = auto()
    NOT_SENT = auto()
    ANSWERED = auto()
    UNANSWERED = auto()


def _ending(failed: LeaseRefreshFailed) -> _Ending:
    if failed.abandoned:
        return _Ending.ABANDONED
    if failed.cause == NOT_STORED:
        return _Ending.NOT_SAVED
    if failed.error in _STORE_ERRORS:
        return _Ending.NOT_SENT
    # Exceptions are recorded by class name, what a server says by an OAuth code, and those are in lower case.
    is_code = failed.error is not None and not failed.error[:1].isupper()
    return _Ending.ANSWERED if failed.status is not None or is_code else _Ending.UNANSWERED


def judge_failed(case: Case, last: RecordedEvent, event: LeaseRefreshFailed) -> Judgement:
    """A refresh that failed, by what its ending says."""
    started = case.started(event.attempt)
    if event.permanent:
        return _refused(case, last, event, started)
    whose = "a refresh" if started is None else words.attempt(started)
    life = case.life()
    if case.imported:
        return Judgement(
            VerdictCode.REFRESH_FAILED,
            f"{case.state.phase}: {whose} failed, and how is not known; {life}",
            (started, last),
        )
    match _ending(event):
        case _Ending.ABANDONED:
            return Judgement(
                VerdictCode.REFRESH_ABANDONED,
                f"{case.state.phase}: {words.who_when(last)} gave up {whose}, whose holder was gone or silent, and "
                f"nobody has refreshed since; its refresh token may be spent; {life}",
                (started, last),
            )
        case _Ending.NOT_SAVED:
            return Judgement(
                VerdictCode.TOKENS_NOT_SAVED,
                f"{case.state.phase}: the server gave new tokens to {whose}, but they could not be stored "
                f"({words.failure(event)}); the refresh token still stored is spent; {life}",
                (started, last),
            )
        case _Ending.NOT_SENT:
            return Judgement(
                VerdictCode.REFRESH_NOT_SENT,
                f"{case.state.phase}: {whose} ended before it sent anything ({words.failure(event)}); {life}",
                (started, last),
            )
        case _Ending.ANSWERED:
            return Judgement(
                VerdictCode.REFRESH_FAILED,
                f"{case.state.phase}: the server answered {whose} with {words.failure(event)}{_wait(case, last)}; "
                f"{life}",
                (started, last),
            )
        case _Ending.UNANSWERED:
            return Judgement(
                VerdictCode.REFRESH_UNANSWERED,
                f"{case.state.phase}: {whose} ended without the server's answer ({words.failure(event)}); its refresh "
                f"token may be spent; {life}",
                (started, last),
            )


def _wait(case: Case, last: RecordedEvent) -> str:
    failed = case.state.last_failure
    if failed is None or failed.retry_after is None:
        return ""
    until_ms = last.event.at + round(failed.retry_after * 1000)
    asked = f" and asked to wait {words.seconds(failed.retry_after)}, until {words.time(until_ms)}"
    return asked if case.at_ms < until_ms else f"{asked}, which is over"


def _refused(case: Case, last: RecordedEvent, event: LeaseRefreshFailed, started: RecordedEvent | None) -> Judgement:
    whose = "a refresh" if started is None else words.attempt(started)
    opening = f"reauth required: refresh token refused ({words.failure(event)}) in {whose}"
    if event.error != _REFUSED_TOKEN:
        unsaid = "why is not recorded" if event.error is None else "which says nothing against the refresh token itself"
        return Judgement(
            VerdictCode.REFUSED,
            f"reauth required: the server refused {whose} for good ({words.failure(event)}), {unsaid}",
            (started, last),
        )
    attempts = [seen for seen in case.attempts(last.version - 1, case.state.published_by) if seen.started != started]
    culprit = next((seen for seen in reversed(attempts) if _may_have_spent(seen, started)), None)
    if culprit is not None and culprit.failed is not None:
        return Judgement(
            VerdictCode.RESPONSE_LOST,
            f"{opening}; {_lost(culprit, started)}",
            (culprit.started, culprit.failed, started, last),
        )
    return _spent_elsewhere(case, last, started, opening)


def _fingerprint(started: RecordedEvent | None) -> str | None:
    return started.event.fingerprint if started and isinstance(started.event, LeaseRefreshStarted) else None


def _may_have_spent(seen: AttemptSeen, refused: RecordedEvent | None) -> bool:
    """Whether an earlier attempt may have spent the token that was refused later."""
    failed = None if seen.failed is None else seen.failed.event
    if not isinstance(failed, LeaseRefreshFailed):
        return False
    mine, its = _fingerprint(refused), _fingerprint(seen.started)
    if mine is not None and its is not None and mine != its:
        return False
    ending = _ending(failed)
    if ending is _Ending.ANSWERED:
        return failed.status in _MAY_BE_LOST_BEHIND
    return ending is not _Ending.NOT_SENT


def _lost(culprit: AttemptSeen, refused: RecordedEvent | None) -> str:
    assert culprit.failed is not None
    failed = culprit.failed.event
    assert isinstance(failed, LeaseRefreshFailed)
    whose = f"the earlier {words.attempt(culprit.started)}"
    known = _fingerprint(refused) is not None and _fingerprint(refused) == _fingerprint(culprit.started)
    same = "had sent the same refresh token" if known else "may have sent the same refresh token"
    match _ending(failed):
        case _Ending.NOT_SAVED:
            return f"{whose} {same}, and the tokens it got in return were never saved ({words.failure(failed)})"
        case _Ending.ABANDONED:
            return f"{whose} {same} and was given up; its response was never saved"
        case _:
            return f"{whose} {same}, and its response never arrived ({words.failure(failed)})"


def _spent_elsewhere(case: Case, last: RecordedEvent, started: RecordedEvent | None, opening: str) -> Judgement:
    fingerprint = _fingerprint(started)
    if fingerprint is not None:
        for peer in case.peers:
            for recorded in peer.newest_first(case.key, peer.last_version(case.key)):
                if isinstance(recorded.event, LeaseRefreshStarted) and recorded.event.fingerprint == fingerprint:
                    return Judgement(
                        VerdictCode.SPENT_BY_PEER,
                        f"{opening}; {words.attempt(recorded)} in another ledger had sent the same refresh token: two "
                        "copies of one login were in use",
                        (case.publication(), started, last),
                        (recorded,),
                    )
    return Judgement(
        VerdictCode.SPENT_OUTSIDE,
        f"{opening}; no attempt in this ledger had spent it: the refresh token was spent outside this ledger (by a "
        "copy of the token file, perhaps), or the server revoked or expired it",
        (case.publication(), started, last),
    )
