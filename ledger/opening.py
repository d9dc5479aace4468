"""From a URL to the recorder that answers to it."""

from ledger.addresses import split_address, without_password
from ledger.errors import LedgerStorageError
from ledger.recorders.access import Access
from ledger.recorders.base import LeaseRecorder
from ledger.recorders.filesystem import mounts, refuse_unsafe_file_system
from ledger.recorders.memory import MemoryLeaseRecorder
from ledger.recorders.sqlite import SQLiteLeaseRecorder, Synchronous
from ledger.recorders.sqlite_address import SQLiteAddress
from ledger.recorders.sqlite_opening import real_file

__all__ = ["missing_postgres", "open_recorder"]

_EXPECTED = (
    "expected sqlite:///path/to/auth.db, optionally with ?synchronous=normal, postgresql://user@host/database, "
    "or memory://"
)


def open_recorder(url: str, new_ledger_id: str) -> LeaseRecorder:
    """Open the ledger's log, creating it when it does not exist.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////absolute.db``, ``postgresql://user@host/database`` (its options
            are told in :mod:`ledger.recorders.postgres_address`) or ``memory://``. A file is made for its owner
            alone, with ``?share=group`` for the group of its folder too (0660); later processes need not say so, for
            all that is made beside it follows its mode. ``%``, ``?`` and ``#`` of a file name are written ``%25``,
            ``%3F`` and ``%23``.
        new_ledger_id: The id a newly created ledger gets.

    Raises:
        ValueError: The URL names no storage known here, or an unknown option.
        UnsafeFileSystem: A SQLite ledger would lie where it gets corrupted, and ``?unsafe_filesystem=allow`` was
            not given.
        NotALedger: What the URL names is a folder, a device or anything else that is no file.
        LedgerStorageError: The storage cannot be opened.
    """
    if url in ("sqlite://", "sqlite:///:memory:"):
        return MemoryLeaseRecorder(new_ledger_id)
    address = SQLiteAddress.parse(url)
    if address is not None:
        return _open_sqlite(address, new_ledger_id)
    scheme = split_address(url).scheme
    if scheme == "memory":
        return MemoryLeaseRecorder(new_ledger_id)
    if scheme in ("postgresql", "postgres"):
        return _open_postgres(url, new_ledger_id)
    raise ValueError(f"unknown ledger URL '{without_password(url)}': {_EXPECTED}")


def _open_sqlite(address: SQLiteAddress, new_ledger_id: str) -> LeaseRecorder:
    options = dict(address.options)
    synchronous = options.pop("synchronous", "full").lower()
    unsafe = options.pop("unsafe_filesystem", "refuse").lower()
    share = options.pop("share", "none").lower()
    if unsafe not in ("refuse", "allow"):
        raise ValueError(f"unsafe_filesystem is 'refuse' or 'allow', not {unsafe!r}")
    if share not in ("none", "group"):
        raise ValueError(f"share is 'none' or 'group', not {share!r}")
    if options:
        raise ValueError(f"unknown option {next(iter(options))!r} in ledger URL: {_EXPECTED}")
    if synchronous not in ("full", "normal"):
        raise ValueError(f"synchronous is 'full' or 'normal', not {synchronous!r}")
    path = real_file(address.path)
    if unsafe != "allow":
        refuse_unsafe_file_system(path, mounts())
    mode: Synchronous = "normal" if synchronous == "normal" else "full"
    access = Access(shared=share == "group")
    return SQLiteLeaseRecorder(path, new_ledger_id=new_ledger_id, synchronous=mode, access=access)


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
