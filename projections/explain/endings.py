"""Judging leases that were given up, put back, or said to need a person, and those with an attempt open."""

from ledger.events import (
    LeaseAcquired,
    LeaseCredentialReleased,
    LeaseReauthRequired,
    LeaseRefreshStarted,
    LeaseReleased,
    LeaseRestored,
)
from ledger.reading import RecordedEvent
from projections.explain import words
from projections.explain.case import Case, Judgement
from projections.explain.codes import VerdictCode

__all__ = ["judge_reauth_required", "judge_released", "judge_restored", "judge_started"]


def judge_started(case: Case, last: RecordedEvent, event: LeaseRefreshStarted) -> Judgement:
    """A refresh is open."""
    whose = f"attempt {event.attempt[:8]} of {words.who_when(last)}"
    holder = f"{event.holder.host} pid {event.holder.pid}"
    given_up = next(
        (seen for seen in reversed(case.attempts(last.version - 1, case.state.published_by)) if seen.was_abandoned),
        None,
    )
    after = "" if given_up is None else f", taking over from {words.attempt(given_up.started)}"
    proof = (None, last) if given_up is None else (given_up.started, given_up.failed, last)
    since_ms = case.at_ms - last.event.at
    allowed = f"it may take {words.seconds(event.duration_ms / 1000)}"
    if case.is_gone is not None and case.is_gone(event.holder):
        return Judgement(
            VerdictCode.HOLDER_GONE,
            f"refreshing by {whose}{after}, but its holder, {holder}, no longer runs; whoever needs the tokens next "
            "takes over at once",
            proof,
        )
    if case.imported:
        return Judgement(
            VerdictCode.REFRESHING, f"refreshing by {whose}{after}; by whom and how long is not known", proof
        )
    if since_ms >= event.duration_ms:
        return Judgement(
            VerdictCode.REFRESH_OVERDUE,
            f"refreshing by {whose}{after}; {allowed}, and {words.seconds(since_ms / 1000)} have passed: its holder, "
            f"{holder}, may be gone; whoever waits that long takes over",
            proof,
        )
    return Judgement(VerdictCode.REFRESHING, f"refreshing by {whose}{after}, held by {holder}; {allowed}", proof)


def judge_released(case: Case, last: RecordedEvent) -> Judgement:
    """The lease was given up, perhaps more than once."""
    first = last
    for recorded in case.streams.newest_first(case.key, last.version):
        if not isinstance(recorded.event, LeaseReleased | LeaseCredentialReleased):
            break
        first = recorded
    before = case.streams.state(case.key, first.version - 1)
    again = "" if first.version == last.version else f"; logged out again since, last by {words.who_when(last)}"
    if before.phase is None and not before.generation:
        return Judgement(
            VerdictCode.NEVER_LOGGED_IN,
            f"nobody has logged in yet; {words.who_when(first)} logged out all the same",
            (first,),
        )
    fenced, started = "", None
    if before.attempt is not None:
        started = case.started(before.attempt.id)
        whose = f"attempt {before.attempt.id[:8]}" if started is None else words.attempt(started)
        fenced = f"; the refresh then open, {whose}, may not complete any more"
    return Judgement(
        VerdictCode.LOGGED_OUT,
        f"logged out by {words.who_when(first)}{words.cause(first)}{fenced}{again}",
        (started, first),
    )


def judge_restored(case: Case, last: RecordedEvent, event: LeaseRestored) -> Judgement:
    """An earlier state was put back."""
    undone = None if event.compensates is None else case.streams.event(case.key, event.compensates)
    lease = event.snapshot
    now = (
        f"the lease is {lease.phase} again at generation {lease.generation}; {case.life()}"
        if lease.phase is not None
        else "the lease is empty again"
    )
    why = f": {event.cause}" if event.cause else ""
    proof = (case.publication(), undone, last)
    match None if undone is None else undone.event:
        case LeaseReleased() | LeaseCredentialReleased():
            return Judgement(
                VerdictCode.LOGOUT_ROLLED_BACK,
                f"rolled back: the logout by {words.who_when(_of(undone))} was undone by {words.who_when(last)}, as is "
                f"done when the tokens could not be cleared{why}; {now}",
                proof,
            )
        case LeaseAcquired():
            return Judgement(
                VerdictCode.LOGIN_ROLLED_BACK,
                f"login rolled back: the login by {words.who_when(_of(undone))} was undone by {words.who_when(last)}"
                f"{why}; {now}",
                proof,
            )
        case _:
            what = "" if event.compensates is None else f", undoing event {event.compensates}"
            return Judgement(VerdictCode.RESTORED, f"restored by {words.who_when(last)}{what}{why}; {now}", proof)


def _of(recorded: RecordedEvent | None) -> RecordedEvent:
    assert recorded is not None
    return recorded


def judge_reauth_required(case: Case, last: RecordedEvent, event: LeaseReauthRequired) -> Judgement:
    """Somebody said that only a person can go on."""
    why = event.reason or event.cause
    because = f" because {why}" if why else ""
    return Judgement(
        VerdictCode.REAUTH_MARKED,
        f"reauth required: {words.who_when(last)} said that a person has to log in again{because}",
        (case.publication(), last),
    )
