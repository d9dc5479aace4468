"""Keyed fingerprints of refresh tokens: equal secrets look equal, and nothing else can be learnt from them.

Ledgers that share the key can be compared, which shows one refresh token being spent from two of them.
"""

import contextlib
import hashlib
import hmac
import os
import secrets
import tempfile
from pathlib import Path
from typing import Final

from ledger.errors import LedgerStorageError

__all__ = ["KEY_ENV", "KEY_FILE_ENV", "Fingerprinter", "load_fingerprint_key"]

KEY_ENV: Final = "LEASE_LEDGER_FINGERPRINT_KEY"
"""Environment variable that holds the key itself."""

KEY_FILE_ENV: Final = "LEASE_LEDGER_FINGERPRINT_KEY_FILE"
"""Environment variable that names a file holding the key."""

_LENGTH_BYTES: Final = 16
_SHORTEST_KEY_BYTES: Final = 16


class Fingerprinter:
    """Makes fingerprints with one key.

    Args:
        key: At least 16 bytes.

    Raises:
        ValueError: The key is shorter.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) < _SHORTEST_KEY_BYTES:
            raise ValueError(f"a fingerprint key has at least {_SHORTEST_KEY_BYTES} bytes, this one {len(key)}")
        self._key = key

    def fingerprint(self, secret: str) -> str:
        """HMAC-SHA256 of the secret, shortened to 128 bits, in hex."""
        return hmac.digest(self._key, secret.encode("utf-8", "surrogatepass"), hashlib.sha256)[:_LENGTH_BYTES].hex()


def load_fingerprint_key(beside: Path | None) -> bytes:
    """Find the key: in the environment, in a file it names, else in ``beside``, which is made on first use.

    Args:
        beside: Key file beside the ledger, mode 0600; ``None`` for a ledger without a folder, which gets a key of
            its own that lasts as long as the process.

    Raises:
        LedgerStorageError: The key file cannot be read or made.
    """
    given = os.environ.get(KEY_ENV)
    if given:
        return given.encode()
    named = os.environ.get(KEY_FILE_ENV)
    try:
        if named:
            return Path(named).read_bytes().strip()
        if beside is None:
            return secrets.token_bytes(32)
        with contextlib.suppress(FileNotFoundError):
            return beside.read_bytes().strip()
        return _create(beside)
    except OSError as error:
        where = named or beside
        raise LedgerStorageError(
            f"fingerprint key {where}: {error.strerror}; make it readable or set {KEY_ENV}"
        ) from error


def _create(path: Path) -> bytes:
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-") as fresh:
        fresh.write(secrets.token_hex(32).encode())
        fresh.flush()
        os.fsync(fresh.fileno())
        # A link appears whole or not at all, and the first process wins.
        with contextlib.suppress(FileExistsError):
            os.link(fresh.name, path)
    return path.read_bytes().strip()
