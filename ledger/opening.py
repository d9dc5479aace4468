"""From a URL to the recorder that answers to it."""

from pathlib import Path
from urllib.parse import parse_qsl, unquote

from ledger.addresses import split_address, without_password
from ledger.errors import LedgerStorageError
from ledger.recorders.base import LeaseRecorder
from ledger.recorders.filesystem import mounts, refuse_unsafe_file_system
from ledger.recorders.memory import MemoryLeaseRecorder
from ledger.recorders.sqlite import SQLiteLeaseRecorder, Synchronous

__all__ = ["missing_postgres", "open_recorder"]

_EXPECTED = (
    "expected sqlite:///path/to/auth.db, optionally with ?synchronous=normal, postgresql://user@host/database, "
    "or memory://"
)


def open_recorder(url: str, new_ledger_id: str) -> LeaseRecorder:
    """Open the ledger's log, creating it when it does not exist.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////absolute.db``, ``postgresql://user@host/database`` (its options
            are told in :mod:`ledger.recorders.postgres_address`) or ``memory://``.
        new_ledger_id: The id a newly created ledger gets.

    Raises:
        ValueError: The URL names no storage known here, or an unknown option.
        UnsafeFileSystem: A SQLite ledger would lie where it gets corrupted, and ``?unsafe_filesystem=allow`` was
            not given.
        LedgerStorageError: The storage cannot be opened.
    """
    parts = split_address(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parts.scheme == "memory" or url in ("sqlite://", "sqlite:///:memory:"):
        return MemoryLeaseRecorder(new_ledger_id)
    if parts.scheme in ("postgresql", "postgres"):
        return _open_postgres(url, new_ledger_id)
    path = unquote(parts.path)[1:]
    if parts.scheme != "sqlite" or parts.netloc or not path:
        raise ValueError(f"unknown ledger URL {without_password(url)!r}: {_EXPECTED}")
    synchronous = options.pop("synchronous", "full").lower()
    unsafe = options.pop("unsafe_filesystem", "refuse").lower()
    if unsafe not in ("refuse", "allow"):
        raise ValueError(f"unsafe_filesystem is 'refuse' or 'allow', not {unsafe!r}")
    if options:
        raise ValueError(f"unknown option {next(iter(options))!r} in ledger URL: {_EXPECTED}")
    if synchronous not in ("full", "normal"):
        raise ValueError(f"synchronous is 'full' or 'normal', not {synchronous!r}")
    if unsafe != "allow":
        refuse_unsafe_file_system(Path(path).absolute(), mounts())
    mode: Synchronous = "normal" if synchronous == "normal" else "full"
    return SQLiteLeaseRecorder(Path(path), new_ledger_id=new_ledger_id, synchronous=mode)


def _open_postgres(url: str, new_ledger_id: str) -> LeaseRecorder:
    try:
        from ledger.recorders.postgres import PostgresLeaseRecorder  # noqa: PLC0415  # an extra brings its driver
        from ledger.recorders.postgres_address import PostgresAddress  # noqa: PLC0415
    except ImportError as error:
        raise missing_postgres() from error
    return PostgresLeaseRecorder(PostgresAddress.parse(url), new_ledger_id=new_ledger_id)


def missing_postgres() -> LedgerStorageError:
    """What to raise where the driver for PostgreSQL is not installed."""
    return LedgerStorageError(
        "a ledger in PostgreSQL needs a driver that is not installed: pip install 'lease-ledger[postgres]'"
    )
