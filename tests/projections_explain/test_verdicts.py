"""Every class of verdict, from the events alone: what can be seen when nothing but the ledger is there."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ledger.commands import FailRefresh
from ledger.credentials import Credentials
from ledger.events import AttemptEnd, Holder
from ledger.handle import RefreshAttempt
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.snapshot import AuthLeasePhase, AuthLeaseSnapshot
from ledger.stores import MemoryTokenStore
from ledger.tokens import PersistedTokens
from projections.audit import AuditLog
from projections.explain import TokensCode, Verdict, VerdictCode, explain, explain_tokens
from projections.incident import Incident
from projections.time_travel import LedgerStreams

KEY = LeaseKey.parse("dev:openai:work")
START_MS = 1_700_000_000_000
EXPIRES_S = START_MS // 1000 + 3600
FINGERPRINT = "f" * 32
OTHER = LeaseKey.parse("dev:openai:home")
NOT_STORED = "the server gave new tokens, but they could not be stored"


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


def test_a_late_or_recovered_credential_whose_time_is_over_is_not_called_valid(
    ledger: LeaseLedger, clock: Clock
) -> None:
    ledger.acquire_lease(KEY, EXPIRES_S)
    first = ledger.begin_refresh(KEY)
    ledger.refresh_failed(KEY, False, attempt=first, abandoned=True)
    ledger.begin_refresh(KEY)
    ledger.complete_refresh(KEY, EXPIRES_S, START_MS // 1000)
    ledger.begin_refresh(KEY)
    ledger.complete_refresh(KEY, EXPIRES_S, START_MS // 1000, recovered=True)
    ledger.acquire_lease(KEY, EXPIRES_S, attempt=first.id)
    clock.ms = EXPIRES_S * 1000
    for version, code in ((5, VerdictCode.TAKEN_OVER), (7, VerdictCode.RECOVERED), (8, None)):
        at = clock.ms if code is None else None
        told = explain(LedgerStreams(ledger), KEY, version) if at is None else verdict(ledger)
        assert told.code is (code or VerdictCode.LATE_RESPONSE_ADOPTED)
        assert told.text.startswith("valid" if at is None else "expired because the late response")


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
        ("TokensChanged", None, VerdictCode.REFRESH_UNANSWERED),
        ("KeyringUnavailable", None, VerdictCode.REFRESH_UNANSWERED),
        ("a_code_of_its_own", None, VerdictCode.REFRESH_UNANSWERED),
        ("TimeoutError", None, VerdictCode.REFRESH_UNANSWERED),
        (None, None, VerdictCode.REFRESH_UNANSWERED),
        ("slow_down", None, VerdictCode.REFRESH_FAILED),
        (None, 429, VerdictCode.REFRESH_FAILED),
    ],
)
def test_of_a_failure_whose_end_is_not_recorded_only_what_a_server_alone_says_is_known(
    ledger: LeaseLedger, error: str | None, status: int | None, code: VerdictCode
) -> None:
    ledger.acquire_lease(KEY, EXPIRES_S)
    ledger.begin_refresh(KEY)
    ledger.refresh_failed(KEY, False, error=error, status=status, cause=NOT_STORED)
    told = verdict(ledger)
    assert told.code is code
    assert ("how it ended is not recorded" in told.text) == (code is VerdictCode.REFRESH_UNANSWERED)


ENDS = [
    (AttemptEnd.NOT_SENT, VerdictCode.REFRESH_NOT_SENT, "ended before it sent anything"),
    (AttemptEnd.UNANSWERED, VerdictCode.REFRESH_UNANSWERED, "its outcome is unknown"),
    (AttemptEnd.ANSWERED, VerdictCode.REFRESH_FAILED, "the server answered attempt"),
    (AttemptEnd.UNUSABLE, VerdictCode.RESPONSE_UNUSABLE, "holds no tokens to publish"),
    (AttemptEnd.OTHER_ACCOUNT, VerdictCode.OTHER_ACCOUNT, "the tokens of another account"),
    (AttemptEnd.NOT_SAVED, VerdictCode.TOKENS_NOT_SAVED, "they could not be stored"),
    (AttemptEnd.INTERRUPTED, VerdictCode.REFRESH_NOT_SENT, "ended before it sent anything"),
    (AttemptEnd.ABANDONED, VerdictCode.REFRESH_ABANDONED, "gave up attempt"),
]


@pytest.mark.parametrize("permanent", [False, True])
@pytest.mark.parametrize(
    ("error", "status"), [(None, None), ("TokensChanged", None), ("slow_down", None), ("GuardTimeout", 503)]
)
@pytest.mark.parametrize(("ended", "code", "phrase"), ENDS)
def test_how_a_failure_ended_is_told_as_it_is_recorded_whatever_else_its_event_holds(
    ledger: LeaseLedger,
    ended: AttemptEnd,
    code: VerdictCode,
    phrase: str,
    error: str | None,
    status: int | None,
    permanent: bool,
) -> None:
    ledger.acquire_lease(KEY, EXPIRES_S)
    ledger.begin_refresh(KEY)
    ledger.refresh_failed(KEY, permanent, error=error, status=status, ended=ended, cause=NOT_STORED)
    told = verdict(ledger)
    if permanent and ended is AttemptEnd.ANSWERED:
        assert told.code is VerdictCode.REFUSED
        return
    assert told.code is code
    assert phrase in told.text
    assert told.text.startswith("reauth required: " if permanent else "expiring: ")


def test_a_way_of_ending_of_a_newer_version_is_named_and_not_guessed_at(ledger: LeaseLedger) -> None:
    ledger.acquire_lease(KEY, EXPIRES_S)
    attempt = ledger.begin_refresh(KEY)
    newer = FailRefresh(False, "", attempt.id, error="slow_down", ended=AttemptEnd("eaten_by_proxy"))
    ledger._executor.execute(KEY, newer, cause=None, correlation_id=None)
    told = verdict(ledger)
    assert told.code is VerdictCode.REFRESH_UNANSWERED
    assert "ended as 'eaten_by_proxy' (slow_down), which this version does not know" in told.text


def test_a_wait_that_the_server_asked_for_passes(ledger: LeaseLedger, clock: Clock) -> None:
    ledger.acquire_lease(KEY, EXPIRES_S)
    ledger.begin_refresh(KEY)
    ledger.refresh_failed(KEY, False, status=503, retry_after=30)
    assert "until 2023-11-14T22:13:50Z; " in verdict(ledger).text
    clock.ms += 30_000
    assert "until 2023-11-14T22:13:50Z, which is over; " in verdict(ledger).text


def test_a_wait_beyond_all_numbers_of_milliseconds_is_told(ledger: LeaseLedger) -> None:
    ledger.acquire_lease(KEY, EXPIRES_S)
    ledger.begin_refresh(KEY)
    ledger.refresh_failed(KEY, False, status=503, retry_after=1.7e308)
    assert "asked to wait 1.7e+308 s, until 1" in verdict(ledger).text


def refused(ledger: LeaseLedger, fingerprint: str | None = FINGERPRINT, error: str = "invalid_grant") -> None:
    ledger.begin_refresh(KEY, fingerprint=fingerprint)
    ledger.refresh_failed(KEY, True, error=error, status=400)


EARLIER = [
    ({"error": "TimeoutError"}, VerdictCode.RESPONSE_LOST),
    ({"abandoned": True}, VerdictCode.RESPONSE_LOST),
    ({"status": 502}, VerdictCode.RESPONSE_LOST),
    ({"status": 503}, VerdictCode.SPENT_OUTSIDE),
    ({"error": "slow_down"}, VerdictCode.SPENT_OUTSIDE),
    ({"error": "TokensChanged"}, VerdictCode.RESPONSE_LOST),
    ({"ended": "not_sent", "error": "TokensChanged"}, VerdictCode.SPENT_OUTSIDE),
    ({"ended": "not_sent", "status": 502}, VerdictCode.SPENT_OUTSIDE),
    ({"ended": "answered", "error": "TimeoutError"}, VerdictCode.SPENT_OUTSIDE),
    ({"ended": "unanswered", "error": "slow_down"}, VerdictCode.RESPONSE_LOST),
    ({"ended": "interrupted"}, VerdictCode.SPENT_OUTSIDE),
    ({"ended": "unusable", "status": 200}, VerdictCode.RESPONSE_LOST),
    ({"ended": "not_saved", "error": "GuardTimeout"}, VerdictCode.RESPONSE_LOST),
]


@pytest.mark.parametrize(("earlier", "code"), EARLIER)
def test_a_refused_token_was_spent_by_an_earlier_attempt_that_may_have_sent_it(
    ledger: LeaseLedger, earlier: dict[str, Any], code: VerdictCode
) -> None:
    ledger.acquire_lease(KEY, EXPIRES_S)
    attempt = ledger.begin_refresh(KEY, fingerprint=FINGERPRINT)
    ledger.refresh_failed(KEY, False, attempt=attempt, **earlier)
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
    assert "may have held the same refresh token and failed (TimeoutError): how it ended is not" in told.text


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


def test_what_a_code_of_its_own_says_of_the_refresh_token_is_not_known(ledger: LeaseLedger) -> None:
    ledger.acquire_lease(KEY, EXPIRES_S)
    refused(ledger, error="token_revoked")
    told = verdict(ledger)
    assert told.code is VerdictCode.REFUSED
    assert "what that says of the refresh token is not known" in told.text


def begun(ledger: LeaseLedger, key: LeaseKey = KEY) -> RefreshAttempt:
    return ledger.begin_refresh(key, fingerprint=FINGERPRINT)


def refreshed(ledger: LeaseLedger, key: LeaseKey = KEY) -> RefreshAttempt:
    attempt = begun(ledger, key)
    ledger.complete_refresh(key, EXPIRES_S, START_MS // 1000, attempt)
    return attempt


@pytest.fixture(params=["the ledger alone", "an audit file", "an incident"])
def asked(request: pytest.FixtureRequest) -> Callable[[LeaseLedger], Verdict]:
    def from_an_audit_file(ledger: LeaseLedger) -> Verdict:
        with AuditLog.open(ledger) as audit:
            return audit.explain(KEY, is_gone=alive)

    ways: dict[str, Callable[[LeaseLedger], Verdict]] = {
        "the ledger alone": verdict,
        "an audit file": from_an_audit_file,
        "an incident": lambda ledger: Incident.select(ledger).explain(KEY),
    }
    return ways[request.param]


def test_a_token_that_another_key_had_spent_names_that_key_and_its_attempt(
    ledger: LeaseLedger, asked: Callable[[LeaseLedger], Verdict]
) -> None:
    ledger.acquire_lease(OTHER, EXPIRES_S)
    ledger.acquire_lease(KEY, EXPIRES_S)
    attempt = refreshed(ledger, OTHER)
    refused(ledger)
    told = asked(ledger)
    assert told.code is VerdictCode.SPENT_BY_OTHER_KEY
    assert f"under the key {OTHER}, attempt {attempt.id[:8]} of agent" in told.text
    assert "had sent the same refresh token" in told.text
    assert [(str(event.key), event.event.tag) for event in told.elsewhere] == [
        (str(OTHER), "lease.refresh_started"),
        (str(OTHER), "lease.refreshed"),
    ]


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        (None, VerdictCode.SPENT_BY_OTHER_KEY),
        ({"ended": "unanswered"}, VerdictCode.SPENT_BY_OTHER_KEY),
        ({"abandoned": True}, VerdictCode.SPENT_BY_OTHER_KEY),
        ({"ended": "not_saved"}, VerdictCode.SPENT_BY_OTHER_KEY),
        ({"ended": "not_sent"}, VerdictCode.SPENT_OUTSIDE),
        ({"ended": "answered", "status": 429}, VerdictCode.SPENT_OUTSIDE),
    ],
)
def test_an_attempt_under_another_key_is_suspected_only_if_it_may_have_sent(
    ledger: LeaseLedger, ended: dict[str, Any] | None, code: VerdictCode
) -> None:
    ledger.acquire_lease(OTHER, EXPIRES_S)
    ledger.acquire_lease(KEY, EXPIRES_S)
    attempt = begun(ledger, OTHER)
    if ended is not None:
        ledger.refresh_failed(OTHER, False, attempt=attempt, **ended)
    refused(ledger)
    told = verdict(ledger)
    assert told.code is code
    certain = ended == {"ended": "not_saved"}
    assert (f"{'had' if certain else 'may have'} sent the same refresh token" in told.text) == (
        code is VerdictCode.SPENT_BY_OTHER_KEY
    )


def test_an_attempt_under_another_key_that_began_after_the_refusal_did_not_spend_it(ledger: LeaseLedger) -> None:
    ledger.acquire_lease(OTHER, EXPIRES_S)
    ledger.acquire_lease(KEY, EXPIRES_S)
    refused(ledger)
    begun(ledger, OTHER)
    assert verdict(ledger).code is VerdictCode.SPENT_OUTSIDE


def test_older_tokens_logged_in_again_are_told_by_the_attempt_that_had_sent_them(
    ledger: LeaseLedger, asked: Callable[[LeaseLedger], Verdict]
) -> None:
    ledger.acquire_lease(KEY, EXPIRES_S)
    attempt = refreshed(ledger)
    ledger.acquire_lease(KEY, EXPIRES_S, cause="the token file of last week")
    refused(ledger)
    told = asked(ledger)
    assert told.code is VerdictCode.SPENT_BEFORE
    assert f"before the login in force, attempt {attempt.id[:8]} of agent" in told.text
    assert [event.version for event in told.proof] == [2, 3, 4, 5, 6]


def test_a_token_that_brought_tokens_again_and_again_is_not_spent_by_being_sent(
    ledger: LeaseLedger, asked: Callable[[LeaseLedger], Verdict]
) -> None:
    ledger.acquire_lease(KEY, EXPIRES_S)
    refreshed(ledger)
    refused(ledger)
    told = asked(ledger)
    assert told.code is VerdictCode.SPENT_OUTSIDE
    assert "does not seem to spend it" in told.text


def test_without_a_fingerprint_other_keys_are_said_to_be_beyond_comparison(ledger: LeaseLedger) -> None:
    ledger.acquire_lease(OTHER, EXPIRES_S)
    ledger.acquire_lease(KEY, EXPIRES_S)
    refreshed(ledger, OTHER)
    refused(ledger, None)
    told = verdict(ledger)
    assert told.code is VerdictCode.SPENT_OUTSIDE
    assert "under other keys cannot be compared" in told.text


def test_a_peer_that_only_may_have_sent_the_token_is_not_said_to_have_sent_it(ledger: LeaseLedger) -> None:
    with LeaseLedger.open("memory://", actor="laptop") as peer:
        peer.acquire_lease(OTHER, EXPIRES_S)
        begun(peer, OTHER)
        ledger.acquire_lease(KEY, EXPIRES_S)
        refused(ledger)
        told = explain(LedgerStreams(ledger), KEY, peers=[LedgerStreams(peer)])
    assert told.code is VerdictCode.SPENT_BY_PEER
    assert "in another ledger may have sent the same refresh token" in told.text


def test_how_far_a_clock_went_back_counts_from_the_latest_time_before(ledger: LeaseLedger, clock: Clock) -> None:
    ledger.acquire_lease(KEY, EXPIRES_S)
    clock.ms -= 5_000
    ledger.begin_refresh(KEY)
    clock.ms += 1_000
    ledger.complete_refresh(KEY, EXPIRES_S, START_MS // 1000)
    (note,) = verdict(ledger).notes
    assert note.startswith("the clock went back 5 s before event 2: it is dated 2023-11-14T22:13:15Z")
    assert "event 3 is dated 2023-11-14T22:13:16Z, one recorded before it 2023-11-14T22:13:20Z, 4 s later" in note


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
