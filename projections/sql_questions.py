"""Questions in SQL, and the rows that read best as one: refresh attempts and login sessions."""

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ledger.keys import LeaseKey
from projections.audit_file import AuditFile
from projections.audit_views import ATTEMPTS, SESSIONS

__all__ = ["SqlQuestions"]

_READING: Final = frozenset(
    {sqlite3.SQLITE_READ, sqlite3.SQLITE_SELECT, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)
_OF_THE_FILE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR})
"""What is wrong with the file, and not with the question."""

_READING_PRAGMAS: Final = frozenset({"table_info", "table_xinfo", "table_list", "index_list", "index_info"})


class SqlQuestions(ABC):
    """The part of an audit log that answers SQL."""

    @abstractmethod
    def _current(self) -> AuditFile:
        """The audit file, caught up."""

    def query(self, sql: str, params: Sequence[object] | Mapping[str, object] = ()) -> list[dict[str, Any]]:
        """Ask the audit file anything, read-only. Its tables and views carry comments: ``.schema`` in ``sqlite3``.

        Args:
            sql: One statement that only reads.
            params: Values for its ``?`` or ``:name`` places.

        Returns:
            One dictionary for each row.

        Raises:
            ValueError: The statement cannot be understood, or does more than read.
            AuditFileError: The audit file cannot be used.

        Raises further as ``history``.
        """
        with self._current().reading() as db:
            connection = db.conn
            connection.set_authorizer(_only_reading)
            try:
                cursor = connection.execute(sql, params)
                names = [column[0] for column in cursor.description or ()]
                return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
            except (sqlite3.OperationalError, sqlite3.DatabaseError, sqlite3.ProgrammingError) as error:
                if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF in _OF_THE_FILE:
                    raise
                raise ValueError(f"the question cannot be answered: {_words(error)}") from error
            finally:
                connection.set_authorizer(None)

    def attempts(self, key: LeaseKey | None = None) -> list[dict[str, Any]]:
        """One row per refresh attempt, oldest first: who, how long, what came of it; raises as ``query``.

        ``outcome`` is one of :class:`projections.attempts.AttemptOutcome`; ``ended`` of a failed one a value of
        :class:`ledger.AttemptEnd`, where its event says.
        """
        return self._of_view(ATTEMPTS, "started_position", key)

    def sessions(self, key: LeaseKey | None = None) -> list[dict[str, Any]]:
        """One row per login session, oldest first: from a login to what ended it; raises as ``query``."""
        return self._of_view(SESSIONS, "login_position", key)

    def _of_view(self, view: str, order: str, key: LeaseKey | None) -> list[dict[str, Any]]:
        where = "" if key is None else "WHERE key = :key"
        return self.query(f"SELECT * FROM {view} {where} ORDER BY {order}", {"key": str(key)})  # noqa: S608  # our names


def _only_reading(action: int, first: str | None, *_: object) -> int:
    if action in _READING or (action == sqlite3.SQLITE_PRAGMA and first in _READING_PRAGMAS):
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


def _words(error: sqlite3.Error) -> str:
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_AUTH:
        return "it does more than read; the audit file only answers, and the ledger only grows by its own events"
    return str(error)
