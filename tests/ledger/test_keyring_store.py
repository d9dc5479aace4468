"""The keyring store against keyrings of the real library, one that is locked among them."""

import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from keyring.backend import KeyringBackend
from keyring.backends import chainer, fail, null
from keyring.errors import KeyringError, KeyringLocked, PasswordDeleteError, PasswordSetError
from keyrings.alt.file import PlaintextKeyring

from ledger.keys import LeaseKey
from ledger.store_errors import (
    KeyringUnavailable,
    TokenIOError,
    TokensChanged,
    TokenSerializationError,
    TokenStoreError,
    TokenStoreUnavailable,
)
from ledger.stores import KeyringCannotKeep, KeyringTokenStore
from ledger.stores.keyring import INDEX_ACCOUNT
from ledger.tokens import PersistedTokens

KEY = LeaseKey("dev", "openai", "work")
CANARY = "canary-7b20f8-secret"
TOKENS = PersistedTokens.api_key(CANARY)
NEWER = PersistedTokens.api_key(f"newer {CANARY}")
SERVICE = "lease-ledger-test"


class FailingKeyring(KeyringBackend):
    """Hands every call on to a working keyring, until told to fail with an error that quotes what it was given."""

    priority = -10  # pyright: ignore[reportAssignmentType]

    def __init__(self, backend: KeyringBackend) -> None:
        super().__init__()
        self.backend = backend
        self.failures: dict[str, Exception] = {}

    def _answer(self, call: str, *arguments: str) -> str | None:
        if call in self.failures:
            raise self.failures[call]
        answer: str | None = getattr(self.backend, call)(*arguments)
        return answer

    def get_password(self, service: str, username: str) -> str | None:
        return self._answer("get_password", service, username)

    def set_password(self, service: str, username: str, password: str) -> None:
        self._answer("set_password", service, username, password)

    def delete_password(self, service: str, username: str) -> None:
        self._answer("delete_password", service, username)


class ForgetfulKeyring(FailingKeyring):
    """Accepts what it does not keep, as a chain does whose keyrings implement nothing."""

    def set_password(self, service: str, username: str, password: str) -> None:
        pass


class TwiceKeyring(FailingKeyring):
    """Holds two secrets of one name, and deletes one a call, as a Secret Service may."""

    def __init__(self, backend: KeyringBackend) -> None:
        super().__init__(backend)
        self.copies: dict[str, list[str]] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return next(iter(self.copies.get(username, [])), None)

    def set_password(self, service: str, username: str, password: str) -> None:
        self.copies[username] = [password, "an older copy"]

    def delete_password(self, service: str, username: str) -> None:
        self.copies[username].pop(0)


# Its module is how the store knows the Credential Manager of Windows, whose limit it must know before it writes.
WindowsSized = type("WinVaultKeyring", (FailingKeyring,), {"__module__": "keyring.backends.Windows"})


@pytest.fixture
def plaintext(tmp_path: Path) -> PlaintextKeyring:
    backend = PlaintextKeyring()
    backend.file_path = str(tmp_path / "keyring.cfg")  # pyright: ignore[reportAttributeAccessIssue]
    return backend


@pytest.fixture
def backend(plaintext: PlaintextKeyring) -> FailingKeyring:
    return FailingKeyring(plaintext)


def open_store(backend: KeyringBackend | None, tmp_path: Path) -> KeyringTokenStore:
    return KeyringTokenStore(SERVICE, backend, lock_root=tmp_path / "locks")


@pytest.fixture
def store(backend: FailingKeyring, tmp_path: Path) -> KeyringTokenStore:
    return open_store(backend, tmp_path)


def every_call(store: KeyringTokenStore) -> list[Callable[[], object]]:
    return [
        lambda: store.load(KEY),
        lambda: store.save(KEY, TOKENS),
        lambda: store.clear(KEY),
        store.list,
        store.check_available,
        lambda: store.holds(KEY),
    ]


def test_the_secret_is_found_under_the_account_of_the_key(store: KeyringTokenStore, backend: FailingKeyring) -> None:
    store.save(KEY, TOKENS)
    text = backend.get_password(SERVICE, "dev:openai:work")
    assert text is not None and PersistedTokens.from_json(text) == TOKENS
    assert (store.service, store.backend_name) == (SERVICE, "keyring")


def test_a_secret_that_another_program_wrote_is_read(store: KeyringTokenStore, backend: FailingKeyring) -> None:
    backend.set_password(SERVICE, KEY.keyring_account, TOKENS.to_json().decode())
    assert store.load(KEY) == TOKENS
    store.save(KEY, NEWER, expect=TOKENS)
    assert store.load(KEY) == NEWER


