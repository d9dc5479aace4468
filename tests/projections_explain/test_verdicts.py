"""Every class of verdict, from the events alone: what can be seen when nothing but the ledger is there."""

import itertools
from collections.abc import Callable, Iterator

import pytest

from ledger.credentials import Credentials
from ledger.events import Holder
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.snapshot import AuthLeasePhase, AuthLeaseSnapshot
from ledger.stores import MemoryTokenStore
from ledger.tokens import PersistedTokens
from projections.audit import AuditLog
from projections.explain import TokensCode, Verdict, VerdictCode, explain, explain_tokens
from projections.time_travel import LedgerStreams

KEY = LeaseKey.parse("dev:openai:work")
START_MS = 1_700_000_000_000
EXPIRES_S = START_MS // 1000 + 3600
FINGERPRINT = "f" * 32


class Clock:
    def __init__(self) -> None:
        self.ms = START_MS

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(clock: Clock) -> Iterator[LeaseLedger]:
    with LeaseLedger.open("memory://", clock=clock, actor="agent") as ledger:
        yield ledger


def gone(_: Holder) -> bool:
    return True


def alive(_: Holder) -> bool:
    return False


def verdict(ledger: LeaseLedger, is_gone: Callable[[Holder], bool] = alive) -> Verdict:
    return explain(LedgerStreams(ledger), KEY, is_gone=is_gone)


def test_nobody_has_logged_in_yet(ledger: LeaseLedger) -> None:
    assert verdict(ledger).code is VerdictCode.NEVER_LOGGED_IN
    ledger.release_lease(KEY)
    assert verdict(ledger).code is VerdictCode.NEVER_LOGGED_IN
    assert "logged out all the same" in verdict(ledger).text


def test_valid_until_its_time_is_over(ledger: LeaseLedger, clock: Clock) -> None:
    ledger.acquire_lease(KEY, EXPIRES_S)
    assert verdict(ledger).code is VerdictCode.VALID
    assert not verdict(ledger).expired
    clock.ms = EXPIRES_S * 1000
    told = verdict(ledger)
    assert told.code is VerdictCode.EXPIRED and told.expired
    assert told.text.startswith("expired, and nobody refreshed it: agent at 2023-11-14T22:13:20Z logged in")
    assert told.text.endswith("it expired at 2023-11-14T23:13:20Z")


def test_about_to_expire(ledger: LeaseLedger, clock: Clock) -> None:
    ledger.acquire_lease(KEY, EXPIRES_S)
    ledger.mark_expiring(KEY, cause="the wake-up call")
    told = verdict(ledger)
    assert told.code is VerdictCode.EXPIRING
    assert "said that it is about to expire (the wake-up call)" in told.text
    assert [recorded.version for recorded in told.proof] == [1, 2]
    clock.ms = EXPIRES_S * 1000
    assert verdict(ledger).code is VerdictCode.EXPIRED


def test_a_refresh_that_is_open_overdue_or_held_by_nobody(ledger: LeaseLedger, clock: Clock) -> None:
    ledger.acquire_lease(KEY, EXPIRES_S)
    ledger.begin_refresh(KEY, duration_ms=5_000)
    assert verdict(ledger).code is VerdictCode.REFRESHING
    assert "it may take 5 s" in verdict(ledger).text
    assert verdict(ledger, gone).code is VerdictCode.HOLDER_GONE
    clock.ms += 5_000
    assert verdict(ledger).code is VerdictCode.REFRESH_OVERDUE
    assert "5 s have passed" in verdict(ledger).text


def test_of_the_past_nobody_says_that_a_holder_is_gone(ledger: LeaseLedger) -> None:
    ledger.acquire_lease(KEY, EXPIRES_S)
    ledger.begin_refresh(KEY)
    assert explain(LedgerStreams(ledger), KEY, 2, is_gone=gone).code is VerdictCode.REFRESHING


def test_given_up_and_then_refreshing_again(ledger: LeaseLedger) -> None:
    ledger.acquire_lease(KEY, EXPIRES_S)
    first = ledger.begin_refresh(KEY)
    ledger.refresh_failed(KEY, False, attempt=first, abandoned=True)
    told = verdict(ledger)
    assert told.code is VerdictCode.REFRESH_ABANDONED
    assert f"gave up attempt {first.id[:8]} of agent" in told.text
    ledger.begin_refresh(KEY)
    told = verdict(ledger)
    assert told.code is VerdictCode.REFRESHING
    assert f"taking over from attempt {first.id[:8]}" in told.text
    assert [recorded.version for recorded in told.proof] == [2, 3, 4]


