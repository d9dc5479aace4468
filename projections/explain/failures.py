"""Judging leases whose last event is a refresh that failed or was given up: what became of the refresh token?"""

from fractions import Fraction

from ledger.events import AttemptEnd, LeaseRefreshFailed
from ledger.reading import RecordedEvent
from projections.explain import words
from projections.explain.case import Case, Judgement
from projections.explain.codes import VerdictCode
from projections.explain.ends import end_of, end_words
from projections.explain.refusals import judge_refused

__all__ = ["judge_failed"]


def judge_failed(case: Case, last: RecordedEvent, event: LeaseRefreshFailed) -> Judgement:
    """A refresh that failed, by what its ending says."""
    started = case.started(event.attempt)
    end = end_of(event)
    if event.permanent and end is AttemptEnd.ANSWERED:
        return judge_refused(case, last, event, started)
    if case.imported:
        whose = "a refresh" if started is None else words.attempt(started)
        return Judgement(
            VerdictCode.REFRESH_FAILED,
            f"{case.state.phase}: {whose} failed, and how is not known; {case.life()}",
            (started, last),
        )
    code, text = _told(case, last, event, started, end)
    return Judgement(code, f"{_phase(case)}: {text}; {case.life()}", (started, last))


def _phase(case: Case) -> str:
    return str(case.state.phase).replace("_", " ")


def _told(
    case: Case, last: RecordedEvent, event: LeaseRefreshFailed, started: RecordedEvent | None, end: AttemptEnd | None
) -> tuple[VerdictCode, str]:
    whose = "a refresh" if started is None else words.attempt(started)
    details = words.failure(event)
    match end:
        case AttemptEnd.ABANDONED:
            return VerdictCode.REFRESH_ABANDONED, (
                f"{words.who_when(last)} gave up {whose} as abandoned by its holder, and nobody has refreshed since; "
                "its refresh token may be spent"
            )
        case AttemptEnd.NOT_SAVED:
            return VerdictCode.TOKENS_NOT_SAVED, (
                f"the server gave new tokens to {whose}, but they could not be stored ({details}); where the server "
                "rotates refresh tokens, the one still stored is spent"
            )
        case AttemptEnd.NOT_SENT | AttemptEnd.INTERRUPTED:
            return VerdictCode.REFRESH_NOT_SENT, f"{whose} ended before it sent anything ({details})"
        case AttemptEnd.ANSWERED:
            return VerdictCode.REFRESH_FAILED, f"the server answered {whose} with {details}{_wait(case, last)}"
        case AttemptEnd.UNUSABLE:
            return VerdictCode.RESPONSE_UNUSABLE, _may_be_spent(whose, event)
        case AttemptEnd.OTHER_ACCOUNT:
            return VerdictCode.OTHER_ACCOUNT, _may_be_spent(whose, event)
        case _:
            return VerdictCode.REFRESH_UNANSWERED, _may_be_spent(whose, event)


def _may_be_spent(whose: str, event: LeaseRefreshFailed) -> str:
    return f"{whose} {end_words(event)}; its refresh token may be spent"


def _wait(case: Case, last: RecordedEvent) -> str:
    failed = case.state.last_failure
    if failed is None or failed.retry_after is None:
        return ""
    # As a fraction: a wait may be as long as a float goes, and its milliseconds beyond that.
    until_ms = last.event.at + round(Fraction(failed.retry_after) * 1000)
    asked = f" and asked to wait {words.seconds(failed.retry_after)}, until {words.time(until_ms)}"
    return asked if case.at_ms < until_ms else f"{asked}, which is over"
