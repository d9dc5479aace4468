"""An audit file read as it is: nothing of it is made, mended or locked."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from sqlite_utils import Database

from ledger.one_line import one_line
from ledger.recorders.access import make_private_file
from projections.audit_checkpoint import made_by_this_version
from projections.audit_errors import AuditFileError, AuditFileHeld, audit_errors
from projections.audit_objects import alterations
from projections.audit_place import connect, may_write, open_read_only, real_place
from projections.audit_schema import APPLICATION_ID

__all__ = ["as_it_is", "copied", "refuse_foreign"]


def copied(path: Path, copy: Path) -> bool:
    """Copy a file that others write; whether what came of it is fit to be gone on from."""
    source = open_read_only(path)
    if source is None:
        return False
    make_private_file(copy)
    with contextlib.closing(source), contextlib.closing(connect(f"file:{quote(os.fsencode(copy))}")) as connection:
        try:
            source.backup(connection)
            return not alterations(connection) or not made_by_this_version(connection) or _is_foreign(connection)
        except (sqlite3.Error, UnicodeDecodeError):
            return False


@contextlib.contextmanager
def as_it_is(path: Path) -> Iterator[Database]:
    """Read a file that is there as it is, all of it from one state, without making, mending or locking anything.

    Raises:
        AuditFileHeld: It may not be read, or others hold it.
        AuditFileError: It is damaged, or something else.
    """
    real = real_place(path.absolute())
    with audit_errors(path):
        writable = may_write(real)
        connection = connect(f"file:{quote(os.fsencode(real))}?mode=rw") if writable else open_read_only(real)
        if connection is None:
            raise AuditFileHeld(f"audit file {one_line(path)}: it cannot be read; check its permissions")
        with contextlib.closing(connection):
            connection.execute("PRAGMA query_only = ON")
            db = Database(connection, recursive_triggers=False, execute_plugins=False)
            refuse_foreign(db, path)
            connection.execute("BEGIN")
            yield db


def refuse_foreign(db: Database, path: Path | None) -> None:
    if _is_foreign(db.conn):
        raise AuditFileError(f"{one_line(path)} holds something else than an audit log; name another file for it")


def _is_foreign(connection: sqlite3.Connection) -> bool:
    return connection.execute("PRAGMA application_id").fetchall() != [(APPLICATION_ID,)]
