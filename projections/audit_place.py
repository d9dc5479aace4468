"""Where an audit file lies, and who may do what with it there."""

import errno
import os
import sqlite3
import stat
from pathlib import Path
from typing import Final
from urllib.parse import quote

from ledger.one_line import one_line
from ledger.recorders.access import OWNER_ALONE, Access, access_like
from ledger.recorders.base import LeaseRecorder
from projections.audit_errors import AuditFileDamaged, AuditFileError

__all__ = ["BUSY_TIMEOUT_S", "access_beside", "beside", "connect", "may_write", "open_read_only", "real_place"]

BUSY_TIMEOUT_S: Final = 10
"""How long others may hold a transaction before a question goes on without them."""


LEAST_PAGE_BYTES: Final = 512
"""The smallest page that SQLite knows."""


def beside(recorder: LeaseRecorder) -> Path | None:
    """The audit file of a ledger: ``auth.audit.db`` for ``auth.db``; ``None`` for a ledger that lies in no folder."""
    sidecar = recorder.sidecar("audit")
    if sidecar is None:
        return None
    ledger = sidecar.with_name(sidecar.name.removesuffix(".audit"))
    return ledger.with_name(f"{ledger.stem}.audit{ledger.suffix}")


def access_beside(recorder: LeaseRecorder) -> Access:
    """Who may use what is made beside a ledger: whoever may use the ledger's own file."""
    sidecar = recorder.sidecar("audit")
    if sidecar is None:
        return OWNER_ALONE
    try:
        return access_like(sidecar.with_name(sidecar.name.removesuffix(".audit")))
    except OSError:
        return OWNER_ALONE


def real_place(path: Path) -> Path:
    """The file that a path leads to, through all links; it may not be there yet. Opens nothing.

    Raises:
        AuditFileDamaged: A file is there that is too short to be a database.
        AuditFileError: No file can be there.
    """
    real = Path(os.path.realpath(path))
    try:
        found = real.stat()
    except FileNotFoundError:
        if path.is_symlink():
            raise AuditFileError(
                f"audit file {one_line(path)}: the symbolic link leads to {one_line(real)}, where there is nothing; "
                "remove it"
            ) from None
        if not real.parent.is_dir():
            raise AuditFileError(
                f"audit file {one_line(path)}: its folder does not exist; make it or name another"
            ) from None
        return real
    except OSError as error:
        reason = "symbolic links lead round in a circle" if error.errno == errno.ELOOP else error.strerror
        raise AuditFileError(f"audit file {one_line(path)}: cannot be opened: {reason}") from error
    if not stat.S_ISREG(found.st_mode):
        raise AuditFileError(
            f"audit file {one_line(path)}: something that is no file lies there; name another place for it"
        )
    if 0 < found.st_size < LEAST_PAGE_BYTES:
        # SQLite would take it for an empty database, and write over it.
        raise AuditFileDamaged(f"audit file {one_line(path)}: it is no SQLite database; move it away and ask again")
    return real


def may_write(path: Path) -> bool:
    """Whether this process may change the file and make others beside it."""
    return os.access(path.parent, os.W_OK | os.X_OK) and (not path.exists() or os.access(path, os.W_OK))


def connect(uri: str) -> sqlite3.Connection:
    """A connection that any thread may use."""
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def open_read_only(path: Path) -> sqlite3.Connection | None:
    """A connection that reads the file as it is; ``None`` when there is no way to, and it has to be made anew."""
    uri = f"file:{quote(os.fsencode(path))}?mode=ro"
    # Without its shared memory file SQLite reads a write-ahead log only as "immutable", which is safe while nobody
    # has the file open; then there is no write-ahead log either.
    nobody_has_it_open = not Path(f"{path}-wal").exists()
    for attempt in (uri, f"{uri}&immutable=1") if nobody_has_it_open else (uri,):
        try:
            connection = connect(attempt)
        except sqlite3.Error:
            continue
        try:
            connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
        except sqlite3.Error:
            connection.close()
        else:
            return connection
    return None
