"""Tokens in the keyring of the operating system: Keychain, Credential Manager, Secret Service, KWallet."""

import builtins
import hashlib
import os
import re
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from keyring import core, get_keyring
from keyring.backend import KeyringBackend
from keyring.backends import chainer, fail, null
from keyring.errors import InitError, KeyringLocked, NoKeyringError, PasswordDeleteError

from ledger.keys import IdentityError, LeaseKey
from ledger.store_errors import (
    KeyringUnavailable,
    TokenIOError,
    TokenSerializationError,
    TokenStoreError,
    TokenStoreUnavailable,
)
from ledger.stores.base import ANY, Expectation, TokenStore, refuse_unless_expected, sorted_keys
from ledger.stores.locking import LOCK_TIMEOUT_SECS, held_lock
from ledger.stores.private_files import make_private_folder
from ledger.stores.stored_form import keys_named_in, tokens_with_key
from ledger.tokens import PersistedTokens

__all__ = ["INDEX_ACCOUNT", "KeyringCannotKeep", "KeyringTokenStore"]

INDEX_ACCOUNT: Final = ":index:"
"""The account that lists the others, since keyrings cannot. No key is written like that."""

_WINDOWS_BACKEND: Final = "keyring.backends.Windows"
_WINDOWS_MAX_BYTES: Final = 2560
_COPIES_MAX: Final = 16
_T = TypeVar("_T")


class KeyringCannotKeep(TokenIOError):
    """This keyring has no place for these tokens, and another kind of store has. Nothing was written."""


