"""How far a lease's time had come at each version: the running maximum of its events' times."""

from collections.abc import Sequence
from typing import Final, Protocol

from sqlite_utils import Database

from ledger.keys import LeaseKey
from projections.audit_schema import EVENTS
from projections.wide_integers import from_column, to_column

__all__ = ["AuditTimes", "Times"]

_SEEK: Final = f"""
    SELECT version FROM {EVENTS} WHERE key = ? AND running_at_ms <= ?
    ORDER BY running_at_ms DESC, position DESC LIMIT 1"""  # noqa: S608  # constants only

_RUNNING: Final = f"SELECT running_at_ms FROM {EVENTS} WHERE key = ? AND version = ?"  # noqa: S608

_DATED_BEFORE: Final = f"""
    SELECT version FROM {EVENTS} INDEXED BY events_set_back
    WHERE key = ? AND version > ? AND at_ms < running_at_ms AND at_ms <= ?
    ORDER BY version LIMIT ?"""  # noqa: S608


class Times(Protocol):
    """Answers about the running maximum of time of single leases."""

    def version_at(self, key: LeaseKey, at_ms: int) -> int:
        """The last version whose running maximum is at most ``at_ms``; 0 for none."""
        ...

    def running_at_ms(self, key: LeaseKey, version: int) -> int | None:
        """The running maximum at a version; ``None`` for a version that is not there."""
        ...

    def dated_before(self, key: LeaseKey, version: int, at_ms: int, most: int) -> Sequence[int]:
        """Versions after ``version`` dated at or before ``at_ms``, oldest first, at most so many."""
        ...


class AuditTimes:
    """Times by index, from a caught-up audit file: the same effort for streams of any length.

    Args:
        db: The audit file, in a read transaction.
    """

    def __init__(self, db: Database) -> None:
        self._db = db

    def version_at(self, key: LeaseKey, at_ms: int) -> int:
        """The last version whose running maximum is at most ``at_ms``; 0 for none."""
        found = self._db.execute(_SEEK, (str(key), to_column(at_ms))).fetchone()
        return 0 if found is None else int(found[0])

    def running_at_ms(self, key: LeaseKey, version: int) -> int | None:
        """The running maximum at a version; ``None`` for a version that is not there."""
        found = self._db.execute(_RUNNING, (str(key), version)).fetchone()
        return None if found is None else from_column(found[0])

    def dated_before(self, key: LeaseKey, version: int, at_ms: int, most: int) -> Sequence[int]:
        """Versions after ``version`` dated at or before ``at_ms``, oldest first, at most so many."""
        found = self._db.execute(_DATED_BEFORE, (str(key), version, to_column(at_ms), most)).fetchall()
        return [version for (version,) in found]
