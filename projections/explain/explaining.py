"""The question "why is this lease as it is?", now or at any moment before."""

from collections.abc import Callable, Iterable, Sequence
from typing import assert_never

import msgspec

from ledger.events import (
    Holder,
    LeaseAcquired,
    LeaseCredentialReleased,
    LeaseExpiring,
    LeaseReauthRequired,
    LeaseRefreshed,
    LeaseRefreshFailed,
    LeaseRefreshStarted,
    LeaseReleased,
    LeaseRestored,
)
from ledger.holder import is_provably_gone
from ledger.keys import LeaseKey
from ledger.reading import RecordedEvent
from projections.explain import words
from projections.explain.case import Case, Judgement
from projections.explain.codes import VerdictCode
from projections.explain.endings import judge_reauth_required, judge_released, judge_restored, judge_started
from projections.explain.failures import judge_failed
from projections.explain.publications import judge_acquired, judge_expiring, judge_refreshed
from projections.explain.verdict import Verdict
from projections.importing.events import is_imported
from projections.time_travel.moments import When, resolve
from projections.time_travel.streams import Streams

__all__ = ["explain"]


def explain(
    streams: Streams,
    key: LeaseKey,
    when: When | None = None,
    *,
    peers: Sequence[Streams] = (),
    is_gone: Callable[[Holder], bool] | None = is_provably_gone,
) -> Verdict:
    """Why a lease is, or was, as it is.

    Judged as of now, a holder that no longer runs is noticed; of the past nothing like that can be known.

    Args:
        streams: Where its events are.
        key: The lease.
        when: A version or a time; now by default. A version is judged at the time of its event.
        peers: Other ledgers, which may have sent the same refresh token. They must share the fingerprint key.
        is_gone: Whether a holder's process certainly no longer runs; ``None`` where nobody can tell.

    Raises:
        ValueError: The moment is none.
        NoSuchMoment: The version is beyond the lease's last.
        CorruptHistory: The lease's events contradict each other.
        LedgerStorageError: The storage could not be read.
    """
    case = _case(streams, key, when, peers, is_gone)
    last = streams.event(key, case.version) if case.version >= streams.first_version(key) else None
    if last is not None and is_imported(last.event):
        case = msgspec.structs.replace(case, imported=True)
    judgement = _without_event(case) if last is None else _judge(case, last)
    proof = tuple(
        sorted({event.version: event for event in judgement.proof if event is not None}.values(), key=_version)
    )
    return Verdict(
        key=str(key),
        code=judgement.code,
        text=judgement.text,
        at_ms=case.at_ms,
        version=case.version,
        state=case.state,
        proof=proof,
        elsewhere=judgement.elsewhere,
        expired=case.is_over,
        notes=(*_unknowns(case), *_clocks_that_went_back(streams, key, proof)),
    )


def _version(recorded: RecordedEvent) -> int:
    return recorded.version


def _case(
    streams: Streams,
    key: LeaseKey,
    when: When | None,
    peers: Sequence[Streams],
    is_gone: Callable[[Holder], bool] | None,
) -> Case:
    if when is None:
        version = streams.last_version(key)
        return Case(streams, key, version, streams.state(key, version), streams.now_ms(), is_gone, peers)
    version, at_ms = resolve(streams, key, when)
    if at_ms is None:
        last = streams.event(key, version)
        at_ms = 0 if last is None else last.event.at
    return Case(streams, key, version, streams.state(key, version), at_ms, None, peers)


def _without_event(case: Case) -> Judgement:
    if case.version == 0:
        return Judgement(VerdictCode.NEVER_LOGGED_IN, "nobody has logged in yet")
    return Judgement(
        VerdictCode.NOT_RECORDED_HERE,
        f"{case.state.phase or 'no lease'} at generation {case.state.generation}; the events that led here are not "
        "part of what was asked",
    )


def _judge(case: Case, last: RecordedEvent) -> Judgement:
    """The phases follow from the last event, so it alone decides what to look for."""
    match last.event:
        case LeaseAcquired() as event:
            return judge_acquired(case, last, event)
        case LeaseRefreshed() as event:
            return judge_refreshed(case, last, event)
        case LeaseExpiring():
            return judge_expiring(case, last)
        case LeaseRefreshStarted() as event:
            return judge_started(case, last, event)
        case LeaseRefreshFailed() as event:
            return judge_failed(case, last, event)
        case LeaseReauthRequired() as event:
            return judge_reauth_required(case, last, event)
        case LeaseReleased() | LeaseCredentialReleased():
            return judge_released(case, last)
        case LeaseRestored() as event:
            return judge_restored(case, last, event)
        case _:
            assert_never(last.event)


def _unknowns(case: Case) -> Iterable[str]:
    if case.imported:
        yield "its events were imported from another system's trail; what that does not tell is not known here"


def _clocks_that_went_back(streams: Streams, key: LeaseKey, proof: Iterable[RecordedEvent]) -> Iterable[str]:
    behind: list[str] = []
    for recorded in proof:
        latest_ms = streams.times.running_at_ms(key, recorded.version)
        if latest_ms is None or recorded.event.at >= latest_ms:
            continue
        back = words.seconds((latest_ms - recorded.event.at) / 1000)
        dated = f"is dated {words.time(recorded.event.at)}, one recorded before it {words.time(latest_ms)}"
        behind.append(
            f"event {recorded.version} {dated}, {back} later"
            if behind
            else f"the clock went back {back} before event {recorded.version}: it {dated}"
        )
    if behind:
        yield "; ".join(behind)
