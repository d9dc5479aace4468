"""Each kind of event in words, and in the columns it fills."""

import pytest
from given import HOLDER, open_attempt, stamped, told

from ledger.events import (
    EVENT_TYPES,
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
    RestoredLease,
)
from ledger.snapshot import AuthLeasePhase
from projections.audit_rows import EVENT_KINDS

IN_WORDS: list[tuple[LeaseEvent, str]] = [
    (told(LeaseAcquired, generation=3, published_at=1), "logged in: generation 3"),
    (
        told(LeaseAcquired, generation=3, published_at=1, attempt="e2"),
        "late response of a superseded refresh: generation 3",
    ),
    (told(LeaseExpiring), "about to expire"),
    (
        told(LeaseRefreshStarted, attempt="e1", duration_ms=1_500, holder=HOLDER),
        "refresh started, may take 1.5 s",
    ),
    (told(LeaseRefreshed, generation=4, published_at=1, refreshed_at=1), "refreshed: generation 4"),
    (
        told(LeaseRefreshed, generation=4, published_at=1, refreshed_at=1, recovered=True),
        "refreshed: generation 4, recovered after a crash",
    ),
    (told(LeaseRefreshFailed, permanent=False), "refresh failed, may be tried again"),
    (
        told(LeaseRefreshFailed, permanent=True, error="invalid_grant", status=400),
        "refresh refused for good: invalid_grant, HTTP 400",
    ),
    (told(LeaseRefreshFailed, permanent=False, abandoned=True), "refresh abandoned by its holder"),
    (told(LeaseReauthRequired), "a person has to log in again"),
    (told(LeaseReauthRequired, reason="revoked"), "a person has to log in again: revoked"),
    (told(LeaseReleased), "logged out: lease released"),
    (told(LeaseCredentialReleased), "credential released"),
    (told(LeaseRestored, snapshot=RestoredLease(7)), "restored: no lease, generation 7"),
    (
        told(
            LeaseRestored,
            snapshot=RestoredLease(7, AuthLeasePhase.REFRESHING, None, True, 5),
            attempt=open_attempt("e4"),
            compensates=9,
        ),
        "restored: refreshing, generation 7, undoing event 9",
    ),
]


@pytest.mark.parametrize(("event", "words"), IN_WORDS)
def test_each_event_is_told_in_one_line_of_words(event: LeaseEvent, words: str) -> None:
    kind = EVENT_KINDS[type(event)]
    filled = dict(zip(kind.columns, kind.values(stamped(event, 1, 0)), strict=True))
    assert filled["summary"] == words


def test_there_is_a_row_for_every_kind_of_event() -> None:
    assert set(EVENT_KINDS) == set(EVENT_TYPES) == {type(event) for event, _ in IN_WORDS}
