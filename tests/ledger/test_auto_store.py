"""Where the automatic store keeps a key, and that there is never any doubt about it."""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from keyring.backend import KeyringBackend
from keyring.backends.fail import Keyring as NoKeyring
from keyring.errors import KeyringLocked, PasswordSetError
from keyrings.alt.file import PlaintextKeyring

from ledger.keys import LeaseKey
from ledger.store_errors import (
    KeyringUnavailable,
    TokenPermissionDenied,
    TokensChanged,
    TokenSerializationError,
)
from ledger.stores import AutoTokenStore, FileTokenStore, KeyringTokenStore
from ledger.tokens import PersistedTokens

KEY = LeaseKey("dev", "openai", "work")
OTHER = LeaseKey("dev", "google")
OLD = PersistedTokens.api_key("old")
NEW = PersistedTokens.api_key("new")
BIG = PersistedTokens.api_key("big" * 1000)


class SwitchedKeyring(KeyringBackend):
    """A working keyring that can be locked, made read-only, or stop halfway; others may act before it reads."""

    priority = -10  # pyright: ignore[reportAssignmentType]

    def __init__(self, backend: KeyringBackend) -> None:
        super().__init__()
        self.backend = backend
        self.locked = False
        self.read_only = False
        self.dies_after_storing = False
        self.locks_when_deleting = False
        self.before_reading: Callable[[], None] | None = None

    def _check(self) -> None:
        if self.locked:
            raise KeyringLocked("locked")

    def get_password(self, service: str, username: str) -> str | None:
        self._check()
        if self.before_reading is not None:
            self.before_reading()
        return self.backend.get_password(service, username)

    def set_password(self, service: str, username: str, password: str) -> None:
        self._check()
        if self.read_only:
            raise PasswordSetError("User interaction is not allowed")
        self.backend.set_password(service, username, password)
        if self.dies_after_storing and not username.startswith(":"):
            raise ConnectionResetError

    def delete_password(self, service: str, username: str) -> None:
        self.locked = self.locked or self.locks_when_deleting
        self._check()
        self.backend.delete_password(service, username)


# Its module is how a store knows the Credential Manager of Windows and its limit.
WindowsSized = type("WinVaultKeyring", (SwitchedKeyring,), {"__module__": "keyring.backends.Windows"})


@pytest.fixture(autouse=True)
def no_keyring_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    monkeypatch.setattr("keyring.core._keyring_backend", None)


@pytest.fixture
def plaintext(tmp_path: Path) -> PlaintextKeyring:
    backend = PlaintextKeyring()
    backend.file_path = str(tmp_path / "keyring.cfg")  # pyright: ignore[reportAttributeAccessIssue]
    return backend


@pytest.fixture
def keyring(plaintext: PlaintextKeyring) -> SwitchedKeyring:
    return SwitchedKeyring(plaintext)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


@pytest.fixture
def store(root: Path, keyring: SwitchedKeyring) -> AutoTokenStore:
    return AutoTokenStore(root, backend=keyring)


@pytest.fixture
def windows(root: Path, plaintext: PlaintextKeyring) -> AutoTokenStore:
    return AutoTokenStore(root, backend=WindowsSized(plaintext))


def in_keyring(root: Path, backend: KeyringBackend, key: LeaseKey = KEY) -> PersistedTokens | None:
    return KeyringTokenStore(f"lease-ledger {root}", backend).load(key)


def in_file(root: Path, key: LeaseKey = KEY) -> PersistedTokens | None:
    return FileTokenStore(root).load(key)


def test_tokens_go_to_the_keyring_where_one_works(store: AutoTokenStore, root: Path, keyring: SwitchedKeyring) -> None:
    store.save(KEY, OLD)
    assert (store.place_of(KEY), store.backend_name) == ("keyring", "auto (keyring)")
    assert in_keyring(root, keyring) == OLD
    assert in_file(root) is None


