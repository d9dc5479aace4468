"""Judging leases whose last event published a credential, or said that it is about to expire."""

from ledger.events import LeaseAcquired, LeaseRefreshed, LeaseRefreshFailed
from ledger.reading import RecordedEvent
from projections.explain import words
from projections.explain.case import AttemptSeen, Case, Judgement
from projections.explain.codes import VerdictCode

__all__ = ["judge_acquired", "judge_expiring", "judge_refreshed"]


def _standing(case: Case) -> str:
    return "expired" if case.is_over else "valid"


def judge_acquired(case: Case, last: RecordedEvent, event: LeaseAcquired) -> Judgement:
    """A login, or a late response that was adopted."""
    if event.attempt is not None:
        return _adopted(case, last, event.attempt)
    code = VerdictCode.EXPIRED if case.is_over else VerdictCode.VALID
    opening = "expired, and nobody refreshed it" if code is VerdictCode.EXPIRED else "valid"
    fenced = ""
    before = case.streams.state(case.key, last.version - 1)
    started = None
    if before.attempt is not None:
        started = case.started(before.attempt.id)
        fenced = f"; the refresh then open, attempt {before.attempt.id[:8]}, may not complete any more"
    return Judgement(
        code,
        f"{opening}: {words.who_when(last)} logged in (generation {event.generation}){words.cause(last)}; "
        f"{case.life()}{fenced}",
        (started, last),
    )


def _adopted(case: Case, last: RecordedEvent, attempt_id: str) -> Judgement:
    started = case.started(attempt_id)
    abandoned = _abandonment(case, last.version - 1, attempt_id)
    whose = f"attempt {attempt_id[:8]}" if started is None else words.attempt(started)
    return Judgement(
        VerdictCode.LATE_RESPONSE_ADOPTED,
        f"{_standing(case)} because the late response of {whose} was adopted by {words.who_when(last)}: the attempt "
        f"had been given up, but its tokens were the only live ones; {case.life()}",
        (started, abandoned, last),
    )


def _abandonment(case: Case, upto: int, attempt_id: str) -> RecordedEvent | None:
    for recorded in case.streams.newest_first(case.key, upto):
        event = recorded.event
        if isinstance(event, LeaseRefreshFailed) and event.attempt == attempt_id:
            return recorded
        if event.id == attempt_id:
            return None
    return None


def judge_refreshed(case: Case, last: RecordedEvent, event: LeaseRefreshed) -> Judgement:
    """A refresh that succeeded: by itself, after a take-over, or recorded after a crash."""
    before = case.streams.state(case.key, last.version - 1)
    attempts = case.attempts(last.version - 1, before.published_by)
    own = next((seen for seen in attempts if seen.started.event.id == event.attempt), None)
    started = None if own is None else own.started
    earlier = [seen for seen in attempts if seen is not own]
    if event.recovered:
        return _recovered(case, last, started)
    given_up = [seen for seen in earlier if seen.was_abandoned]
    if given_up:
        return _taken_over(case, last, started, given_up[-1])
    code = VerdictCode.EXPIRED if case.is_over else VerdictCode.VALID
    opening = "expired, and nobody refreshed it again" if code is VerdictCode.EXPIRED else "valid"
    failed = [seen for seen in earlier if seen.failed is not None]
    tries = f", after {len(failed)} failed attempt{'s' * (len(failed) > 1)}" if failed else ""
    return Judgement(
        code,
        f"{opening}: {words.who_when(last)} refreshed it (generation {event.generation}){tries}; {case.life()}",
        (started, last),
    )


def _recovered(case: Case, last: RecordedEvent, started: RecordedEvent | None) -> Judgement:
    whose = "a refresh" if started is None else words.attempt(started)
    return Judgement(
        VerdictCode.RECOVERED,
        f"{_standing(case)}: {whose} saved its new tokens and failed or crashed before recording them; "
        f"{words.who_when(last)} found them by their marker and recorded them; {case.life()}",
        (started, last),
    )


def _taken_over(case: Case, last: RecordedEvent, started: RecordedEvent | None, given_up: AttemptSeen) -> Judgement:
    return Judgement(
        VerdictCode.TAKEN_OVER,
        f"{_standing(case)}: {words.who_when(last)} refreshed it, taking over from {words.attempt(given_up.started)}, "
        f"which had been given up as gone or silent; {case.life()}",
        (given_up.started, given_up.failed, started, last),
    )


def judge_expiring(case: Case, last: RecordedEvent) -> Judgement:
    """Somebody said that the credential is about to expire."""
    code = VerdictCode.EXPIRED if case.is_over else VerdictCode.EXPIRING
    return Judgement(
        code,
        f"{code}: {words.who_when(last)} said that it is about to expire{words.cause(last)}; {case.life()}",
        (case.publication(), last),
    )