def test_a_refresh_after_failures_counts_them(ledger: LeaseLedger) -> None:
    ledger.acquire_lease(KEY, EXPIRES_S)
    for _ in range(2):
        ledger.begin_refresh(KEY)
        ledger.refresh_failed(KEY, False, status=503)
    ledger.begin_refresh(KEY)
    ledger.complete_refresh(KEY, EXPIRES_S + 60, START_MS // 1000)
    told = verdict(ledger)
    assert told.code is VerdictCode.VALID
    assert "after 2 failed attempts" in told.text


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        ("TokensChanged", None, VerdictCode.REFRESH_NOT_SENT),
        ("KeyringUnavailable", None, VerdictCode.REFRESH_NOT_SENT),
        ("TimeoutError", None, VerdictCode.REFRESH_UNANSWERED),
        (None, None, VerdictCode.REFRESH_UNANSWERED),
        ("slow_down", None, VerdictCode.REFRESH_FAILED),
        (None, 429, VerdictCode.REFRESH_FAILED),
    ],
)
def test_a_failure_is_classed_by_typed_facts(
    ledger: LeaseLedger, error: str | None, status: int | None, code: VerdictCode
) -> None:
    ledger.acquire_lease(KEY, EXPIRES_S)
    ledger.begin_refresh(KEY)
    ledger.refresh_failed(KEY, False, error=error, status=status)
    assert verdict(ledger).code is code


def test_a_wait_that_the_server_asked_for_passes(ledger: LeaseLedger, clock: Clock) -> None:
    ledger.acquire_lease(KEY, EXPIRES_S)
    ledger.begin_refresh(KEY)
    ledger.refresh_failed(KEY, False, status=503, retry_after=30)
    assert "until 2023-11-14T22:13:50Z; " in verdict(ledger).text
    clock.ms += 30_000
    assert "until 2023-11-14T22:13:50Z, which is over; " in verdict(ledger).text


def refused(ledger: LeaseLedger, fingerprint: str | None = FINGERPRINT, error: str = "invalid_grant") -> None:
    ledger.begin_refresh(KEY, fingerprint=fingerprint)
    ledger.refresh_failed(KEY, True, error=error, status=400)


EARLIER = [
    ({"error": "TimeoutError"}, VerdictCode.RESPONSE_LOST),
    ({"abandoned": True}, VerdictCode.RESPONSE_LOST),
    ({"status": 502}, VerdictCode.RESPONSE_LOST),
    ({"status": 503}, VerdictCode.SPENT_OUTSIDE),
    ({"error": "slow_down"}, VerdictCode.SPENT_OUTSIDE),
    ({"error": "TokensChanged"}, VerdictCode.SPENT_OUTSIDE),
]


@pytest.mark.parametrize(("earlier", "code"), EARLIER)
def test_a_refused_token_was_spent_by_an_earlier_attempt_that_may_have_sent_it(
    ledger: LeaseLedger, earlier: dict[str, object], code: VerdictCode
) -> None:
    ledger.acquire_lease(KEY, EXPIRES_S)
    attempt = ledger.begin_refresh(KEY, fingerprint=FINGERPRINT)
    ledger.refresh_failed(KEY, False, attempt=attempt, **earlier)  # type: ignore[arg-type]
    refused(ledger)
    assert verdict(ledger).code is code


def test_an_attempt_with_another_token_did_not_spend_this_one(ledger: LeaseLedger) -> None:
    ledger.acquire_lease(KEY, EXPIRES_S)
    ledger.begin_refresh(KEY, fingerprint="0" * 32)
    ledger.refresh_failed(KEY, False, error="TimeoutError")
    refused(ledger)
    assert verdict(ledger).code is VerdictCode.SPENT_OUTSIDE


def test_without_fingerprints_the_suspicion_is_named_as_such(ledger: LeaseLedger) -> None:
    ledger.acquire_lease(KEY, EXPIRES_S)
    ledger.begin_refresh(KEY)
    ledger.refresh_failed(KEY, False, error="TimeoutError")
    refused(ledger, None)
    told = verdict(ledger)
    assert told.code is VerdictCode.RESPONSE_LOST
    assert "may have sent the same refresh token, and its response never arrived (TimeoutError)" in told.text


def test_an_attempt_before_the_publication_held_another_token(ledger: LeaseLedger) -> None:
    ledger.acquire_lease(KEY, EXPIRES_S)
    ledger.begin_refresh(KEY, fingerprint=FINGERPRINT)
    ledger.refresh_failed(KEY, False, error="TimeoutError")
    ledger.acquire_lease(KEY, EXPIRES_S)
    refused(ledger, None)
    assert verdict(ledger).code is VerdictCode.SPENT_OUTSIDE


