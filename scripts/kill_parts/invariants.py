"""What must hold after any number of kills, read from the ledger, the store and the server's own counts."""

from collections import Counter
from collections.abc import Iterator
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
        lost_responses: Permanent refusals of a refresh token that an earlier attempt on record had sent already.
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


def _broken_in_stream(key: str, stream: list[RecordedEvent]) -> Iterator[str]:
    open_fingerprints: dict[str, str] = {}
    sent_before: dict[str, str] = {}
    live = False
    for recorded in stream:
        event, where = recorded.event, f"{key} event {recorded.version}"
        match event:
            case LeaseRefreshStarted():
                fingerprint = event.fingerprint or ""
                if fingerprint in open_fingerprints:
                    yield f"{where}: refresh token sent again while attempt {open_fingerprints[fingerprint]} has it"
                open_fingerprints[fingerprint] = event.id
            case LeaseRefreshFailed():
                fingerprint = next((f for f, attempt in open_fingerprints.items() if attempt == event.attempt), "")
                open_fingerprints.pop(fingerprint, None)
                if event.permanent and fingerprint not in sent_before:
                    yield f"{where}: a login was lost, and no earlier attempt on record sent its refresh token"
                sent_before[fingerprint] = event.attempt or ""
            case LeaseReleased():
                live = False
                open_fingerprints.clear()
            case LeaseAcquired():
                if event.attempt is not None and not live:
                    yield f"{where}: a late response brought back a lease that had been released"
                live = True
                open_fingerprints.clear()
            case LeaseRefreshed():
                open_fingerprints.clear()
            case LeaseRestored():
                live = event.snapshot.credential_present
            case _:
                pass
