"""What ``explain`` says of the incidents people really have, each made by running the real code with its fault."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from agents import CANARY
from projections_explain import incidents
from projections_explain.scenes import KEY, Scene

from projections.explain import TokensCode, Verdict, VerdictCode


class Expected(NamedTuple):
    """What is to be said of an incident.

    Attributes:
        code: The class of the verdict.
        phrases: What its words have to hold, in this order.
        proof: The kinds of its proving events, without ``lease.``.
        tokens: The class of the stored tokens.
    """

    code: VerdictCode
    phrases: tuple[str, ...]
    proof: tuple[str, ...]
    tokens: TokensCode


CASES: dict[Callable[[Scene], Verdict], Expected] = {
    incidents.a_refresh_race: Expected(
        VerdictCode.VALID,
        ("valid: agent-", "refreshed it (generation 2)", "it expires at"),
        ("refresh_started", "refreshed"),
        TokensCode.CURRENT,
    ),
    incidents.a_crash_after_the_exchange: Expected(
        VerdictCode.RESPONSE_LOST,
        (
            "reauth required: refresh token refused (invalid_grant, HTTP 400) in attempt",
            "of agent-b at",
            "the earlier attempt",
            "of agent-a at",
            "held the same refresh token and was given up as abandoned by its holder: its outcome is unknown",
            "no response to it is on record",
        ),
        ("refresh_started", "refresh_failed", "refresh_started", "refresh_failed"),
        TokensCode.CURRENT,
    ),
    incidents.a_crash_after_the_save: Expected(
        VerdictCode.RECOVERED,
        ("valid: attempt", "of agent-a", "crashed before recording them", "agent-b", "found them by their marker"),
        ("refresh_started", "refreshed"),
        TokensCode.CURRENT,
    ),
    incidents.a_crash_after_the_save_before_anyone_comes: Expected(
        VerdictCode.HOLDER_GONE,
        ("refreshing by attempt", "of agent-a", "no longer runs"),
        ("refresh_started",),
        TokensCode.UNRECORDED,
    ),
    incidents.a_failed_logout: Expected(
        VerdictCode.LOGOUT_ROLLED_BACK,
        ("rolled back: the logout by agent-a", "the tokens could not be cleared", "valid again at generation 1"),
        ("acquired", "released", "restored"),
        TokensCode.CURRENT,
    ),
    incidents.a_logout_during_a_refresh: Expected(
        VerdictCode.LOGGED_OUT,
        ("logged out by person", "the refresh then open, attempt", "of agent-a", "may not complete any more"),
        ("refresh_started", "released"),
        TokensCode.NONE,
    ),
    incidents.a_clock_going_back: Expected(
        VerdictCode.VALID,
        ("valid: agent-a", "refreshed it (generation 2)"),
        ("refresh_started", "refreshed"),
        TokensCode.CURRENT,
    ),
    incidents.a_copied_token_file: Expected(
        VerdictCode.SPENT_OUTSIDE,
        (
            "refused (invalid_grant, HTTP 400) in attempt",
            "of agent-a",
            "the refresh token was spent outside this ledger",
        ),
        ("acquired", "refresh_started", "refresh_failed"),
        TokensCode.CURRENT,
    ),
    incidents.a_copied_token_file_with_both_ledgers_at_hand: Expected(
        VerdictCode.SPENT_BY_PEER,
        ("of agent-a", "of laptop", "in another ledger had sent the same refresh token: two copies of one login"),
        ("acquired", "refresh_started", "refresh_failed"),
        TokensCode.CURRENT,
    ),
    incidents.a_permanent_refusal_hammered: Expected(
        VerdictCode.REFUSED,
        ("reauth required: the server refused attempt", "of agent-0", "for good (invalid_client, HTTP 401)"),
        ("refresh_started", "refresh_failed"),
        TokensCode.CURRENT,
    ),
    incidents.a_restore_of_an_unbounded_lease_long_after: Expected(
        VerdictCode.LOGOUT_ROLLED_BACK,
        ("rolled back: the logout by agent-a", "valid again", "it never expires"),
        ("acquired", "released", "restored"),
        TokensCode.CURRENT,
    ),
    incidents.a_locked_keychain: Expected(
        VerdictCode.VALID, ("valid: person", "logged in (generation 1)"), ("acquired",), TokensCode.UNAVAILABLE
    ),
    incidents.a_save_that_fails_for_good: Expected(
        VerdictCode.TOKENS_NOT_SAVED,
        (
            "expiring: the server gave new tokens to attempt",
            "of agent-a",
            "could not be stored (TokenIOError)",
            "is spent",
        ),
        ("refresh_started", "refresh_failed"),
        TokensCode.CURRENT,
    ),
    incidents.a_save_that_failed_and_a_refresh_after_it: Expected(
        VerdictCode.RESPONSE_LOST,
        ("reauth required", "of agent-b", "the earlier attempt", "of agent-a", "could not be stored (TokenIOError)"),
        ("refresh_started", "refresh_failed", "refresh_started", "refresh_failed"),
        TokensCode.CURRENT,
    ),
    incidents.a_guard_not_to_be_had_after_the_answer: Expected(
        VerdictCode.TOKENS_NOT_SAVED,
        ("the server gave new tokens to attempt", "of agent-a", "could not be stored (LedgerStorageError)"),
        ("refresh_started", "refresh_failed"),
        TokensCode.CURRENT,
    ),
    incidents.a_token_that_another_key_had_spent: Expected(
        VerdictCode.SPENT_BY_OTHER_KEY,
        ("refused (invalid_grant, HTTP 400) in attempt", "of agent-a", "under the key dev:openai:home, attempt"),
        ("acquired", "refresh_started", "refresh_failed"),
        TokensCode.CURRENT,
    ),
    incidents.a_silent_holder_taken_over: Expected(
        VerdictCode.TAKEN_OVER,
        ("valid: agent-b", "taking over from attempt", "of agent-a", "gone or silent"),
        ("refresh_started", "refresh_failed", "refresh_started", "refreshed"),
        TokensCode.CURRENT,
    ),
    incidents.a_late_response_adopted: Expected(
        VerdictCode.LATE_RESPONSE_ADOPTED,
        ("valid because the late response of attempt", "of agent-a", "was adopted", "were the only live ones"),
        ("refresh_started", "refresh_failed", "acquired"),
        TokensCode.CURRENT,
    ),
    incidents.a_login_whose_save_failed: Expected(
        VerdictCode.LOGIN_ROLLED_BACK,
        ("login rolled back: the login by second person", "could not be stored", "valid again"),
        ("acquired", "acquired", "restored"),
        TokensCode.CURRENT,
    ),
    incidents.a_login_killed_before_its_save: Expected(
        VerdictCode.VALID, ("valid: person", "logged in"), ("acquired",), TokensCode.UNSAVED_LOGIN
    ),
    incidents.a_login_killed_before_its_save_and_undone: Expected(
        VerdictCode.LOGIN_ROLLED_BACK,
        ("login rolled back: the login by person", "undone by agent-a", "never saved", "the lease is empty again"),
        ("acquired", "restored"),
        TokensCode.NONE,
    ),
    incidents.a_restored_backup: Expected(
        VerdictCode.VALID, ("valid: person", "logged in (generation 1)"), ("acquired",), TokensCode.AHEAD
    ),
    incidents.tokens_elsewhere: Expected(
        VerdictCode.VALID,
        ("valid: agent-a", "refreshed it (generation 2)"),
        ("refresh_started", "refreshed"),
        TokensCode.SUPERSEDED,
    ),
    incidents.a_server_that_is_busy: Expected(
        VerdictCode.REFRESH_FAILED,
        ("expiring: the server answered attempt", "temporarily_unavailable, HTTP 503", "asked to wait 30 s, until"),
        ("refresh_started", "refresh_failed"),
        TokensCode.CURRENT,
    ),
    incidents.a_cancelled_exchange: Expected(
        VerdictCode.REFRESH_UNANSWERED,
        ("expiring: attempt", "of agent-a", "(CancelledError): its outcome is unknown", "may be spent"),
        ("refresh_started", "refresh_failed"),
        TokensCode.CURRENT,
    ),
    incidents.a_login_revoked_at_the_server: Expected(
        VerdictCode.SPENT_OUTSIDE,
        ("refused (invalid_grant, HTTP 400)", "of agent-a", "or the server revoked or expired it"),
        ("acquired", "refresh_started", "refresh_failed"),
        TokensCode.CURRENT,
    ),
    incidents.an_unreadable_token_file: Expected(
        VerdictCode.VALID, ("valid: person", "logged in"), ("acquired",), TokensCode.UNREADABLE
    ),
}


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setenv("LEASE_LEDGER_FINGERPRINT_KEY", "one key for all ledgers of a test")
    scene = Scene(tmp_path)
    yield scene
    scene.close()


@pytest.mark.parametrize("incident", CASES, ids=lambda incident: incident.__name__)
def test_an_incident_is_explained(incident: Callable[[Scene], Verdict], scene: Scene) -> None:
    verdict, expected = incident(scene), CASES[incident]
    assert verdict.code is expected.code, verdict.text
    where = 0
    for phrase in expected.phrases:
        where = verdict.text.find(phrase, where)
        assert where >= 0, (phrase, verdict.text)
    assert tuple(recorded.event.tag.removeprefix("lease.") for recorded in verdict.proof) == expected.proof
    assert verdict.tokens is not None and verdict.tokens.code is expected.tokens, verdict.tokens
    assert CANARY.encode() not in msgspec.json.encode(verdict)


def test_a_clock_that_went_back_is_noted(scene: Scene) -> None:
    (note,) = incidents.a_clock_going_back(scene).notes
    assert note.startswith("the clock went back 3") and "before event 2" in note


def test_a_proof_from_another_ledger_is_kept_apart(scene: Scene) -> None:
    verdict = incidents.a_copied_token_file_with_both_ledgers_at_hand(scene)
    (elsewhere,) = verdict.elsewhere
    assert elsewhere.event.actor == "laptop"
    assert elsewhere not in verdict.proof


def test_every_proving_event_is_one_of_the_ledger(scene: Scene) -> None:
    verdict = incidents.a_crash_after_the_exchange(scene)
    recorded = list(scene.ledger("auditor").read(KEY))
    assert all(proof in recorded for proof in verdict.proof)


def test_what_a_lease_was_before_an_incident_can_still_be_asked(scene: Scene) -> None:
    incidents.a_crash_after_the_exchange(scene)
    assert scene.explain(version=1).code is VerdictCode.VALID
    assert scene.explain(version=2).code is VerdictCode.REFRESHING
    assert scene.explain(version=3).code is VerdictCode.REFRESH_ABANDONED
    with pytest.raises(ValueError, match="for now alone"):
        scene.explain(scene.tokens, version=1)