def test_tokens_go_to_a_file_where_no_keyring_works(root: Path) -> None:
    store = AutoTokenStore(root)
    store.save(KEY, OLD)
    assert (store.place_of(KEY), store.backend_name) == ("file", "auto (file)")
    assert in_file(root) == OLD
    assert AutoTokenStore(root, backend=NoKeyring()).backend_name == "auto (file)"


def test_a_keyring_the_library_does_not_recommend_is_used_only_if_asked_for(
    root: Path, plaintext: PlaintextKeyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keyring.core._keyring_backend", plaintext)
    AutoTokenStore(root).save(KEY, OLD)
    assert AutoTokenStore(root).place_of(KEY) == "file"
    AutoTokenStore(root, backend=plaintext).save(OTHER, OLD)
    assert AutoTokenStore(root).place_of(OTHER) == "keyring"
    assert AutoTokenStore(root).load(OTHER) == OLD


def test_a_locked_keyring_is_passed_over_only_by_a_key_that_is_nowhere(
    store: AutoTokenStore, keyring: SwitchedKeyring, root: Path
) -> None:
    store.save(KEY, OLD)
    keyring.locked = True
    store.save(OTHER, NEW)
    assert (store.place_of(OTHER), store.load(OTHER)) == ("file", NEW)
    attempts: tuple[Callable[[], object], ...] = (
        lambda: store.load(KEY),
        lambda: store.save(KEY, NEW),
        lambda: store.clear(KEY),
        store.list,
    )
    for attempt in attempts:
        with pytest.raises(KeyringUnavailable):
            attempt()
    assert in_file(root) is None
    keyring.locked = False
    assert store.load(KEY) == OLD
    assert store.list() == [OTHER, KEY]


@pytest.mark.parametrize("gone", [NoKeyring(), None])
def test_a_keyring_that_is_gone_in_this_session_is_not_an_empty_one(
    store: AutoTokenStore, root: Path, gone: KeyringBackend | None
) -> None:
    store.save(KEY, OLD)
    with pytest.raises(KeyringUnavailable):
        AutoTokenStore(root, backend=gone).load(KEY)


def test_another_keyring_in_this_session_is_not_asked(
    store: AutoTokenStore, root: Path, plaintext: PlaintextKeyring
) -> None:
    store.save(KEY, OLD)
    session = AutoTokenStore(root, backend=plaintext)
    attempts: tuple[Callable[[], object], ...] = (
        lambda: session.load(KEY),
        lambda: session.save(KEY, NEW),
        lambda: session.clear(KEY),
    )
    for attempt in attempts:
        with pytest.raises(KeyringUnavailable, match=r"SwitchedKeyring, and this session has .*PlaintextKeyring"):
            attempt()
    assert store.load(KEY) == OLD


def test_a_keyring_that_appears_later_takes_over_no_key_until_that_is_cleared(
    store: AutoTokenStore, root: Path, keyring: SwitchedKeyring
) -> None:
    AutoTokenStore(root).save(KEY, OLD)
    assert store.load(KEY) == OLD
    store.save(KEY, NEW, expect=OLD)
    assert (store.place_of(KEY), in_keyring(root, keyring)) == ("file", None)
    store.clear(KEY)
    assert store.place_of(KEY) is None
    store.save(KEY, NEW, expect=None)
    assert (store.place_of(KEY), in_file(root)) == ("keyring", None)


def test_a_file_that_cannot_be_read_keeps_its_key_out_of_the_keyring(store: AutoTokenStore, root: Path) -> None:
    AutoTokenStore(root).save(KEY, OLD)
    FileTokenStore(root).path_of(KEY).write_bytes(b"damaged")
    with pytest.raises(TokenSerializationError):
        store.load(KEY)
    with pytest.raises(TokensChanged):
        store.save(KEY, NEW, expect=None)
    store.save(KEY, NEW)
    assert (store.place_of(KEY), store.load(KEY)) == ("file", NEW)


def test_a_keyring_that_can_be_read_but_not_written_is_passed_over(
    store: AutoTokenStore, keyring: SwitchedKeyring, root: Path
) -> None:
    keyring.read_only = True
    store.save(KEY, OLD)
    assert (store.place_of(KEY), in_file(root)) == ("file", OLD)
    keyring.read_only = False
    assert store.load(KEY) == OLD


def test_a_keyring_that_fails_after_it_took_the_tokens_is_not_passed_over(
    store: AutoTokenStore, keyring: SwitchedKeyring, root: Path
) -> None:
    keyring.dies_after_storing = True
    with pytest.raises(KeyringUnavailable):
        store.save(KEY, OLD)
    assert (store.place_of(KEY), in_file(root)) == ("keyring", None)
    assert store.load(KEY) == OLD


def test_a_save_that_expects_something_where_nothing_is_leaves_no_trace(
    store: AutoTokenStore, keyring: SwitchedKeyring, root: Path
) -> None:
    with pytest.raises(TokensChanged):
        store.save(KEY, OLD, expect="e1")
    assert (store.place_of(KEY), in_keyring(root, keyring), in_file(root)) == (None, None, None)


def test_tokens_too_large_for_the_keyring_go_to_a_file(windows: AutoTokenStore, root: Path) -> None:
    windows.save(KEY, BIG, expect=None)
    assert (windows.place_of(KEY), windows.load(KEY)) == ("file", BIG)


def test_tokens_that_outgrow_the_keyring_move_to_a_file_and_leave_nothing_behind(
    windows: AutoTokenStore, root: Path, plaintext: PlaintextKeyring
) -> None:
    windows.save(KEY, OLD)
    with pytest.raises(TokensChanged):
        windows.save(KEY, BIG, expect=NEW)
    assert (windows.place_of(KEY), windows.load(KEY)) == ("keyring", OLD)
    windows.save(KEY, BIG, expect=OLD)
    assert (windows.place_of(KEY), windows.load(KEY)) == ("file", BIG)
    assert in_keyring(root, plaintext) is None
    assert list((root / ".places").glob("*.json")) == []


def test_old_tokens_that_could_not_be_deleted_never_count_and_are_deleted_by_the_clear(
    root: Path, plaintext: PlaintextKeyring
) -> None:
    backend = WindowsSized(plaintext)
    store = AutoTokenStore(root, backend=backend)
    store.save(KEY, OLD)
    backend.locks_when_deleting = True
    store.save(KEY, BIG)
    assert (store.place_of(KEY), store.load(KEY), store.list()) == ("file", BIG, [KEY])
    store.save(KEY, NEW, expect=BIG)
    with pytest.raises(KeyringUnavailable):
        store.clear(KEY)
    assert store.load(KEY) == NEW
    assert in_keyring(root, plaintext) == OLD
    backend.locked = backend.locks_when_deleting = False
    store.clear(KEY)
    assert (store.load(KEY), store.place_of(KEY), in_keyring(root, plaintext)) == (None, None, None)


def test_a_move_that_was_interrupted_before_its_record_leaves_the_keyring_in_force(
    store: AutoTokenStore, root: Path
) -> None:
    store.save(KEY, OLD)
    FileTokenStore(root).save(KEY, BIG)
    assert (store.load(KEY), store.list()) == (OLD, [KEY])
    store.save(KEY, NEW, expect=OLD)
    assert (store.load(KEY), in_file(root)) == (NEW, None)


def test_a_clear_leaves_nothing_in_any_place(store: AutoTokenStore, root: Path, keyring: SwitchedKeyring) -> None:
    store.save(KEY, OLD)
    FileTokenStore(root).save(KEY, BIG)
    store.clear(KEY)
    assert (store.place_of(KEY), in_keyring(root, keyring), in_file(root)) == (None, None, None)


def test_a_first_save_that_was_killed_before_the_keyring_had_the_tokens_holds_nothing(
    store: AutoTokenStore, root: Path, keyring: SwitchedKeyring
) -> None:
    store.save(KEY, OLD)
    KeyringTokenStore(f"lease-ledger {root}", keyring).clear(KEY)
    assert (store.load(KEY), store.list(), store.place_of(KEY)) == (None, [], "keyring")
    store.save(KEY, NEW, expect=None)
    assert store.load(KEY) == NEW


def test_a_damaged_record_is_an_error_until_the_key_is_cleared(
    store: AutoTokenStore, root: Path, keyring: SwitchedKeyring
) -> None:
    store.save(KEY, OLD)
    (root / ".places" / "dev,openai,work.json").write_bytes(b'{"lease_key": 1')
    attempts: tuple[Callable[[], object], ...] = (
        lambda: store.load(KEY),
        lambda: store.save(KEY, NEW),
        lambda: store.clear(KEY, expect=OLD),
        store.list,
    )
    for attempt in attempts:
        with pytest.raises(TokenSerializationError, match="does not say where"):
            attempt()
    assert in_keyring(root, keyring) == OLD
    store.clear(KEY)
    assert (store.load(KEY), in_keyring(root, keyring)) == (None, None)


def test_two_roots_share_no_tokens(tmp_path: Path, keyring: SwitchedKeyring) -> None:
    one, other = (AutoTokenStore(tmp_path / name, backend=keyring) for name in ("one", "other"))
    one.save(KEY, OLD)
    assert other.load(KEY) is None
    other.save(KEY, NEW, expect=None)
    other.clear(KEY)
    assert one.load(KEY) == OLD


def test_a_renamed_folder_still_finds_its_tokens(store: AutoTokenStore, root: Path, keyring: SwitchedKeyring) -> None:
    store.save(KEY, OLD)
    root.rename(root.with_name("renamed"))
    moved = AutoTokenStore(root.with_name("renamed"), backend=keyring)
    assert (moved.load(KEY), moved.list()) == (OLD, [KEY])
    moved.save(KEY, NEW, expect=OLD)
    moved.clear(KEY, expect=NEW)
    assert in_keyring(root, keyring) is None


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_records_are_private_and_hold_no_secret(store: AutoTokenStore, root: Path) -> None:
    secret = PersistedTokens.api_key("canary-03aa-secret")
    store.save(KEY, secret)
    store.save(KEY, secret, expect=secret)
    record = root / ".places" / "dev,openai,work.json"
    assert json.loads(record.read_text()) == {
        "lease_key": "dev:openai:work",
        "authority": "keyring",
        "keyring": f"{SwitchedKeyring.__module__}.SwitchedKeyring",
        "service": f"lease-ledger {root}",
    }
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    assert stat.S_IMODE((root / ".places").stat().st_mode) == 0o700
    assert not any(b"canary" in path.read_bytes() for path in root.rglob("*") if path.is_file())


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_a_root_that_others_may_write_to_is_refused(store: AutoTokenStore, root: Path) -> None:
    root.mkdir()
    root.chmod(0o777)
    with pytest.raises(TokenPermissionDenied):
        store.save(KEY, OLD)
    assert list(root.iterdir()) == []


def test_a_reader_never_finds_a_key_empty_because_it_moved_meanwhile(
    windows: AutoTokenStore, root: Path, plaintext: PlaintextKeyring
) -> None:
    windows.save(KEY, OLD)
    reader = WindowsSized(plaintext)
    reader.before_reading = lambda: windows.save(KEY, BIG)
    assert AutoTokenStore(root, backend=reader).load(KEY) == BIG


def test_what_a_killed_save_left_of_a_record_stops_nobody(store: AutoTokenStore, root: Path) -> None:
    store.save(OTHER, OLD)
    (root / ".places" / ".tmp-dev,openai,work.json").write_bytes(b'{"lease_')
    assert store.list() == [OTHER]
    store.save(KEY, OLD)
    assert store.list() == [OTHER, KEY]
    assert list((root / ".places").glob(".tmp-*")) == []
