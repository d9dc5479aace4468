"""What a type checker tells users of credentials, tokens and stores. It also runs."""

import ast
import inspect
from datetime import datetime
from pathlib import Path
from typing import Any, assert_type, get_args

import msgspec
import pytest

import ledger.aio
from ledger import (
    ANY,
    AuthLeasePhase,
    AuthLeaseSnapshot,
    AuthLeaseTransition,
    AuthStatusPhase,
    AutoTokenStore,
    Credentials,
    Expectation,
    FileTokenStore,
    KeyringTokenStore,
    LeaseKey,
    LeaseLedger,
    MemoryTokenStore,
    PersistedAuthMode,
    PersistedTokens,
    Provenance,
    PublishedAuthStatus,
    RefreshError,
    TokenClass,
    TokensNotSaved,
    TokenStore,
    persisted_auth_mode_uses_oauth_login_lifecycle,
    provenance_of,
)
from ledger.snapshot import LeasePhaseName
from ledger.tokens import AuthModeName

KEY = LeaseKey("dev", "openai")
SPENT = PersistedTokens("external_tokens", primary_secret="a1", refresh_token="r1", expires_at=0)
GRANTED = PersistedTokens(PersistedAuthMode.EXTERNAL_TOKENS, primary_secret="a2", expires_at=2_000_000_000)


def refresh(old: PersistedTokens) -> PersistedTokens:
    return GRANTED


async def refresh_in_a_task(old: PersistedTokens) -> PersistedTokens:
    return GRANTED


def test_credentials(tmp_path: Path) -> None:
    with LeaseLedger.open("memory://") as opened:
        credentials = Credentials(opened, FileTokenStore(tmp_path), refresh_deadline=30)
        assert_type(credentials.login(KEY, SPENT), AuthLeaseTransition)
        tokens = credentials.fresh(KEY, refresh, window=60, leeway=10)
        assert_type(tokens, PersistedTokens)
        status = credentials.status(KEY)
        assert_type(status, PublishedAuthStatus)
        assert_type(status.phase, AuthStatusPhase)
        assert_type(status.expires_at, datetime | None)
        assert_type(status.tokens, PersistedTokens | None)
        provenance = provenance_of(opened, KEY, opened.state(KEY), tokens)
        assert_type(provenance, Provenance)
        assert_type(provenance.token_class, TokenClass)
        credentials.recover(KEY)
        credentials.logout(KEY, revoke=lambda unwanted: assert_type(unwanted, PersistedTokens))


@pytest.mark.anyio
async def test_credentials_of_tasks() -> None:
    with LeaseLedger.open("memory://") as opened:
        credentials = ledger.aio.Credentials(opened, MemoryTokenStore())
        assert_type(await credentials.login(KEY, SPENT), AuthLeaseTransition)
        assert_type(await credentials.fresh(KEY, refresh_in_a_task), PersistedTokens)
        assert_type(await credentials.status(KEY), PublishedAuthStatus)
        await credentials.recover(KEY)
        await credentials.logout(KEY)


def test_a_function_of_the_wrong_kind_is_told_apart() -> None:
    with LeaseLedger.open("memory://") as opened:
        threads, tasks = Credentials(opened, MemoryTokenStore()), ledger.aio.Credentials(opened, MemoryTokenStore())

        def wrong_here() -> object:
            return threads.fresh(KEY, refresh_in_a_task)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

        def wrong_there() -> object:
            return tasks.fresh(KEY, refresh)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    assert callable(wrong_here) and callable(wrong_there)


def test_an_auth_mode_goes_by_its_plain_name_as_well() -> None:
    assert_type(SPENT.auth_mode, PersistedAuthMode)
    assert SPENT.auth_mode is PersistedAuthMode.EXTERNAL_TOKENS
    assert_type(persisted_auth_mode_uses_oauth_login_lifecycle("api_key"), bool)
    with pytest.raises(ValueError):
        PersistedTokens("oauth")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_every_mode_and_phase_has_its_plain_name() -> None:
    assert set(get_args(AuthModeName)) == {mode.value for mode in PersistedAuthMode}
    assert set(get_args(LeasePhaseName)) == {phase.value for phase in AuthLeasePhase}


@pytest.mark.parametrize("kind", [PersistedTokens, AuthLeaseSnapshot])
def test_the_constructor_that_type_checkers_see_is_the_one_that_runs(kind: type[Any]) -> None:
    source = Path(inspect.getfile(kind)).read_text("utf-8")
    body = next(
        node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == kind.__name__
    )
    declared = next(
        node for node in ast.walk(body) if isinstance(node, ast.FunctionDef) and node.name == "__init__"
    ).args
    seen = [argument.arg for argument in (*declared.args[1:], *declared.kwonlyargs)]
    defaults = [ast.literal_eval(default) for default in (*declared.defaults, *declared.kw_defaults) if default]
    runs = inspect.signature(kind).parameters.values()
    assert seen == [parameter.name for parameter in runs]
    assert defaults == [each.default for each in runs if each.default is not inspect.Parameter.empty]
    assert {each.arg for each in declared.kwonlyargs} == {each.name for each in runs if each.kind is each.KEYWORD_ONLY}


def test_tokens() -> None:
    assert_type(PersistedTokens.api_key("s"), PersistedTokens)
    assert_type(PersistedTokens.from_json(GRANTED.to_json()), PersistedTokens)
    assert_type(GRANTED.to_json(), bytes)
    assert_type(GRANTED.refresh_token, str | None)
    assert_type(msgspec.structs.replace(GRANTED, expires_at=7), PersistedTokens)


def _anywhere(store: TokenStore) -> TokenStore:
    return store


def test_stores(tmp_path: Path) -> None:
    for store in (MemoryTokenStore(), FileTokenStore(tmp_path / "files"), FileTokenStore(str(tmp_path / "others"))):
        store.save(KEY, GRANTED, expect=ANY)
        assert_type(store.load(KEY), PersistedTokens | None)
        assert_type(store.list(), list[LeaseKey])
        assert_type(store.backend_name, str)
        expected: list[Expectation] = ["an event id", None, GRANTED, ANY]
        store.clear(KEY, expect=expected[2])
    assert_type(_anywhere(MemoryTokenStore()).location, str | None)
    kinds: list[type[TokenStore]] = [AutoTokenStore, FileTokenStore, KeyringTokenStore, MemoryTokenStore]
    assert all(issubclass(kind, TokenStore) for kind in kinds)


def test_errors_carry_what_they_are_about() -> None:
    refused = RefreshError(True, "invalid_grant", 400, 2.5)
    assert_type(refused.retry_after, float | None)
    assert_type(refused.permanent, bool)
    unsaved = TokensNotSaved(KEY, GRANTED)
    assert_type(unsaved.tokens, PersistedTokens)
    assert_type(unsaved.save_error, Exception | None)
