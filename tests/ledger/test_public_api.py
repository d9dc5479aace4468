"""The names that users import are there, listed, documented, and never show a secret."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ledger

NAMES = """
    LeaseKey IdentityError LeaseLedger AuthLeaseHandle RefreshAttempt AuthLeaseSnapshot AuthLeasePhase
    AuthLeaseTransition NEVER_EXPIRES LeaseTransitionError RecordedEvent
    PersistedTokens PersistedAuthMode TokenLifecyclePublication
    TokenStore FileTokenStore KeyringTokenStore MemoryTokenStore AutoTokenStore ANY TokensChanged
    TokenStoreError TokenIOError TokenSerializationError KeyringUnavailable TokenPermissionDenied
    TokenStoreUnavailable TokensNotFound
    persisted_token_expires_at_epoch_secs persisted_auth_mode_uses_oauth_login_lifecycle
    mark_tokens_lifecycle_published mark_tokens_lifecycle_published_for_generation
    mark_tokens_lifecycle_published_for_transition mark_tokens_lifecycle_published_for_snapshot
    tokens_lifecycle_published tokens_lifecycle_published_generation tokens_lifecycle_publication
    tokens_lifecycle_publication_with_explicit_expiry tokens_lifecycle_published_credential_time
    publish_token_lifecycle_acquired publish_token_lifecycle_released clear_tokens_and_publish_lifecycle_released
    TokenLifecycleClearError LifecycleReleaseFailed TokenClearFailed TokenLoadAndClearFailed
    TokenClearAndRestoreFailed restore_token_lifecycle_snapshot lease_snapshot_expires_at_datetime
    AuthStatusPhase PublishedAuthStatus project_published_auth_status rehydrate_marked_oauth_tokens_for_status
    AuthStatusRehydrateError oauth_status_projection_snapshot_from_newer_marker
    acquire_auth_login_lifecycle_guard Credentials
    RefreshError ReauthRequired TokensNotSaved TokensElsewhere LedgerBehindStore
"""

METHODS = {
    "LeaseLedger": "open read read_all keys verify close",
    "AuthLeaseHandle": "acquire_lease mark_expiring begin_refresh complete_refresh refresh_failed mark_reauth_required "
    "release_lease release_credential_lifecycle restore_auth_lifecycle_snapshot snapshot",
    "Credentials": "login fresh logout status",
    "TokenStore": "load save clear list backend_name",
    "LeaseKey": "parse keyring_account",
    "PersistedTokens": "from_json to_json api_key static_bearer",
    "AuthStatusPhase": "from_lease_snapshot from_lease_expires_at from_lease_phase",
}


@pytest.mark.parametrize("name", NAMES.split())
def test_the_name_is_there_and_listed(name: str) -> None:
    assert hasattr(ledger, name)
    assert name in ledger.__all__


def test_every_listed_name_is_there_once() -> None:
    assert len(ledger.__all__) == len(set(ledger.__all__))
    assert [name for name in ledger.__all__ if not hasattr(ledger, name)] == []


@pytest.mark.parametrize("owner", METHODS)
def test_its_methods_are_there(owner: str) -> None:
    assert [name for name in METHODS[owner].split() if not hasattr(getattr(ledger, owner), name)] == []


def test_a_ledger_is_a_handle_and_every_store_a_store() -> None:
    assert issubclass(ledger.LeaseLedger, ledger.AuthLeaseHandle)
    for store in (ledger.FileTokenStore, ledger.KeyringTokenStore, ledger.MemoryTokenStore, ledger.AutoTokenStore):
        assert issubclass(store, ledger.TokenStore)


def test_a_handle_is_written_by_giving_it_what_is_abstract() -> None:
    has_defaults = {"release_credential_lifecycle", "restore_auth_lifecycle_snapshot"}
    assert ledger.AuthLeaseHandle.__abstractmethods__ == set(METHODS["AuthLeaseHandle"].split()) - has_defaults


def test_every_listed_class_and_function_says_what_it_is_for() -> None:
    documented = [getattr(ledger, name) for name in ledger.__all__]
    silent = [each.__name__ for each in documented if _is_code(each) and not inspect.getdoc(each)]
    assert silent == []


def _is_code(each: Any) -> bool:
    return inspect.isclass(each) or inspect.isfunction(each)


def test_never_expiring_is_the_largest_number_of_64_bits() -> None:
    assert ledger.NEVER_EXPIRES == 18446744073709551615


def test_every_error_of_the_ledger_can_be_caught_as_one() -> None:
    for name in ("LeaseTransitionError", "RefreshError", "ReauthRequired", "TokensNotSaved", "TokensElsewhere"):
        assert issubclass(getattr(ledger, name), ledger.LeaseLedgerError)
    assert issubclass(ledger.LedgerBehindStore, ledger.LeaseLedgerError)


def test_a_timeout_is_a_timeout_to_who_knows_nothing_of_ledgers() -> None:
    assert issubclass(ledger.GuardTimeout, TimeoutError)
    assert issubclass(ledger.RefreshTimedOut, TimeoutError)


def test_the_ledger_imports_nothing_of_the_projections() -> None:
    folder = Path(inspect.getfile(ledger)).parent
    offenders = [
        path.name
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Import) and any(alias.name.startswith("projections") for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("projections"))
    ]
    assert offenders == []


def test_importing_it_starts_nothing_and_needs_no_event_loop_library() -> None:
    script = (
        "import sys, threading, ledger\n"
        "assert threading.active_count() == 1\n"
        "print([name for name in ('trio', 'psycopg', 'cryptography', 'projections') if name in sys.modules])\n"
    )
    root = str(Path(inspect.getfile(ledger)).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True, cwd=root, timeout=60
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
