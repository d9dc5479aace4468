"""Tokens in the keyring where one works, else in files, and never in doubt which."""

import builtins
import os
from typing import Final, Literal

import msgspec
from keyring.backend import KeyringBackend

from ledger.keys import LeaseKey
from ledger.store_errors import KeyringUnavailable, TokenSerializationError, TokenStoreError
from ledger.stores.base import ANY, Expectation, TokenStore, refuse_unless_expected, sorted_keys
from ledger.stores.file import FileTokenStore
from ledger.stores.keyring import KeyringCannotKeep, KeyringTokenStore
from ledger.stores.locking import LOCK_TIMEOUT_SECS
from ledger.stores.places import KeyringPlace, Places
from ledger.stores.private_files import make_private_folder
from ledger.tokens import PersistedTokens

__all__ = ["AutoTokenStore"]

_PLACES: Final = ".places"
_LOCKS: Final = ".locks"


class AutoTokenStore(TokenStore):
    """Keeps each key's tokens in the user's keyring where one works, and else in a file of ``root``.

    A key has one place. It is chosen by the save that finds nothing stored, and stays until the key is
    cleared. A key in the keyring has a record in ``root/.places`` that says so, written before its tokens; a
    key without one is in its file or nowhere. So a keyring that was used for a key and is locked, gone, or
    not the same in this session raises ``KeyringUnavailable``, and is never passed over for a file, stale or
    empty. The other way round, a keyring that appears later takes over no key that is in a file.

    One thing moves a key: a save that its keyring cannot keep (``KeyringCannotKeep``) goes to the file. The
    record then says that the file counts and the keyring may still hold old tokens, until the key is cleared.

    ``save`` and ``clear`` hold a lock of the key while they compare and write, so compare-and-swap is atomic
    between all threads and processes that use this root.

    Args:
        root: The folder for files, records and locks; see ``FileTokenStore``. It belongs to this store alone.
        service: The name under which the keyring files the secrets; by default one made of ``root``, so that
            two roots never share tokens; one given must be this root's alone too. Each record keeps the one
            it was written with, so a folder may be renamed.
        backend: The keyring to use. If none is given, the one that the ``keyring`` library chooses, but only
            if the library recommends it: its plain-text keyrings are no better than these files.
        lock_timeout: Seconds that ``save`` and ``clear`` wait for other writers.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        service: str | None = None,
        backend: KeyringBackend | None = None,
        lock_timeout: float = LOCK_TIMEOUT_SECS,
    ) -> None:
        self._files = FileTokenStore(root, lock_timeout=lock_timeout)
        self._places = Places(str(self._files.root / _PLACES), lock_timeout=lock_timeout)
        self._service = f"lease-ledger {self._files.root}" if service is None else service
        self._backend = backend
        self._lock_timeout = lock_timeout

    def __repr__(self) -> str:
        return f"AutoTokenStore({str(self._files.root)!r})"

    @property
    def backend_name(self) -> str:
        """Where a new key would go now: ``"auto (keyring)"`` or ``"auto (file)"``. Unlocks nothing."""
        return "auto (keyring)" if self._has_keyring() else "auto (file)"

    @property
    def location(self) -> str:
        """The folder whose records say where each key is."""
        return f"auto:{self._files.location}"

    def place_of(self, key: LeaseKey) -> Literal["keyring", "file"] | None:
        """Where the key's tokens are. ``None`` when it has neither a record nor a file.

        Raises:
            TokenSerializationError: The key's record is damaged.
            TokenPermissionDenied, TokenIOError: It could not be read.
        """
        place = self._places.read(key)
        if place is not None:
            return place.authority
        return "file" if self._files.holds(key) else None

    def load(self, key: LeaseKey) -> PersistedTokens | None:
        """The tokens stored under the key; ``None`` when its place holds nothing.

        Raises:
            KeyringUnavailable: The tokens are in a keyring that is locked, gone or another one in this
                session.
            TokenSerializationError: What is stored, or the record of its place, cannot be read. It stays.
            TokenPermissionDenied, TokenIOError: A file could not be read.
        """
        place = self._places.read(key)
        while True:
            tokens = self._store_at(place).load(key)
            if tokens is not None:
                return tokens
            # Nothing there may mean that the tokens moved between the two looks.
            now = self._places.read(key)
            if now == place:
                return None
            place = now

    def save(self, key: LeaseKey, tokens: PersistedTokens, *, expect: Expectation = ANY) -> None:
        """Store the tokens in the key's place, or choose one if it has none.

        Raises:
            KeyringUnavailable: The key is in a keyring that is locked, gone or another one in this session,
                or one that seemed to work failed. If it failed halfway, ``load`` tells whether the tokens are
                stored.
            TokenStoreError: As ``FileTokenStore`` and ``KeyringTokenStore`` raise it, ``TokensChanged``
                included.
        """
        make_private_folder(str(self._files.root))
        with self._places.sole_changer(key):
            place = self._places.read(key)
            if place is None and not self._files.holds(key):
                chosen = self._choose_keyring(key)
                if chosen is not None:
                    refuse_unless_expected(key, expect, lambda: None)
                    self._save_first(key, tokens, chosen)
                    return
            if place is None or place.authority == "file":
                self._files.save(key, tokens, expect=expect)
                return
            store = self._keyring_of(place)
            try:
                store.save(key, tokens, expect=expect)
            except KeyringCannotKeep:
                refuse_unless_expected(key, expect, lambda: store.load(key))
                self._move_to_file(key, tokens, place)
                return
            if self._files.holds(key):
                self._files.clear(key)

    def check_savable(self, key: LeaseKey) -> None:
        """As ``FileTokenStore`` does, for a key that is in a file.

        Raises:
            TokenStoreError: Saving would be refused.
        """
        if self.place_of(key) == "file":
            self._files.check_savable(key)

    def clear(self, key: LeaseKey, *, expect: Expectation = ANY) -> None:
        """Destroy what is stored under the key, in every place that may hold it. Clearing nothing succeeds.

        With a damaged record, the file and the keyring of this session are both cleared.

        Raises:
            KeyringUnavailable: A keyring that may hold tokens of the key cannot be asked. The tokens that
                count are still there.
            TokenStoreError: As ``FileTokenStore`` and ``KeyringTokenStore`` raise it, ``TokensChanged``
                included.
        """
        with self._places.sole_changer(key):
            try:
                place = self._places.read(key)
            except TokenSerializationError:
                if expect is not ANY:
                    raise
                self._keyring(self._service).clear(key)
                self._files.clear(key)
                self._places.remove(key)
                return
            if place is None:
                self._files.clear(key, expect=expect)
                return
            counts = self._store_at(place)
            refuse_unless_expected(key, expect, lambda: counts.load(key))
            other = self._files if counts is not self._files else self._keyring_of(place)
            # What counts goes last: a failure before it leaves the key as it was.
            other.clear(key)
            counts.clear(key)
            self._places.remove(key)

    def list(self) -> builtins.list[LeaseKey]:
        """The keys that hold something, sorted by realm, binding and profile.

        Raises:
            KeyringUnavailable: A key is in a keyring that cannot be asked.
            TokenSerializationError: A record is damaged.
            TokenPermissionDenied, TokenIOError: A file could not be read.
        """
        in_keyring = {key: place for key, place in self._places.all() if place.authority == "keyring"}
        held = {key for key, place in in_keyring.items() if self._keyring_of(place).holds(key)}
        return sorted_keys(held.union(key for key in self._files.list() if key not in in_keyring))

    def _save_first(self, key: LeaseKey, tokens: PersistedTokens, chosen: KeyringPlace) -> None:
        store = self._keyring_of(chosen)
        self._places.write(key, chosen)
        try:
            store.save(key, tokens)
        except KeyringCannotKeep:
            pass
        except KeyringUnavailable:
            # Some can be read in a session in which they refuse to be written.
            if store.holds(key):
                raise
        else:
            return
        self._move_to_file(key, tokens, chosen)

    def _move_to_file(self, key: LeaseKey, tokens: PersistedTokens, place: KeyringPlace) -> None:
        self._files.save(key, tokens)
        self._places.write(key, msgspec.structs.replace(place, authority="file"))
        try:
            self._keyring_of(place).clear(key)
        except TokenStoreError:
            # The new tokens are safe, and the record remembers that old ones are left to delete.
            return
        self._places.remove(key)

    def _choose_keyring(self, key: LeaseKey) -> KeyringPlace | None:
        if not self._has_keyring():
            return None
        store = self._keyring(self._service)
        try:
            store.check_available()
            return KeyringPlace(str(key), "keyring", store.keyring_name(), self._service)
        except KeyringUnavailable:
            return None

    def _has_keyring(self) -> bool:
        store = self._keyring(self._service)
        try:
            return store.is_recommended() or self._backend is not None
        except KeyringUnavailable:
            return False

    def _store_at(self, place: KeyringPlace | None) -> TokenStore:
        return self._files if place is None or place.authority == "file" else self._keyring_of(place)

    def _keyring_of(self, place: KeyringPlace) -> KeyringTokenStore:
        store = self._keyring(place.service)
        found = store.keyring_name()
        if found != place.keyring:
            raise KeyringUnavailable(
                f"the tokens of {place.lease_key} are in {place.keyring}, and this session has {found}"
            )
        return store

    def _keyring(self, service: str) -> KeyringTokenStore:
        return KeyringTokenStore(
            service, self._backend, lock_root=self._files.root / _LOCKS, lock_timeout=self._lock_timeout
        )