class KeyringTokenStore(TokenStore):
    """Keeps each key's tokens as one secret of the user's keyring: service as given, account
    ``dev:openai:work``.

    A keyring that is locked, absent or broken is never taken for an empty one: every call then raises
    ``KeyringUnavailable``. The keyring may ask the person to unlock it, and a call lasts as long as that
    takes.

    Keyrings cannot swap one secret for another only if it is still the same. So ``save`` and ``clear``
    compare, and hold a lock in a folder of the user meanwhile, which makes compare-and-swap atomic between
    the processes of one user on one machine that use this class and see the same home folder. Against any
    other writer of the keyring it relies on the login guard.

    The index that ``list`` needs is a secret of its own (``INDEX_ACCOUNT``), written before the first tokens
    of a key and after its last. A damaged one is begun anew by the next save of a new key.

    The Credential Manager of Windows takes 2,560 bytes a secret, in UTF-16: tokens of at most 1,280
    characters, and an index of some 40 keys. It and some others do not tell ``Dev:a`` from ``dev:a``, so each
    secret names its key: of two such keys only one can be stored, and neither is ever taken for the other.
    Saving what the keyring cannot keep raises ``KeyringCannotKeep``.

    Args:
        service: The name under which the keyring files the secrets. Stores of one service hold the same
            tokens.
        backend: The keyring to use; the one that the ``keyring`` library chooses if none is given. It may
            choose another one in another session: one that was written to over a desktop is then not seen
            over SSH.
        lock_root: The folder for the lock file; by default ``lease-ledger`` in the user's state folder.
        lock_timeout: Seconds that ``save`` and ``clear`` wait for other writers of the same service.
    """

    def __init__(
        self,
        service: str = "lease-ledger",
        backend: KeyringBackend | None = None,
        *,
        lock_root: str | os.PathLike[str] | None = None,
        lock_timeout: float = LOCK_TIMEOUT_SECS,
    ) -> None:
        self._service = service
        self._given_backend = backend
        self._lock_root = None if lock_root is None else Path(lock_root).absolute()
        self._lock_timeout = lock_timeout

    def __repr__(self) -> str:
        return f"KeyringTokenStore({self._service!r})"

    @property
    def backend_name(self) -> str:
        """``"keyring"``."""
        return "keyring"

    @property
    def service(self) -> str:
        """The name under which the keyring files the secrets."""
        return self._service

    def keyring_name(self) -> str:
        """Which keyring keeps the tokens, as a Python class: ``keyring.backends.SecretService.Keyring``.

        Of a chain of keyrings, the first, which is the one that is written to.

        Raises:
            KeyringUnavailable: There is none.
        """
        backend = self._backend()
        if isinstance(backend, chainer.ChainerBackend):
            backend = next(iter(backend.backends))
        return f"{type(backend).__module__}.{type(backend).__qualname__}"

    def check_available(self) -> None:
        """Ask the keyring something harmless, which may make it ask the person to unlock it.

        Raises:
            KeyringUnavailable: There is no keyring, or it does not answer.
        """
        self._get(INDEX_ACCOUNT)

    def is_recommended(self) -> bool:
        """Whether the ``keyring`` library recommends this keyring. It recommends none that keeps plain text.

        Raises:
            KeyringUnavailable: There is no keyring, or it cannot be used in this session.
        """
        backend = self._backend()
        return _answer("use the keyring", lambda: bool(core.recommended(backend)))

    def holds(self, key: LeaseKey) -> bool:
        """Whether the keyring has a secret for the key, readable as tokens or not.

        Raises:
            KeyringUnavailable: The keyring is absent, locked or broken.
        """
        return self._own_text(key) is not None

    def load(self, key: LeaseKey) -> PersistedTokens | None:
        """The tokens stored under the key; ``None`` when the keyring answers that it holds none.

        Raises:
            KeyringUnavailable: The keyring is absent, locked or broken.
            TokenSerializationError: The secret cannot be read as tokens. It stays where it is.
        """
        text = self._own_text(key)
        if text is None:
            return None
        try:
            return PersistedTokens.from_json(text)
        except TokenSerializationError as error:
            raise TokenSerializationError(f"keyring secret {key}: {error.detail}") from None

    def save(self, key: LeaseKey, tokens: PersistedTokens, *, expect: Expectation = ANY) -> None:
        """Store the tokens under the key, and read them back to be sure.

        A secret in its place that cannot be read as tokens is overwritten with ``ANY``, and refuses the save
        with any other expectation.

        Raises:
            TokensChanged: Something else than ``expect`` is stored, or something unreadable. Nothing was
                written.
            TokenSerializationError: These tokens cannot be written as JSON. Nothing was written.
            KeyringCannotKeep: The tokens are too large, or the keyring mixes their key up with another.
                Nothing was written.
            KeyringUnavailable: The keyring is absent, locked or broken. If it broke meanwhile, ``load`` tells
                whether the tokens are stored.
            TokenIOError: The keyring took the tokens and answers others.
            TokenStoreUnavailable: Another writer holds the lock for too long. Nothing was written.
            TokenPermissionDenied: The lock's folder may not be used. Nothing was written.
        """
        text = tokens_with_key(key, tokens).decode()
        self._check_size(str(key), text)
        with self._sole_writer():
            refuse_unless_expected(key, expect, lambda: self.load(key))
            self._refuse_to_mix_up(key)
            self._add_to_index(key)
            self._set(key.keyring_account, text)
            if self._get(key.keyring_account) != text:
                raise TokenIOError(f"the keyring did not keep the tokens of {key}")

    def clear(self, key: LeaseKey, *, expect: Expectation = ANY) -> None:
        """Delete what the keyring holds under the key, every copy of it, readable or not.

        Raises:
            TokensChanged: Something else than ``expect`` is stored, or something unreadable. Nothing was
                deleted.
            KeyringUnavailable: The keyring is absent, locked or broken, or keeps the secret.
            TokenStoreUnavailable: Another writer holds the lock for too long. Nothing was deleted.
            TokenPermissionDenied, TokenIOError: The lock's folder cannot be used. Nothing was deleted.
        """
        with self._sole_writer():
            refuse_unless_expected(key, expect, lambda: self.load(key))
            if self.holds(key):
                self._delete(key.keyring_account)
            # The tokens are gone, so the clear succeeded. A name too many in the index costs list() a look.
            with suppress(TokenStoreError):
                self._drop_from_index(key)

    def list(self) -> builtins.list[LeaseKey]:
        """The keys that this class has stored something under, sorted by realm, binding and profile.

        Each is looked up, since the index may name some that were deleted by other means.

        Raises:
            KeyringUnavailable: The keyring is absent, locked or broken.
            TokenSerializationError: The index is damaged.
        """
        return [key for key in self._index() if self.holds(key)]

    def _own_text(self, key: LeaseKey) -> str | None:
        text = self._get(key.keyring_account)
        return None if text is None or _is_of_another(key, text) else text

    def _refuse_to_mix_up(self, key: LeaseKey) -> None:
        text = self._get(key.keyring_account)
        if text is not None and _is_of_another(key, text):
            raise KeyringCannotKeep(
                f"this keyring does not tell upper from lower case, and holds tokens of another key for {key}"
            )

    def _sole_writer(self) -> AbstractContextManager[None]:
        folder = self._lock_root or _state_folder()
        make_private_folder(str(folder))
        readable = re.sub(r"[^a-z0-9-]", "_", self._service.lower())[:40]
        digest = hashlib.sha256(self._service.encode()).hexdigest()[:16]
        return held_lock(str(folder / f"keyring-{readable}-{digest}.lock"), timeout=self._lock_timeout)

    def _index(self) -> builtins.list[LeaseKey]:
        text = self._get(INDEX_ACCOUNT)
        if text is None:
            return []
        try:
            return sorted_keys(LeaseKey.parse(name) for name in msgspec.json.decode(text, type=list[str]))
        except (msgspec.DecodeError, IdentityError):
            raise TokenSerializationError(f"keyring secret {INDEX_ACCOUNT} is no list of keys") from None

    def _add_to_index(self, key: LeaseKey) -> None:
        try:
            keys = self._index()
        except TokenSerializationError:
            # Listing is an aid; it must not stand between a person and a login.
            keys = []
        if key not in keys:
            self._write_index([*keys, key])

    def _drop_from_index(self, key: LeaseKey) -> None:
        keys = self._index()
        if keys == [key]:
            self._delete(INDEX_ACCOUNT)
        elif key in keys:
            self._write_index(other for other in keys if other != key)

    def _write_index(self, keys: Iterable[LeaseKey]) -> None:
        text = msgspec.json.encode([str(key) for key in sorted_keys(keys)]).decode()
        self._check_size(INDEX_ACCOUNT, text)
        self._set(INDEX_ACCOUNT, text)

    def _check_size(self, account: str, text: str) -> None:
        size = len(text.encode("utf-16-le"))
        if size > _WINDOWS_MAX_BYTES and self.keyring_name().startswith(f"{_WINDOWS_BACKEND}."):
            raise KeyringCannotKeep(
                f"{account} takes {size} bytes, and the Credential Manager of Windows keeps at most "
                f"{_WINDOWS_MAX_BYTES}: use a file store"
            )

    def _backend(self) -> KeyringBackend:
        backend = self._given_backend
        if backend is None:
            # A keyring named in the environment or a configuration file may be missing in any way at all.
            try:
                backend = get_keyring()
            except Exception as error:
                raise KeyringUnavailable(f"the configured keyring cannot be loaded ({type(error).__name__})") from error
        unusable = isinstance(backend, fail.Keyring | null.Keyring)
        if unusable or (isinstance(backend, chainer.ChainerBackend) and not backend.backends):
            raise KeyringUnavailable("this system or session has no keyring, or it is disabled")
        return backend

    def _get(self, account: str) -> str | None:
        return _answer(f"read {account}", lambda: self._backend().get_password(self._service, account))

    def _set(self, account: str, text: str) -> None:
        _answer(f"store {account}", lambda: self._backend().set_password(self._service, account, text))

    def _delete(self, account: str) -> None:
        # A keyring may hold several secrets of one name, and a chain of keyrings one in each.
        for _ in range(_COPIES_MAX):
            if self._get(account) is None:
                return
            try:
                _answer(f"delete {account}", lambda: self._backend().delete_password(self._service, account))
            except PasswordDeleteError:
                break
        if self._get(account) is not None:
            raise KeyringUnavailable(f"cannot delete {account}: the keyring keeps it")


def _is_of_another(key: LeaseKey, text: str) -> bool:
    named = list(keys_named_in(text.encode(errors="replace")))
    return bool(named) and key not in named


def _answer(doing: str, ask: Callable[[], _T]) -> _T:
    """Ask the keyring. What a backend raises may quote the secret, so nothing of it is told but its class."""
    try:
        return ask()
    except (TokenStoreError, PasswordDeleteError):
        raise
    except Exception as error:
        reason = _reason(error)
    raise KeyringUnavailable(f"cannot {doing}: {reason}")


def _reason(error: Exception) -> str:
    match error:
        case KeyringLocked():
            return "the keyring is locked"
        case InitError():
            return "the keyring cannot be opened"
        case NoKeyringError():
            return "there is no keyring"
        case _:
            return f"the keyring failed with {type(error).__name__}"


def _state_folder() -> Path:
    configured = os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_STATE_HOME")
    try:
        state = Path(configured) if configured else Path.home() / ".local" / "state"
    except RuntimeError:
        raise TokenStoreUnavailable("this user has no home folder to keep the keyring's lock in") from None
    return state / "lease-ledger"
