"""Sealing tokens before they leave this machine: AES-256-GCM, with several keys at a time so that they can change.

A sealed text names the key it was made with and is bound to what it belongs to, so that it can neither be read nor
passed off as another's by whoever keeps it.

To change keys while everybody works: add the new key after the old one on every machine, then move it to the first
place on every machine, then re-encrypt (``PostgresTokenStore.rotate``), then take the old key out.
"""

import base64
import binascii
import hashlib
import logging
import os
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ledger.one_line import one_line
from ledger.store_errors import TokenPermissionDenied, TokenSerializationError, TokenStoreUnavailable

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["KEY_ENV", "KEY_FILE_ENV", "TokenCipher", "new_token_key"]

KEY_ENV: Final = "LEASE_LEDGER_TOKEN_KEY"
"""Environment variable that holds the keys themselves, separated by commas."""

KEY_FILE_ENV: Final = "LEASE_LEDGER_TOKEN_KEY_FILE"
"""Environment variable that names a file holding the keys, one a line."""

_KEY_BYTES: Final = 32
_FORM: Final = b"\x01"
_ID_BYTES: Final = 8
_NONCE_BYTES: Final = 12

_log = logging.getLogger(__name__)


def new_token_key() -> str:
    """A new random key, as the line of a key file."""
    return base64.urlsafe_b64encode(secrets.token_bytes(_KEY_BYTES)).decode()


class TokenCipher:
    """Seals with the first of its keys and opens with any of them. Safe to share between threads.

    Args:
        keys: The keys themselves, each as :func:`new_token_key` makes them; or the path of a file with one a line,
            where empty lines and those that begin with ``#`` do not count. A file is read again when it changes, so
            that running processes follow. ``None``: from the environment, ``LEASE_LEDGER_TOKEN_KEY`` or else the file
            that ``LEASE_LEDGER_TOKEN_KEY_FILE`` names.

    Raises:
        ValueError: A key is none, or there is none at all. The text never quotes a key.
        TokenPermissionDenied: The key file may not be read.
        TokenStoreUnavailable: The key file is not there, or the package ``cryptography`` is not installed.
    """

    def __init__(self, keys: Sequence[str] | os.PathLike[str] | None = None) -> None:
        self._path: Path | None = None
        self._read_at: tuple[int, int, int] | None = None
        if keys is None:
            keys = _from_environment()
        if isinstance(keys, os.PathLike):
            self._path = Path(keys)
            self._follow_file()
        else:
            self._use([keys] if isinstance(keys, str) else keys)

    def __repr__(self) -> str:
        return f"<TokenCipher with {len(self._ciphers)} keys>"

    def seal(self, data: bytes, belongs_to: bytes) -> bytes:
        """Encrypt with the first key. Opening takes the same ``belongs_to``.

        Raises:
            TokenPermissionDenied, TokenStoreUnavailable: A changed key file could not be read.
        """
        self._follow_file()
        key_id, cipher = next(iter(self._ciphers.items()))
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _FORM + key_id + nonce + cipher.encrypt(nonce, data, belongs_to)

    def open(self, sealed: bytes, belongs_to: bytes) -> bytes:
        """Decrypt with the key that sealed it.

        Raises:
            TokenSerializationError: That key is not here, or this is not what was sealed for ``belongs_to``.
            TokenPermissionDenied, TokenStoreUnavailable: A changed key file could not be read.
        """
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415  # an extra brings it

        self._follow_file()
        body = sealed[1 + _ID_BYTES :]
        if not sealed.startswith(_FORM) or len(body) < _NONCE_BYTES:
            raise TokenSerializationError("the stored bytes are not in the sealed form")
        cipher = self._ciphers.get(self._key_id(sealed))
        if cipher is None:
            raise TokenSerializationError("the stored tokens are sealed with a key that is not among the token keys")
        try:
            return cipher.decrypt(body[:_NONCE_BYTES], body[_NONCE_BYTES:], belongs_to)
        except InvalidTag:
            raise TokenSerializationError("the stored tokens were altered, or moved from another key's place") from None

    def is_latest(self, sealed: bytes) -> bool:
        """Whether the first key sealed it, so that taking out the others would not lose it."""
        self._follow_file()
        return self._key_id(sealed) == next(iter(self._ciphers))

    def _key_id(self, sealed: bytes) -> bytes:
        return sealed[1 : 1 + _ID_BYTES]

    def _use(self, keys: Sequence[str]) -> None:
        ciphers = dict(_cipher(key) for key in keys)
        if not ciphers:
            raise ValueError(
                f"there is no token key; make one with new_token_key() and set {KEY_ENV} or {KEY_FILE_ENV}"
            )
        self._ciphers = ciphers

    def _follow_file(self) -> None:
        path = self._path
        if path is None:
            return
        try:
            found = path.stat()
            seen = (found.st_mtime_ns, found.st_size, found.st_ino)
            if seen == self._read_at:
                return
            lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
        except PermissionError:
            raise TokenPermissionDenied(f"token key file {one_line(path)} may not be read") from None
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or "not text"
            raise TokenStoreUnavailable(f"token key file {one_line(path)}: {reason}") from None
        if os.name == "posix" and stat.S_IMODE(found.st_mode) & 0o007:
            _log.warning("token key file %s is open to everybody; make it 0600", path)
        self._use([line for line in lines if line and not line.startswith("#")])
        self._read_at = seen


def _from_environment() -> Sequence[str] | Path:
    given = os.environ.get(KEY_ENV)
    if given:
        return [key.strip() for key in given.split(",") if key.strip()]
    named = os.environ.get(KEY_FILE_ENV)
    return Path(named) if named else ()


def _cipher(key: str) -> tuple[bytes, "AESGCM"]:
    """A key's id, which says nothing about the key, and its cipher."""
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415  # an extra brings it
    except ImportError:
        raise TokenStoreUnavailable(
            "encrypted tokens need a package that is not installed: pip install 'lease-ledger[postgres]'"
        ) from None
    try:
        raw = base64.b64decode(key.encode("ascii"), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != _KEY_BYTES:
        raise ValueError(f"a token key is {_KEY_BYTES} random bytes in URL-safe base64; make one with new_token_key()")
    return hashlib.sha256(b"lease-ledger token key id" + raw).digest()[:_ID_BYTES], AESGCM(raw)
