"""What a caller may not pass is a ValueError, and nothing is recorded."""

from collections.abc import Callable
from typing import Any

import pytest

from ledger.events import AttemptEnd
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.snapshot import MAX_U64, NEVER_EXPIRES, AuthLeasePhase, AuthLeaseSnapshot

KEY = LeaseKey.parse("dev:openai:work")
NO_U64: list[Any] = [-1, MAX_U64 + 1, 1.0, True, "1", 2**200]


def _snapshot(**fields: Any) -> AuthLeaseSnapshot:
    return AuthLeaseSnapshot(AuthLeasePhase.VALID, credential_present=True, **fields)


COMMANDS: dict[str, Callable[[LeaseLedger, Any], object]] = {
    "acquire_lease expires_at": lambda ledger, n: ledger.acquire_lease(KEY, n),
    "begin_refresh duration_ms": lambda ledger, n: ledger.begin_refresh(KEY, duration_ms=n),
    "complete_refresh new_expires_at": lambda ledger, n: ledger.complete_refresh(KEY, n, 1),
    "complete_refresh now": lambda ledger, n: ledger.complete_refresh(KEY, 1, n),
    "restore expires_at": lambda ledger, n: ledger.restore_auth_lifecycle_snapshot(KEY, _snapshot(), n),
    "restore snapshot.generation": lambda ledger, n: ledger.restore_auth_lifecycle_snapshot(
        KEY, _snapshot(generation=n)
    ),
    "restore snapshot.expires_at": lambda ledger, n: ledger.restore_auth_lifecycle_snapshot(
        KEY, _snapshot(expires_at=n)
    ),
    "restore snapshot.published": lambda ledger, n: ledger.restore_auth_lifecycle_snapshot(
        KEY, _snapshot(credential_published_at_millis=n)
    ),
    "refresh_failed status": lambda ledger, n: ledger.refresh_failed(KEY, False, status=n),
}


def _refreshing() -> LeaseLedger:
    ledger = LeaseLedger.open("memory://", actor="tester")
    ledger.acquire_lease(KEY, 500)
    ledger.begin_refresh(KEY)
    return ledger


@pytest.mark.parametrize("number", NO_U64, ids=repr)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_number_outside_64_bits_is_refused_and_records_nothing(command: str, number: Any) -> None:
    ledger = _refreshing()
    before = ledger.snapshot(KEY)
    with pytest.raises(ValueError, match=r"from 0 to 2\^64-1"):
        COMMANDS[command](ledger, number)
    assert (ledger.snapshot(KEY), ledger.recorder.last_position()) == (before, 2)


@pytest.mark.parametrize("expiry", [0, 1, 2**63, MAX_U64 - 1])
def test_every_other_number_is_kept_as_it_is(expiry: int) -> None:
    ledger = _refreshing()
    ledger.acquire_lease(KEY, expiry)
    assert ledger.snapshot(KEY).expires_at == expiry


def test_the_largest_number_means_never() -> None:
    ledger = _refreshing()
    ledger.complete_refresh(KEY, NEVER_EXPIRES, 1)
    assert ledger.snapshot(KEY).expires_at is None


@pytest.mark.parametrize(
    "seconds", [-1.0, float("nan"), float("inf"), 10**400, "soon"], ids=lambda seconds: str(seconds)[:9]
)
def test_a_wait_that_no_server_can_mean_is_refused(seconds: Any) -> None:
    ledger = _refreshing()
    with pytest.raises(ValueError, match="retry_after"):
        ledger.refresh_failed(KEY, False, retry_after=seconds)
    assert ledger.recorder.last_position() == 2


@pytest.mark.parametrize("error", ["invalid_grant: token abc was revoked", "", "a" * 101, "tökén"])
def test_an_error_that_looks_like_free_text_is_refused(error: str) -> None:
    ledger = _refreshing()
    with pytest.raises(ValueError, match="never free text"):
        ledger.refresh_failed(KEY, True, error=error)
    assert ledger.recorder.last_position() == 2


@pytest.mark.parametrize("ended", ["", "lost", "NOT_SENT", AttemptEnd("lost"), 7, True], ids=repr)
def test_a_way_of_ending_that_this_version_does_not_know_is_refused(ended: Any) -> None:
    ledger = _refreshing()
    with pytest.raises(ValueError, match="ended is one of not_sent, unanswered"):
        ledger.refresh_failed(KEY, False, ended=ended)
    assert ledger.recorder.last_position() == 2


@pytest.mark.parametrize("ended", [end for end in AttemptEnd if end != AttemptEnd.ABANDONED])
def test_an_abandoned_attempt_ended_in_no_other_way(ended: AttemptEnd) -> None:
    ledger = _refreshing()
    with pytest.raises(ValueError, match=f"did not end {ended}"):
        ledger.refresh_failed(KEY, False, abandoned=True, ended=ended)
    assert ledger.recorder.last_position() == 2


@pytest.mark.parametrize("text", ["a" * 1_001, "\ud800", 7])
@pytest.mark.parametrize("name", ["cause", "correlation_id", "reason"])
def test_a_text_that_no_history_can_show_is_refused(name: str, text: Any) -> None:
    ledger = _refreshing()
    with pytest.raises(ValueError, match=name):
        ledger.mark_reauth_required(KEY, **{name: text})
    assert ledger.recorder.last_position() == 2


def test_what_a_command_is_told_about_itself_is_in_its_event() -> None:
    ledger = _refreshing()
    ledger.mark_reauth_required(KEY, reason="the grant is gone", cause="nightly check", correlation_id="run 7")
    event = list(ledger.read(KEY))[-1].event
    assert (event.cause, event.correlation_id, event.actor) == ("nightly check", "run 7", "tester")


@pytest.mark.parametrize(
    "url",
    [
        "auth.db",
        "sqlite://host/auth.db",
        "sqlite:///",
        "mysql:///auth.db",
        "sqlite:///a.db?synchronous=off",
        "sqlite:///a.db?x=1",
    ],
)
def test_a_url_that_names_no_ledger_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"ledger URL|synchronous"):
        LeaseLedger.open(url)


def test_a_password_in_a_url_is_not_repeated() -> None:
    with pytest.raises(ValueError, match="unknown ledger URL") as refused:
        LeaseLedger.open("mysql://user:canary@host/auth")
    assert "canary" not in str(refused.value)
