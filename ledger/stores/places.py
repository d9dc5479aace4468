"""Which keys of a folder have their tokens in a keyring instead: one small record for each."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Final, Literal

import msgspec

from ledger.keys import LeaseKey
from ledger.one_line import one_line
from ledger.store_errors import TokenSerializationError
from ledger.stores.filenames import token_file_name
from ledger.stores.locking import held_lock
from ledger.stores.private_files import (
    make_private_folder,
    names_in,
    read_private,
    remove,
    replace_private,
)

__all__ = ["KeyringPlace", "Places"]

_TEMPORARY: Final = ".tmp-"


class KeyringPlace(msgspec.Struct, frozen=True):
    """A key's record: as long as there is one, a keyring may hold tokens of that key.

    Attributes:
        lease_key: The key as text.
        authority: Where its tokens are. ``"file"`` when they moved out of the keyring, which may still hold
            old ones.
        keyring: The keyring, by its Python class.
        service: The service under which that keyring files them.
    """

    lease_key: str
    authority: Literal["keyring", "file"]
    keyring: str
    service: str


_DECODER: Final = msgspec.json.Decoder(KeyringPlace)


class Places:
    """The records of one folder, 0600 in a 0700 folder, and a lock for each key to change its record under.

    Args:
        folder: Absolute path of the folder that holds the records and nothing else.
        lock_timeout: Seconds to wait for a key's lock.
    """

    def __init__(self, folder: str, *, lock_timeout: float) -> None:
        self._folder = folder
        self._lock_timeout = lock_timeout

    def read(self, key: LeaseKey) -> KeyringPlace | None:
        """The record of a key; ``None`` when a keyring never held its tokens, or was rid of them.

        Raises:
            TokenSerializationError: The record is damaged, so nobody can say where the tokens are.
            TokenPermissionDenied, TokenIOError: It could not be read.
        """
        path = self._path(token_file_name(key))
        data = read_private(path)
        return None if data is None else _parsed(data, path)

    def write(self, key: LeaseKey, place: KeyringPlace) -> None:
        """Write the record of a key, durably and atomically, under its lock.

        Raises:
            TokenPermissionDenied, TokenIOError: It could not be written; the old record is in place.
        """
        name = token_file_name(key)
        # Whoever left one was killed: nobody else writes it while this thread holds the lock.
        temporary = self._path(f"{_TEMPORARY}{name}")
        remove(temporary)
        data = msgspec.json.format(msgspec.json.encode(place), indent=2) + b"\n"
        replace_private(self._path(name), data, by_way_of=temporary)

    def remove(self, key: LeaseKey) -> None:
        """Remove the record of a key, under its lock.

        Raises:
            TokenPermissionDenied, TokenIOError: It could not be removed.
        """
        remove(self._path(token_file_name(key)))

    def all(self) -> Iterator[tuple[LeaseKey, KeyringPlace]]:
        """Every record and the key it is about.

        Raises:
            TokenSerializationError: A record is damaged.
            TokenPermissionDenied, TokenIOError: One could not be read.
        """
        for name in names_in(self._folder):
            if name.startswith("."):
                continue
            data = read_private(self._path(name))
            if data is not None:
                place = _parsed(data, self._path(name))
                yield LeaseKey.parse(place.lease_key), place

    def sole_changer(self, key: LeaseKey) -> AbstractContextManager[None]:
        """Hold the lock under which this key's tokens may change and move. Creates the folders.

        Raises:
            TokenStoreUnavailable: Another holds it for too long.
            TokenPermissionDenied, TokenIOError: The folder or the lock cannot be used.
        """
        locks = self._path(".locks")
        make_private_folder(self._folder)
        make_private_folder(locks)
        return held_lock(f"{locks}{os.sep}{token_file_name(key)}.lock", timeout=self._lock_timeout)

    def _path(self, name: str) -> str:
        return f"{self._folder}{os.sep}{name}"


def _parsed(data: bytes, path: str) -> KeyringPlace:
    try:
        return _DECODER.decode(data)
    except msgspec.DecodeError as error:
        raise TokenSerializationError(f"{one_line(path)} does not say where the tokens are: {error}") from None
