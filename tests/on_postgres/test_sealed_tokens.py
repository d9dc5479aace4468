"""Tokens in PostgreSQL are sealed: unreadable there, bound to their lease, and their keys change without a pause."""

import base64
import os
import stat
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from pgserver import admin, fresh_schema, server_of_its_own, with_options

from ledger.keys import LeaseKey
from ledger.store_errors import (
    TokenPermissionDenied,
    TokensChanged,
    TokenSerializationError,
    TokenStoreError,
    TokenStoreUnavailable,
)
from ledger.stores import PostgresTokenStore
from ledger.stores.encryption import KEY_ENV, KEY_FILE_ENV, TokenCipher, new_token_key
from ledger.tokens import PersistedTokens

KEY = LeaseKey.parse("dev:openai:work")
OTHER = LeaseKey.parse("dev:anthropic")
CANARY = "canary-91c7-secret"
TOKENS = PersistedTokens("claude_ai_oauth", CANARY, refresh_token=f"refresh-{CANARY}", metadata={"a": 1})


@pytest.fixture
def url(tmp_path: Path) -> str:
    return fresh_schema(tmp_path)


@pytest.fixture
def sql(url: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with admin(url) as connection:
        connection.execute(f"SET search_path = {url.rpartition('=')[2]}".encode())
        yield connection


def test_neither_the_table_nor_the_servers_log_holds_a_secret() -> None:
    key = new_token_key()
    with server_of_its_own(durable=False) as server:
        store = PostgresTokenStore(server.url, key=key)
        store.save(KEY, TOKENS)
        store.save(KEY, PersistedTokens("claude_ai_oauth", f"new-{CANARY}"), expect=TOKENS)
        with pytest.raises(TokensChanged):
            store.clear(KEY, expect=TOKENS)
        with admin(server.url) as connection:
            rows = connection.execute("SELECT lease_tokens::text FROM lease_ledger.lease_tokens").fetchall()
        said = server.log.read_bytes()
    assert b"UPDATE" in said and b"lease_tokens" in said
    raw = base64.urlsafe_b64decode(key)
    for secret in (CANARY.encode(), key.encode(), raw, CANARY.encode().hex().encode(), raw.hex().encode()):
        assert secret not in said
        assert secret.decode("latin-1") not in str(rows)


def test_a_row_moved_to_another_lease_does_not_open(url: str, sql: psycopg.Connection[tuple[object, ...]]) -> None:
    store = PostgresTokenStore(url, key=new_token_key())
    store.save(KEY, TOKENS)
    store.save(OTHER, PersistedTokens.api_key("other"))
    sql.execute(
        "UPDATE lease_tokens SET sealed = (SELECT sealed FROM lease_tokens WHERE lease_key = %s) WHERE lease_key = %s",
        [str(KEY), str(OTHER)],
    )
    with pytest.raises(TokenSerializationError, match="altered, or moved"):
        store.load(OTHER)
    assert store.load(KEY) == TOKENS


@pytest.mark.parametrize(
    "damage",
    [
        "sealed = sealed || '\\x00'",
        "sealed = set_byte(sealed, 30, get_byte(sealed, 30) # 1)",
        "sealed = ''",
        "event = 'forged'",
    ],
)
def test_an_altered_row_is_refused_listed_and_can_be_cleared(
    url: str, sql: psycopg.Connection[tuple[object, ...]], damage: str
) -> None:
    store = PostgresTokenStore(url, key=new_token_key())
    store.save(KEY, TOKENS)
    sql.execute(f"UPDATE lease_tokens SET {damage}".encode())
    with pytest.raises(TokenSerializationError):
        store.load(KEY)
    for expect in (None, "event", TOKENS):
        with pytest.raises(TokensChanged):
            store.save(KEY, TOKENS, expect=expect)
        with pytest.raises(TokensChanged):
            store.clear(KEY, expect=expect)
    assert store.list() == [KEY]
    store.save(KEY, TOKENS)
    assert store.load(KEY) == TOKENS
    sql.execute(f"UPDATE lease_tokens SET {damage}".encode())
    store.clear(KEY)
    assert store.list() == []


def test_keys_change_without_a_pause(url: str, tmp_path: Path) -> None:
    """Each step as the module tells it, with two machines at work, and nothing is ever unreadable or lost."""
    old, new = new_token_key(), new_token_key()
    files = [tmp_path / "one.keys", tmp_path / "two.keys"]
    for file in files:
        file.write_text(f"# the first seals\n{old}\n\n")
        file.chmod(0o600)
    stores = [PostgresTokenStore(url, key=file) for file in files]
    stop, problems = threading.Event(), list[BaseException]()

    def work(number: int) -> None:
        mine = LeaseKey.parse(f"dev:machine-{number}")
        try:
            for count in range(10_000):
                if stop.is_set():
                    return
                stores[number].save(mine, PersistedTokens.api_key(f"{count}"))
                assert stores[number].load(mine) == PersistedTokens.api_key(f"{count}")
                assert stores[number].load(KEY) == TOKENS
        except BaseException as error:
            problems.append(error)

    stores[0].save(KEY, TOKENS)
    workers = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for worker in workers:
        worker.start()
    try:
        for content in (f"{old}\n{new}\n", f"{new}\n{old}\n"):
            for file in files:
                fresh = file.with_suffix(".new")
                fresh.write_text(content)
                fresh.rename(file)
                time.sleep(0.05)
        assert stores[0].rotate() >= 1
        assert stores[1].rotate() == 0
        for file in files:
            fresh = file.with_suffix(".new")
            fresh.write_text(new)
            fresh.rename(file)
            time.sleep(0.05)
    finally:
        stop.set()
        for worker in workers:
            worker.join()
    assert problems == []
    assert PostgresTokenStore(url, key=new).load(KEY) == TOKENS
    with pytest.raises(TokenSerializationError, match="not among the token keys"):
        PostgresTokenStore(url, key=old).load(KEY)


def test_a_rotation_goes_through_all_and_names_what_does_not_open(url: str) -> None:
    lost, old, new = new_token_key(), new_token_key(), new_token_key()
    PostgresTokenStore(url, key=lost).save(OTHER, TOKENS)
    many = [LeaseKey.parse(f"dev:n-{number}") for number in range(450)]
    store = PostgresTokenStore(url, key=old)
    for key in many:
        store.save(key, TOKENS)
    rotating = PostgresTokenStore(url, key=[new, old])
    with pytest.raises(TokenSerializationError, match="dev:anthropic") as failed:
        rotating.rotate()
    assert lost not in str(failed.value)
    after = PostgresTokenStore(url, key=[new])
    assert all(after.load(key) == TOKENS for key in many)


def test_a_rotation_never_undoes_a_save(url: str) -> None:
    old, new = new_token_key(), new_token_key()
    store = PostgresTokenStore(url, key=[new, old])
    PostgresTokenStore(url, key=old).save(KEY, TOKENS)
    original = store._cipher.seal

    def seal(data: bytes, belongs_to: bytes) -> bytes:
        store._cipher.seal = original  # type: ignore[method-assign]
        PostgresTokenStore(url, key=old).save(KEY, PersistedTokens.api_key("newer"))
        return original(data, belongs_to)

    store._cipher.seal = seal  # type: ignore[method-assign]
    assert store.rotate() == 1
    assert PostgresTokenStore(url, key=new).load(KEY) == PersistedTokens.api_key("newer")


def test_keys_come_from_the_environment_or_a_file_it_names(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = new_token_key(), new_token_key()
    monkeypatch.setenv(KEY_ENV, f" {new}, {old} ")
    PostgresTokenStore(url).save(KEY, TOKENS)
    monkeypatch.delenv(KEY_ENV)
    (tmp_path / "keys").write_text(new)
    monkeypatch.setenv(KEY_FILE_ENV, str(tmp_path / "keys"))
    assert PostgresTokenStore(url).load(KEY) == TOKENS
    monkeypatch.delenv(KEY_FILE_ENV)
    with pytest.raises(ValueError, match=KEY_ENV):
        PostgresTokenStore(url)


@pytest.mark.parametrize("key", ["", "short", CANARY * 3, "ä" * 44, "A" * 40, "A" * 43 + "=AAAA"])
def test_what_is_no_key_is_refused_without_quoting_it(key: str) -> None:
    with pytest.raises(ValueError, match="token key is 32 random bytes") as refused:
        TokenCipher(key)
    assert not key or key not in f"{refused.value!r}{refused.value.__context__!r}"


def test_a_key_file_that_is_missing_or_locked_is_named(tmp_path: Path) -> None:
    with pytest.raises(TokenStoreUnavailable, match="missing"):
        TokenCipher(tmp_path / "missing")
    (tmp_path / "empty").touch()
    with pytest.raises(ValueError, match="no token key"):
        TokenCipher(tmp_path / "empty")
    if os.geteuid() != 0:
        (tmp_path / "locked").write_text(new_token_key())
        (tmp_path / "locked").chmod(0)
        with pytest.raises(TokenPermissionDenied, match="locked"):
            TokenCipher(tmp_path / "locked")


def test_a_key_file_open_to_everybody_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys"
    path.write_text(new_token_key())
    path.chmod(0o644)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    TokenCipher(path)
    assert "open to everybody" in caplog.text


def test_nothing_shows_a_key_or_a_password(url: str) -> None:
    key = new_token_key()
    store = PostgresTokenStore(url, key=key)
    password = url.split(":")[2].split("@", maxsplit=1)[0]
    for text in (repr(store), repr(store._cipher), repr(store._connections.address)):
        assert key not in text and password not in text


def test_a_store_whose_table_others_make_says_so(url: str) -> None:
    with pytest.raises(TokenStoreUnavailable, match="no token table"):
        PostgresTokenStore(with_options(url, create="no"), key=new_token_key())


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(TokenStoreError) as failed:
        PostgresTokenStore("postgresql://me:s3cret@127.0.0.1:1/db", key=new_token_key())
    assert isinstance(failed.value, TokenStoreUnavailable)
    assert "s3cret" not in f"{failed.value}{failed.value.__cause__}"


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(TokenStoreUnavailable, match=r"pip install 'lease-ledger\[postgres\]'"):
        TokenCipher(new_token_key())
