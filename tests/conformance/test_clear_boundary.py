"""Every recorded logout: which calls it makes in which order, what fails with which words, and what is left."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from conformance.recording import FailingStore, RestoringHandle, injected
from conformance.replay import PublicationClock, mismatches, recorded, shown

from ledger.errors import LeaseTransitionError
from ledger.events import LeaseReleased, LeaseRestored
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.lifecycle import (
    LifecycleReleaseFailed,
    TokenClearAndRestoreFailed,
    TokenClearFailed,
    TokenLifecycleClearError,
    TokenLoadAndClearFailed,
    clear_tokens_and_publish_lifecycle_released,
)
from ledger.tokens import PersistedTokens

CASES = recorded("clear_boundary")
KEY = LeaseKey.parse("dev:openai")
VARIANTS = {
    "auth_machine_release": LifecycleReleaseFailed,
    "token_store_clear": TokenClearFailed,
    "token_store_load_and_clear": TokenLoadAndClearFailed,
    "token_store_clear_and_lifecycle_restore": TokenClearAndRestoreFailed,
}


def _handle(case: dict[str, Any], ledger: LeaseLedger) -> RestoringHandle:
    return RestoringHandle(ledger, *(method for method in ("release", "restore") if case["inject"][method]))


def _store(case: dict[str, Any], calls: list[str]) -> FailingStore:
    store = FailingStore(calls, case["inject"]["load"], case["inject"]["clear"])
    if case["stored_tokens"] is not None:
        store.save(KEY, PersistedTokens.from_json(msgspec.json.encode(case["stored_tokens"])))
    return store


def _setup(case: dict[str, Any], ledger: LeaseLedger, clock: PublicationClock) -> None:
    setup = {"keys": [str(KEY)], "ops": [{"key": 0, **op} for op in case["setup_ops"]]}
    assert list(mismatches(ledger, clock, setup)) == [], case["id"]
    assert shown(ledger.snapshot(KEY)) == case["before"], case["id"]


def _logout(store: FailingStore, handle: RestoringHandle) -> TokenLifecycleClearError | None:
    try:
        clear_tokens_and_publish_lifecycle_released(store, handle, KEY)
    except TokenLifecycleClearError as error:
        return error
    return None


@pytest.mark.parametrize("start", range(0, len(CASES), 61))
def test_every_recorded_logout_does_and_says_what_was_recorded(start: int, tmp_path: Path) -> None:
    for case in CASES[start : start + 61]:
        url = f"sqlite:///{tmp_path}/{case['id']}.db?synchronous=normal"
        clock = PublicationClock()
        with LeaseLedger.open(url, clock=clock, actor="tester") as ledger:
            _setup(case, ledger, clock)
            handle = _handle(case, ledger)
            store = _store(case, handle.calls)
            _check_error(case, _logout(store, handle))
            assert handle.calls == [call for call in case["calls"] if call != "handle.snapshot"], case["id"]
            assert (store.inner.load(KEY) is not None) == case["store_has_tokens_after"], case["id"]
            assert shown(ledger.snapshot(KEY)) == case["after"], case["id"]
        with LeaseLedger.open(url) as reopened:
            assert shown(reopened.snapshot(KEY)) == case["after"], case["id"]
            assert reopened.verify().ok, case["id"]


def _check_error(case: dict[str, Any], error: TokenLifecycleClearError | None) -> None:
    if "ok" in case["result"]:
        assert error is None, case["id"]
        return
    assert error is not None, case["id"]
    assert type(error) is VARIANTS[case["result"]["error"]["variant"]], case["id"]
    assert str(error) == case["result"]["error"]["display"], case["id"]
    for name in ("load", "clear"):
        cause = getattr(error, f"{name}_error", None)
        if cause is not None:
            assert str(cause) == str(injected(case["inject"][name], name, KEY)), case["id"]
    for name in ("release", "restore"):
        assert isinstance(getattr(error, f"{name}_error", None), LeaseTransitionError | None), case["id"]


# The boundary's own promises, one by one


@pytest.fixture
def ledger(tmp_path: Path) -> Any:
    with LeaseLedger.open(f"sqlite:///{tmp_path}/auth.db", actor="tester") as opened:
        opened.acquire_lease(KEY, 1_800_000_000)
        yield opened


def test_a_failed_clear_restores_the_lease_with_an_event_that_names_the_release(ledger: LeaseLedger) -> None:
    before = ledger.snapshot(KEY)
    handle = RestoringHandle(ledger)
    error = _logout(FailingStore(handle.calls, None, "io"), handle)
    assert isinstance(error, TokenClearFailed)
    assert error.__cause__ is error.clear_error
    assert (ledger.snapshot(KEY), ledger.snapshot(KEY).published_by) == (before, before.published_by)
    released, restored = [recorded.event for recorded in ledger.read(KEY)][1:]
    assert isinstance(released, LeaseReleased)
    assert isinstance(restored, LeaseRestored)
    assert (restored.compensates, restored.captured_at_version) == (2, 1)


def test_a_newer_login_is_never_undone_by_a_failed_clear(ledger: LeaseLedger) -> None:
    class LoginInBetween(FailingStore):
        def clear(self, key: LeaseKey, **_: Any) -> None:
            ledger.acquire_lease(key, 1_900_000_000)
            super().clear(key)

    handle = RestoringHandle(ledger)
    error = _logout(LoginInBetween(handle.calls, None, "io"), handle)
    assert isinstance(error, TokenClearAndRestoreFailed)
    assert isinstance(error.restore_error, LeaseTransitionError)
    assert "the newer state wins" in str(error)
    assert (ledger.snapshot(KEY).generation, ledger.snapshot(KEY).expires_at) == (2, 1_900_000_000)


def test_a_failed_load_clears_what_nobody_can_read(ledger: LeaseLedger) -> None:
    handle = RestoringHandle(ledger)
    store = FailingStore(handle.calls, "serde", None)
    store.save(KEY, PersistedTokens.api_key("s3cret"))
    assert _logout(store, handle) is None
    assert (store.inner.load(KEY), ledger.snapshot(KEY).phase) == (None, None)


def test_when_load_and_clear_fail_nothing_is_released(ledger: LeaseLedger) -> None:
    before = ledger.snapshot(KEY)
    handle = RestoringHandle(ledger)
    error = _logout(FailingStore(handle.calls, "serde", "io"), handle)
    assert isinstance(error, TokenLoadAndClearFailed)
    assert (ledger.snapshot(KEY), ledger.recorder.last_position()) == (before, 1)


def test_whatever_a_store_raises_counts_as_its_failure(ledger: LeaseLedger) -> None:
    class Broken(FailingStore):
        def clear(self, key: LeaseKey, **_: Any) -> None:
            raise ZeroDivisionError("a bug in the store")

    handle = RestoringHandle(ledger)
    error = _logout(Broken(handle.calls, None, None), handle)
    assert isinstance(error, TokenClearFailed)
    assert isinstance(error.clear_error, ZeroDivisionError)
    assert ledger.snapshot(KEY).phase == "valid"


def test_logging_out_twice_is_no_error(ledger: LeaseLedger) -> None:
    handle = RestoringHandle(ledger)
    store = FailingStore(handle.calls, None, None)
    assert (_logout(store, handle), _logout(store, handle)) == (None, None)
    assert ledger.snapshot(KEY).phase is None
