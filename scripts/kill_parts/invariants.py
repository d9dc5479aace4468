"""What must hold after any number of kills, read from the ledger, the store and the server's own counts."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ledger import (
    Credentials,
    LeaseAcquired,
    LeaseKey,
    LeaseLedger,
    LeaseRefreshed,
    LeaseRefreshFailed,
    LeaseRefreshStarted,
    LeaseReleased,
    LeaseRestored,
    RecordedEvent,
)
from projections.doctor import examine

__all__ = ["Outcome", "broken_invariants", "outcome_of"]


class Outcome(NamedTuple):
    """What the ledger says happened.

    Attributes:
        lost_responses: Logins that the server refused for good, after an attempt on record went unanswered.
    """

    events: int
    logins: int
    refreshes: int
    logouts: int
    abandoned: int
    recovered: int
    late: int
    undone_logins: int
    lost_responses: int


def outcome_of(ledger: LeaseLedger) -> Outcome:
    """Count what the ledger holds."""
    counts: Counter[str] = Counter()
    for recorded in ledger.read_all():
        event = recorded.event
        counts["events"] += 1
        counts["logins"] += isinstance(event, LeaseAcquired) and event.attempt is None
        counts["late"] += isinstance(event, LeaseAcquired) and event.attempt is not None
        counts["refreshes"] += isinstance(event, LeaseRefreshed)
        counts["recovered"] += isinstance(event, LeaseRefreshed) and event.recovered
        counts["abandoned"] += isinstance(event, LeaseRefreshFailed) and event.abandoned
        counts["lost_responses"] += isinstance(event, LeaseRefreshFailed) and event.permanent
        counts["logouts"] += isinstance(event, LeaseReleased)
        counts["undone_logins"] += isinstance(event, LeaseRestored)
    return Outcome(**{field: counts[field] for field in Outcome._fields})


def broken_invariants(credentials: Credentials, keys: tuple[LeaseKey, ...]) -> Iterator[str]:
    """Every promise that does not hold, after recovery."""
    ledger = credentials.ledger
    for finding in ledger.verify().findings:
        yield f"verification: {finding.witness}: {finding.detail}"
    for diagnosis in examine(ledger, credentials.store):
        yield f"after recovery: {diagnosis.key}: {diagnosis.condition}: {diagnosis.text}"
    for key in keys:
        yield from _broken_in_stream(str(key), list(ledger.read(key)))


class _Login(NamedTuple):
    """What is known of one login while its lease's events are walked.

    Attributes:
        live: Whether it holds a credential.
        holder_of: Which open attempt has a refresh token, by the token's fingerprint.
        unanswered: Whether an attempt of it ended without an answer. Its request may reach the server at any later
            time, and a server that sees a spent token again ends the whole login.
    """

    live: bool
    holder_of: Mapping[str, str]
    unanswered: bool


_NOBODY = _Login(live=False, holder_of={}, unanswered=False)


def _broken_in_stream(key: str, stream: list[RecordedEvent]) -> Iterator[str]:
    now = before = _NOBODY
    for recorded in stream:
        event, where = recorded.event, f"{key} event {recorded.version}"
        match event:
            case LeaseRefreshStarted():
                fingerprint = event.fingerprint or ""
                if fingerprint in now.holder_of:
                    yield f"{where}: refresh token sent again while attempt {now.holder_of[fingerprint]} has it"
                now = now._replace(holder_of={**now.holder_of, fingerprint: event.id})
            case LeaseRefreshFailed():
                if event.permanent and not now.unanswered:
                    yield f"{where}: a login was lost, and no attempt on record since it began went unanswered"
                still = {token: attempt for token, attempt in now.holder_of.items() if attempt != event.attempt}
                now = now._replace(holder_of=still, unanswered=True)
            case LeaseReleased():
                now, before = _NOBODY, now
            case LeaseAcquired():
                if event.attempt is not None and not now.live:
                    yield f"{where}: a late response brought back a lease that had been released"
                before = now
                now = _Login(live=True, holder_of={}, unanswered=event.attempt is not None)
            case LeaseRefreshed():
                now = now._replace(holder_of={})
            case LeaseRestored():
                now = before if event.snapshot.credential_present else _NOBODY
            case _:
                pass
