"""Keyed fingerprints of refresh tokens: equal secrets look equal, and nothing else can be learnt from them.

Ledgers that share the key can be compared, which shows one refresh token being spent from two of them.
"""

import contextlib
import hashlib
import hmac
import os
import secrets
import stat
import tempfile
from pathlib import Path
from typing import Final

from ledger.errors import LedgerStorageError
from ledger.one_line import one_line
from ledger.recorders.access import OWNER_ALONE, Access, give_access

__all__ = ["KEY_ENV", "KEY_FILE_ENV", "Fingerprinter", "load_fingerprint_key"]

KEY_ENV: Final = "LEASE_LEDGER_FINGERPRINT_KEY"
"""Environment variable that holds the key itself."""

KEY_FILE_ENV: Final = "LEASE_LEDGER_FINGERPRINT_KEY_FILE"
"""Environment variable that names a file holding the key."""

_LENGTH_BYTES: Final = 16
_SHORTEST_KEY_BYTES: Final = 16
_LONGEST_FILE_BYTES: Final = 64 * 1024


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


def load_fingerprint_key(beside: Path | None, access: Access = OWNER_ALONE) -> bytes:
    """Find the key: in the environment, in a file it names, else in ``beside``, which is made on first use.

    Args:
        beside: Key file beside the ledger; ``None`` for a ledger without a folder, which gets a key of its own that
            lasts as long as the process.
        access: Whom the key file is for, when it is made.

    Raises:
        LedgerStorageError: The key file cannot be read or made, or what it or the environment holds is no key.
    """
    given = os.environ.get(KEY_ENV)
    if given:
        return _checked(given.encode("utf-8", "surrogateescape"), f"the environment variable {KEY_ENV}")
    named = os.environ.get(KEY_FILE_ENV)
    where = Path(named) if named else beside
    if where is None:
        return secrets.token_bytes(32)
    try:
        if not named:
            _make(where, access)
        key = _read(where)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise LedgerStorageError(
            f"fingerprint key {one_line(where)}: {reason}; make it readable or set {KEY_ENV}"
        ) from error
    return _checked(key, f"fingerprint key {one_line(where)}")


def _checked(key: bytes, where: str) -> bytes:
    if len(key) < _SHORTEST_KEY_BYTES:
        raise LedgerStorageError(
            f"{where}: a fingerprint key has at least {_SHORTEST_KEY_BYTES} bytes, this one {len(key)}; "
            "give the whole key, or a new one with which nothing recorded before can be compared"
        )
    return key


def _read(path: Path) -> bytes:
    # Neither waiting for a pipe nor reading a device that never ends.
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        # Before it is made a file of Python's, which it refuses for a folder, and then leaves open.
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ValueError("it is no regular file")
        with open(fd, "rb", closefd=False) as file:
            data = file.read(_LONGEST_FILE_BYTES + 1)
    finally:
        os.close(fd)
    if len(data) > _LONGEST_FILE_BYTES:
        raise ValueError(f"it is longer than {_LONGEST_FILE_BYTES} bytes, which no key is")
    return data.strip()


def _make(path: Path, access: Access) -> None:
    if path.exists():
        return
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-") as fresh:
        give_access(fresh.fileno(), access)
        fresh.write(secrets.token_hex(32).encode())
        fresh.flush()
        os.fsync(fresh.fileno())
        # A link appears whole or not at all, and the first process wins.
        with contextlib.suppress(FileExistsError):
            os.link(fresh.name, path)