@pytest.mark.parametrize(
    "failure",
    [
        KeyringLocked(CANARY),
        KeyringError(CANARY),
        RuntimeError(CANARY),
        ConnectionRefusedError(111, CANARY),
        UnicodeDecodeError("utf-8", CANARY.encode(), 0, 1, CANARY),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_a_keyring_that_cannot_be_asked_is_unavailable_and_never_empty(
    store: KeyringTokenStore, backend: FailingKeyring, failure: Exception
) -> None:
    store.save(KEY, TOKENS)
    backend.failures = {"get_password": failure}
    for call in every_call(store):
        with pytest.raises(KeyringUnavailable) as unavailable:
            call()
        assert CANARY not in "".join(traceback.format_exception(unavailable.value))
        assert unavailable.value.__context__ is None
    backend.failures = {}
    assert store.load(KEY) == TOKENS


def test_a_locked_keyring_is_called_locked(store: KeyringTokenStore, backend: FailingKeyring) -> None:
    backend.failures = {"get_password": KeyringLocked("no")}
    with pytest.raises(KeyringUnavailable, match=r"^keyring backend unavailable: cannot read .* locked$"):
        store.load(KEY)


@pytest.mark.parametrize("error", [PasswordSetError(CANARY), ValueError(CANARY)])
def test_a_keyring_that_refuses_to_store_leaves_the_old_tokens_and_quotes_nothing(
    store: KeyringTokenStore, backend: FailingKeyring, error: Exception
) -> None:
    store.save(KEY, TOKENS)
    backend.failures = {"set_password": error}
    with pytest.raises(KeyringUnavailable) as unavailable:
        store.save(KEY, NEWER)
    assert CANARY not in "".join(traceback.format_exception(unavailable.value)) + repr(unavailable.value)
    assert store.load(KEY) == TOKENS


def test_a_keyring_that_refuses_to_delete_is_no_cleared_keyring(
    store: KeyringTokenStore, backend: FailingKeyring
) -> None:
    store.save(KEY, TOKENS)
    backend.failures = {"delete_password": PasswordDeleteError("no")}
    with pytest.raises(KeyringUnavailable, match="keeps it"):
        store.clear(KEY)
    assert store.load(KEY) == TOKENS


def test_a_keyring_that_does_not_keep_what_it_accepts_is_an_error(plaintext: PlaintextKeyring, tmp_path: Path) -> None:
    with pytest.raises(TokenIOError, match="did not keep"):
        open_store(ForgetfulKeyring(plaintext), tmp_path).save(KEY, TOKENS)


def test_every_copy_of_a_secret_is_deleted(plaintext: PlaintextKeyring, tmp_path: Path) -> None:
    backend = TwiceKeyring(plaintext)
    store = open_store(backend, tmp_path)
    store.save(KEY, TOKENS)
    store.clear(KEY)
    assert backend.copies[KEY.keyring_account] == []


class EmptyChain(chainer.ChainerBackend):
    backends = ()  # pyright: ignore[reportAssignmentType]


@pytest.mark.parametrize("backend", [fail.Keyring(), null.Keyring(), EmptyChain()])
def test_a_keyring_that_is_none_is_unavailable(backend: KeyringBackend, tmp_path: Path) -> None:
    for call in every_call(open_store(backend, tmp_path)):
        with pytest.raises(KeyringUnavailable, match="no keyring"):
            call()


def test_a_chain_goes_by_the_name_of_the_keyring_it_writes_to(
    plaintext: PlaintextKeyring, backend: FailingKeyring, tmp_path: Path
) -> None:
    chain = type("Chain", (chainer.ChainerBackend,), {"backends": (plaintext, backend)})()
    store = open_store(chain, tmp_path)
    store.save(KEY, TOKENS)
    assert store.load(KEY) == TOKENS
    assert store.keyring_name() == "keyrings.alt.file.PlaintextKeyring"


def test_a_configured_keyring_that_cannot_be_loaded_is_unavailable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "no.such.Keyring")
    monkeypatch.setattr("keyring.core._keyring_backend", None)
    with pytest.raises(KeyringUnavailable, match="cannot be loaded"):
        open_store(None, tmp_path).load(KEY)


def test_a_plaintext_keyring_is_not_recommended(store: KeyringTokenStore, plaintext: PlaintextKeyring) -> None:
    assert not KeyringTokenStore(SERVICE, plaintext).is_recommended()


def test_an_unreadable_secret_stays_until_it_is_overwritten_or_cleared(
    store: KeyringTokenStore, backend: FailingKeyring
) -> None:
    backend.set_password(SERVICE, KEY.keyring_account, f"{{{CANARY}")
    with pytest.raises(TokenSerializationError, match="dev:openai:work") as damaged:
        store.load(KEY)
    assert CANARY not in "".join(traceback.format_exception(damaged.value))
    with pytest.raises(TokensChanged):
        store.save(KEY, TOKENS, expect=None)
    assert backend.get_password(SERVICE, KEY.keyring_account) == f"{{{CANARY}"
    store.save(KEY, TOKENS)
    assert store.load(KEY) == TOKENS
    backend.set_password(SERVICE, KEY.keyring_account, CANARY)
    store.clear(KEY)
    assert backend.get_password(SERVICE, KEY.keyring_account) is None


# The index


def test_clearing_the_last_key_leaves_nothing_in_the_keyring(store: KeyringTokenStore, backend: FailingKeyring) -> None:
    other = LeaseKey("dev", "google")
    store.save(KEY, TOKENS)
    store.save(other, TOKENS)
    store.clear(KEY)
    assert backend.get_password(SERVICE, INDEX_ACCOUNT) == '["dev:google"]'
    store.clear(other)
    assert backend.get_password(SERVICE, INDEX_ACCOUNT) is None


def test_a_secret_deleted_by_other_means_is_not_listed(store: KeyringTokenStore, backend: FailingKeyring) -> None:
    store.save(KEY, TOKENS)
    backend.delete_password(SERVICE, KEY.keyring_account)
    assert store.list() == []


@pytest.mark.parametrize("damage", ["", "{}", '["no key"]', "[1]"])
def test_a_damaged_index_stops_the_list_and_no_login(
    store: KeyringTokenStore, backend: FailingKeyring, damage: str
) -> None:
    store.save(LeaseKey("dev", "google"), TOKENS)
    backend.set_password(SERVICE, INDEX_ACCOUNT, damage)
    with pytest.raises(TokenSerializationError, match=INDEX_ACCOUNT):
        store.list()
    store.clear(LeaseKey("dev", "google"))
    store.save(KEY, TOKENS)
    assert store.list() == [KEY]


# Keyrings with limits


def test_tokens_too_large_for_windows_are_refused_before_anything_is_written(
    plaintext: PlaintextKeyring, tmp_path: Path
) -> None:
    store = open_store(WindowsSized(plaintext), tmp_path)
    store.save(KEY, TOKENS)
    with pytest.raises(KeyringCannotKeep, match="2560") as refused:
        store.save(KEY, PersistedTokens.api_key(CANARY * 100))
    assert CANARY not in str(refused.value)
    assert store.load(KEY) == TOKENS
    for number in range(60):
        key = LeaseKey("development-environment", f"binding-{number}")
        try:
            store.save(key, TOKENS)
        except KeyringCannotKeep as error:
            assert INDEX_ACCOUNT in str(error)
            assert not store.holds(key)
            assert len(store.list()) == number + 1
            break
    else:
        pytest.fail("an index of 60 keys does not fit")


def test_keys_that_the_keyring_cannot_tell_apart_are_never_mixed_up(
    plaintext: PlaintextKeyring, tmp_path: Path
) -> None:
    store = open_store(plaintext, tmp_path)
    lower, upper = LeaseKey("dev", "a"), LeaseKey("Dev", "A")
    store.save(lower, TOKENS)
    assert store.load(upper) is None
    with pytest.raises(KeyringCannotKeep, match="upper from lower case"):
        store.save(upper, NEWER)
    store.clear(upper)
    assert store.load(lower) == TOKENS
    assert store.list() == [lower]


# The lock


def test_a_lock_that_stays_held_is_named_and_nothing_is_written(plaintext: PlaintextKeyring, tmp_path: Path) -> None:
    store = KeyringTokenStore("Work & Play", plaintext, lock_root=tmp_path, lock_timeout=0.05)
    store.save(KEY, TOKENS)
    (lock,) = tmp_path.glob("keyring-work___play-*.lock")
    with FileLock(lock):
        attempts: tuple[Callable[[], object], ...] = (lambda: store.save(KEY, NEWER), lambda: store.clear(KEY))
        for attempt in attempts:
            with pytest.raises(TokenStoreUnavailable) as unavailable:
                attempt()
            assert str(lock) in str(unavailable.value)
        assert store.load(KEY) == TOKENS
    assert lock.read_bytes() == b""


def test_the_lock_is_kept_in_the_state_folder_of_the_user(
    plaintext: PlaintextKeyring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCALAPPDATA" if os.name == "nt" else "XDG_STATE_HOME", str(tmp_path / "state"))
    KeyringTokenStore(SERVICE, plaintext).save(KEY, TOKENS)
    assert len(list((tmp_path / "state" / "lease-ledger").glob("keyring-lease-ledger-test-*.lock"))) == 1


@pytest.mark.skipif(os.name == "nt", reason="a home folder is always configured there")
def test_without_a_home_folder_nothing_is_written(plaintext: PlaintextKeyring, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(TokenStoreUnavailable, match="no home folder"):
        KeyringTokenStore(SERVICE, plaintext).save(KEY, TOKENS)
    assert KeyringTokenStore(SERVICE, plaintext).load(KEY) is None


# A real Secret Service

SESSION = """
set -e
export HOME=$1 XDG_DATA_HOME=$1/data XDG_RUNTIME_DIR=$1/run
mkdir -m 700 "$XDG_RUNTIME_DIR"
printf password | gnome-keyring-daemon --unlock --components=secrets --foreground >/dev/null 2>&1 &
daemon=$!
trap 'kill $daemon' EXIT
"$2" -c "$3" "$1"
"""

IN_SESSION = """
import sys, time
from pathlib import Path
import secretstorage
from keyring.backends.SecretService import Keyring
from ledger.keys import LeaseKey
from ledger.stores import AutoTokenStore, KeyringTokenStore
from ledger.store_errors import KeyringUnavailable
from ledger.tokens import PersistedTokens

for _ in range(200):
    try:
        Keyring.priority
        secretstorage.get_default_collection(secretstorage.dbus_init())
        break
    except Exception:
        time.sleep(0.02)
store = KeyringTokenStore()
lower, upper = LeaseKey("dev", "openai", "work"), LeaseKey("Dev", "openai", "work")
store.save(lower, PersistedTokens.api_key("s" * 20_000), expect=None)
store.save(upper, PersistedTokens.api_key("other"), expect=None)
print(store.keyring_name(), store.is_recommended(), [str(key) for key in store.list()])
print(store.load(lower) == PersistedTokens.api_key("s" * 20_000))
store.clear(upper)
print(store.load(upper), [str(key) for key in store.list()])
auto = AutoTokenStore(Path(sys.argv[1]) / "tokens")
auto.save(lower, PersistedTokens.api_key("auto"))
print(auto.backend_name, auto.place_of(lower), auto.load(lower).primary_secret)
secretstorage.get_default_collection(secretstorage.dbus_init()).lock()
for ask in (lambda: store.load(lower), lambda: store.clear(lower), store.list, lambda: auto.load(lower)):
    try:
        print(ask())
    except KeyringUnavailable as error:
        print(error.detail.rpartition(": ")[2])
"""


def test_a_real_secret_service_keeps_tokens_and_when_locked_is_not_empty(tmp_path: Path) -> None:
    missing = [name for name in ("dbus-run-session", "gnome-keyring-daemon") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"no Secret Service to start: {' and '.join(missing)} not installed")
    session = subprocess.run(
        ["dbus-run-session", "--", "bash", "-c", SESSION, "bash", str(tmp_path), sys.executable, IN_SESSION],
        env={
            **{name: value for name, value in os.environ.items() if name != "PYTHON_KEYRING_BACKEND"},
            "PYTHONPATH": str(Path(__file__).parents[2]),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert session.stdout.splitlines() == [
        "keyring.backends.SecretService.Keyring True ['Dev:openai:work', 'dev:openai:work']",
        "True",
        "None ['dev:openai:work']",
        "auto (keyring) keyring auto",
        *["the keyring is locked"] * 4,
    ], session.stderr


def test_no_error_holds_a_secret(store: KeyringTokenStore) -> None:
    store.save(KEY, TOKENS)
    attempts: tuple[Callable[[], object], ...] = (
        lambda: store.save(KEY, NEWER, expect=None),
        lambda: store.save(KEY, NEWER, expect=PersistedTokens.api_key("another")),
        lambda: store.save(KEY, PersistedTokens("api_key", CANARY, metadata={1: 2.0, "x": float("nan")})),
    )
    for attempt in attempts:
        with pytest.raises(TokenStoreError) as failure:
            attempt()
        assert CANARY not in "".join(traceback.format_exception(failure.value)) + repr(failure.value)
    assert CANARY not in repr(store)