def test_refused_for_another_reason(ledger: LeaseLedger) -> None:
    ledger.acquire_lease(KEY, EXPIRES_S)
    refused(ledger, error="unauthorized_client")
    told = verdict(ledger)
    assert told.code is VerdictCode.REFUSED
    assert "nothing against the refresh token itself" in told.text


def test_somebody_said_that_a_person_is_needed(ledger: LeaseLedger) -> None:
    ledger.acquire_lease(KEY, EXPIRES_S)
    ledger.mark_reauth_required(KEY, reason="the scopes have changed")
    told = verdict(ledger)
    assert told.code is VerdictCode.REAUTH_MARKED
    assert told.text.endswith("said that a person has to log in again because the scopes have changed")


def test_logged_out_twice_names_who_did_it_first(ledger: LeaseLedger, clock: Clock) -> None:
    ledger.acquire_lease(KEY, EXPIRES_S)
    ledger.release_lease(KEY, cause="going home")
    clock.ms += 1_000
    ledger.release_credential_lifecycle(KEY)
    told = verdict(ledger)
    assert told.code is VerdictCode.LOGGED_OUT
    assert told.text.startswith("logged out by agent at 2023-11-14T22:13:20Z (going home)")
    assert told.text.endswith("logged out again since, last by agent at 2023-11-14T22:13:21Z")
    assert [recorded.version for recorded in told.proof] == [2]


def test_restored_without_undoing_anything(ledger: LeaseLedger) -> None:
    ledger.restore_auth_lifecycle_snapshot(KEY, AuthLeaseSnapshot(AuthLeasePhase.VALID, None, True, 4, 5))
    told = verdict(ledger)
    assert told.code is VerdictCode.RESTORED
    assert "valid again at generation 4; it never expires" in told.text


def test_a_login_over_an_open_refresh_says_what_became_of_it(ledger: LeaseLedger) -> None:
    ledger.acquire_lease(KEY, EXPIRES_S)
    attempt = ledger.begin_refresh(KEY)
    ledger.acquire_lease(KEY, EXPIRES_S)
    told = verdict(ledger)
    assert told.code is VerdictCode.VALID
    assert f"attempt {attempt.id[:8]}, may not complete any more" in told.text


def test_times_beyond_the_calendar_are_told_as_numbers(ledger: LeaseLedger) -> None:
    ledger.acquire_lease(KEY, 2**63)
    assert f"it expires at {2**63 * 1000} ms" in verdict(ledger).text


def test_every_class_of_verdict_is_documented() -> None:
    for codes in (VerdictCode, TokensCode):
        assert codes.__doc__ is not None
        for code in codes:
            assert f"* ``{code}``: " in codes.__doc__


def test_a_verdict_counts_the_same_from_an_audit_log_and_from_the_ledger(ledger: LeaseLedger, clock: Clock) -> None:
    ledger.acquire_lease(KEY, EXPIRES_S)
    for step in itertools.islice(itertools.cycle((500, -200, 1_000)), 9):
        clock.ms += step
        ledger.begin_refresh(KEY)
        ledger.refresh_failed(KEY, False, status=503)
    with AuditLog.open(ledger) as audit:
        for version in range(20):
            assert audit.explain(KEY, version) == explain(LedgerStreams(ledger), KEY, version)
        for at in range(START_MS - 100, START_MS + 5_000, 100):
            assert audit.explain(KEY, at=at).version == audit.as_of(KEY, at=at).version


def test_stored_tokens_that_belong_to_nothing_here(ledger: LeaseLedger) -> None:
    store = MemoryTokenStore()
    assert explain_tokens(ledger, store, KEY).code is TokensCode.NONE
    store.save(KEY, PersistedTokens.api_key("secret"))
    assert explain_tokens(ledger, store, KEY).code is TokensCode.UNMARKED
    store.clear(KEY)
    ledger.acquire_lease(KEY, EXPIRES_S)
    assert explain_tokens(ledger, store, KEY).code is TokensCode.MISSING


def test_stored_tokens_of_another_ledger_and_of_a_login_given_up(ledger: LeaseLedger) -> None:
    store, tokens = MemoryTokenStore(), PersistedTokens("claude_ai_oauth", primary_secret="s", refresh_token="r")
    with LeaseLedger.open("memory://") as other:
        Credentials(other, store).login(KEY, tokens)
    ledger.acquire_lease(KEY, EXPIRES_S)
    assert explain_tokens(ledger, store, KEY).code is TokensCode.FOREIGN
    Credentials(ledger, store).login(KEY, tokens)
    assert explain_tokens(ledger, store, KEY).code is TokensCode.CURRENT
    ledger.release_lease(KEY)
    assert explain_tokens(ledger, store, KEY).code is TokensCode.ORPHANED
