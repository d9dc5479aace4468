"""Tokens in files: one for each key, that only their owner may read."""

import builtins
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import msgspec

from ledger.keys import LeaseKey
from ledger.one_line import one_line
from ledger.store_errors import UNUSABLE_TOKENS, TokenSerializationError
from ledger.stores.base import ANY, Expectation, TokenStore, refuse_unless_expected, sorted_keys
from ledger.stores.filenames import is_shortened, key_of_file_name, token_file_name
from ledger.stores.locking import LOCK_TIMEOUT_SECS, held_lock
from ledger.stores.private_files import (
    make_private_folder,
    names_in,
    os_errors_as_store_errors,
    read_private,
    refuse_foreign_folder,
    refuse_link,
    remove,
    replace_private,
    sync_folder,
    write_new_private,
)
from ledger.stores.stored_form import keys_named_in, tokens_with_key
from ledger.threads import uninterrupted
from ledger.tokens import PersistedTokens

__all__ = ["FileTokenStore"]

_LOCKS: Final = ".locks"
_TEMPORARY: Final = ".tmp-"
_CORRUPT: Final = ".corrupt-"


class FileTokenStore(TokenStore):
    """Keeps each key's tokens in one JSON file of a folder, such as ``dev,openai,work.json`` for
    ``dev:openai:work``.

    Files are 0600. The folder is created 0700; one that was there before keeps its mode, but is refused when
    others may write to it, or when it belongs to anybody but this user and root. How a key becomes a file name is
    told in ``ledger.stores.filenames``. Each file also names its key (``"lease_key"``), so that a copy can be
    traced.

    A write goes to a file of its own, is synced, renamed into place, and the folder is synced: a crash, a
    kill or a full disk leaves the old tokens or the new ones, never a part, and a write that returned
    survives power loss. ``load`` takes no lock, since a rename is atomic. ``save`` and ``clear`` hold the
    operating system's lock on a file in ``.locks`` while they compare and rename, so compare-and-swap is
    atomic between all threads and processes that use this folder; the lock files are empty and stay. What a
    killed ``save`` left behind (``.tmp-...``) is never loaded nor listed; the next ``save`` or ``clear`` of
    that key removes it, for while it holds the lock, nobody alive can be writing it.

    A token file may be a symbolic link, as Kubernetes mounts secrets (``file`` -> ``..data/file``, ``..data`` ->
    ``..2026_01_01``): it is followed for reading when every step stays inside the folder and belongs to this user or
    to root (:mod:`ledger.stores.links`). Saving never replaces a link; it is refused, and the file itself has to be put
    in its place first. Clearing removes the link and leaves alone what it leads to.

    The folder must be on a file system whose renames are atomic and whose locks reach every process that uses
    it. On Windows, where modes mean little, files have the access rights of their folder.

    Args:
        root: The folder. Relative to the working directory at this moment.
        lock_timeout: Seconds that ``save`` and ``clear`` wait for other writers of the same key.

    Raises:
        ValueError: No folder can have this name.
    """

    def __init__(self, root: str | os.PathLike[str], *, lock_timeout: float = LOCK_TIMEOUT_SECS) -> None:
        _refuse_impossible(os.fspath(root))
        self._root = str(Path(root).absolute())
        self._prefix = os.path.join(self._root, "")  # noqa: PTH118 - paths would cost more than reading
        self._lock_timeout = lock_timeout

    def __repr__(self) -> str:
        return f"FileTokenStore({self._root!r})"

    @property
    def backend_name(self) -> str:
        """``"file"``."""
        return "file"

    @property
    def location(self) -> str:
        """This folder on this host."""
        return f"file:{socket.gethostname()}:{os.path.realpath(self._root)}"

    @property
    def root(self) -> Path:
        """The folder that holds the files."""
        return Path(self._root)

    def path_of(self, key: LeaseKey) -> Path:
        """The file that holds the tokens of this key, whether or not it is there."""
        return Path(self._prefix + token_file_name(key))

    def load(self, key: LeaseKey) -> PersistedTokens | None:
        """The tokens stored under the key; ``None`` when there is no file for it.

        A file that others were given access to is made 0600 again, and a warning logged.

        Raises:
            TokenSerializationError: The file cannot be read as tokens. It stays as it is.
            TokenPermissionDenied: The file may not be read, is a symbolic link that is not followed, or is open to
                others and not ours to close; or the folder belongs to somebody else.
            TokenIOError: It is no regular file, or reading failed.
        """
        path = self._prefix + token_file_name(key)
        refuse_foreign_folder(self._root)
        return _parsed(self._read(path), path)

    def _read(self, path: str) -> bytes | None:
        return read_private(path, links_within=self._root)

    def check_savable(self, key: LeaseKey) -> None:
        """Make sure that no symbolic link is in the place of the key's file, and the folder is ours alone to write.

        Raises:
            TokenPermissionDenied: Saving would be refused.
            TokenIOError: The folder cannot be used.
        """
        make_private_folder(self._root)
        refuse_link(self._prefix + token_file_name(key))

    def holds(self, key: LeaseKey) -> bool:
        """Whether there is a file for the key, readable or not.

        Raises:
            TokenPermissionDenied: The folder may not be searched.
            TokenIOError: Looking failed.
        """
        path = self.path_of(key)
        with os_errors_as_store_errors("look for", str(path)):
            try:
                path.lstat()
            except FileNotFoundError:
                return False
            return True

    def save(self, key: LeaseKey, tokens: PersistedTokens, *, expect: Expectation = ANY) -> None:
        """Store the tokens under the key, durably and atomically.

        Bytes in its place that cannot be read as tokens are never lost to a save: with ``ANY`` they are first
        copied to ``.corrupt-TIME.ID-NAME`` beside it, 0600, for a person to look at, until the key is
        cleared; with any other expectation they refuse it. A symbolic link in its place is not replaced.

        Raises:
            TokensChanged: Something else than ``expect`` is stored, or something unreadable. Nothing was
                written.
            TokenSerializationError: These tokens cannot be written as JSON. Nothing was written.
            TokenStoreUnavailable: Another writer holds the key's lock for too long. Nothing was written.
            TokenPermissionDenied: A folder or file may not be used, others own the folder or may write to it, or a
                symbolic link is in the file's place. Nothing was written.
            TokenIOError: Writing failed; ``load`` tells whether the old tokens are in place or the new ones.
        """
        data = msgspec.json.format(tokens_with_key(key, tokens), indent=2) + b"\n"
        name = token_file_name(key)
        path = self._prefix + name
        make_private_folder(self._root)

        def replace() -> None:
            with self._sole_writer(name):
                refuse_link(path)
                stored = self._read(path)
                refuse_unless_expected(key, expect, lambda: _parsed(stored, path))
                for left_over in self._auxiliary(_TEMPORARY, name):
                    remove(left_over)
                if stored and not _is_readable(stored):
                    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
                    aside = f"{self._prefix}{_CORRUPT}{moment}.{secrets.token_hex(4)}-{name}"
                    with os_errors_as_store_errors("keep the unreadable bytes of this key in", aside):
                        write_new_private(aside, stored)
                replace_private(path, data, by_way_of=f"{self._prefix}{_TEMPORARY}{secrets.token_hex(8)}-{name}")

        uninterrupted(replace)

    def clear(self, key: LeaseKey, *, expect: Expectation = ANY) -> None:
        """Remove the key's file, what an interrupted save left of it, and the unreadable bytes kept aside for
        it.

        Of a symbolic link the link is removed, and what it points to is left alone.

        Raises:
            TokensChanged: Something else than ``expect`` is stored, or something unreadable. Nothing was
                removed.
            TokenStoreUnavailable: Another writer holds the key's lock for too long. Nothing was removed.
            TokenPermissionDenied: A folder or file may not be used.
            TokenIOError: Removing failed.
        """
        with os_errors_as_store_errors("use the folder", self._root):
            if not Path(self._root).exists():
                refuse_unless_expected(key, expect, lambda: None)
                return
        refuse_foreign_folder(self._root)
        name = token_file_name(key)
        path = self._prefix + name

        def destroy() -> None:
            with self._sole_writer(name):
                refuse_unless_expected(key, expect, lambda: self.load(key))
                for copy in (*self._auxiliary(_TEMPORARY, name), *self._auxiliary(_CORRUPT, name)):
                    remove(copy)
                remove(path)
                with os_errors_as_store_errors("sync", self._root):
                    sync_folder(self._root)

        uninterrupted(destroy)

    def list(self) -> builtins.list[LeaseKey]:
        """The keys that have a file, readable or not, sorted by realm, binding and profile.

        Files of other names are passed over. A shortened name tells its key by the ``lease_key`` in the file,
        so one whose beginning was destroyed, or that cannot be read, is passed over too.

        Raises:
            TokenPermissionDenied: The folder may not be read.
            TokenIOError: Reading failed.
        """
        found = (
            self._embedded_key(name) if is_shortened(name) else key_of_file_name(name) for name in names_in(self._root)
        )
        return sorted_keys(key for key in found if key is not None)

    def _embedded_key(self, name: str) -> LeaseKey | None:
        try:
            data = self._read(self._prefix + name)
        except UNUSABLE_TOKENS:
            return None
        return next((key for key in keys_named_in(data or b"") if token_file_name(key) == name), None)

    def _sole_writer(self, name: str) -> AbstractContextManager[None]:
        locks = self._prefix + _LOCKS
        make_private_folder(locks)
        return held_lock(f"{locks}{os.sep}{name}.lock", timeout=self._lock_timeout)

    def _auxiliary(self, prefix: str, name: str) -> Iterator[str]:
        """What belongs to one token file, named by the prefix, an id without ``-``, ``-``, and its name."""
        for other in names_in(self._root):
            if other.startswith(prefix) and other.removeprefix(prefix).partition("-")[2] == name:
                yield self._prefix + other


def _refuse_impossible(root: str) -> None:
    try:
        encoded = os.fsencode(root)
    except UnicodeEncodeError:
        raise ValueError(
            f"token folder {one_line(root)}: the name holds a character that no file name can hold"
        ) from None
    if b"\0" in encoded:
        raise ValueError(f"token folder {one_line(root)}: a file name holds no NUL")


def _is_readable(data: bytes) -> bool:
    try:
        PersistedTokens.from_json(data)
    except TokenSerializationError:
        return False
    return True


def _parsed(data: bytes | None, path: str) -> PersistedTokens | None:
    try:
        return None if data is None else PersistedTokens.from_json(data)
    except TokenSerializationError as error:
        raise TokenSerializationError(f"{one_line(path)}: {error.detail}") from None
