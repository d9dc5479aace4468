"""Questions in SQL, and the rows that read best as one: refresh attempts and login sessions."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ledger.keys import LeaseKey
from projections.audit_file import AuditFile
from projections.audit_views import ATTEMPTS, SESSIONS
from projections.sql_limits import Answer, asked

__all__ = ["SqlQuestions"]


class SqlQuestions(ABC):
    """The part of an audit log that answers SQL."""

    @abstractmethod
    def _current(self) -> AuditFile:
        """The audit file, caught up."""

    def query(
        self,
        sql: str,
        params: Sequence[object] | Mapping[str, object] = (),
        *,
        timeout_s: float | None = None,
    ) -> list[dict[str, Any]]:
        """Ask the audit file anything, read-only. Its tables and views carry comments: ``.schema`` in ``sqlite3``.

        Args:
            sql: One statement that only reads.
            params: Values for its ``?`` or ``:name`` places.
            timeout_s: Seconds of computing allowed; as many as it takes by default. An interrupt of the main thread
                ends it at once.

        Returns:
            One dictionary for each row. Of columns of one name, the second is called ``name_2``, and so on.

        Raises:
            QuestionRefused: The statement cannot be understood, or does more than read; a ``ValueError`` too.
            QuestionTooLong: It took longer than ``timeout_s``.
            AuditFileError: The audit file cannot be used.

        Raises further as ``history``.
        """
        with self.asking(sql, params, timeout_s=timeout_s) as answer:
            return [dict(zip(answer.names, row, strict=True)) for row in answer.rows]

    @contextlib.contextmanager
    def asking(
        self,
        sql: str,
        params: Sequence[object] | Mapping[str, object] = (),
        *,
        timeout_s: float | None = None,
    ) -> Iterator[Answer]:
        """The same, row by row within the block, for an answer of any length; raises as :meth:`query`."""
        with self._current().reading() as db, asked(db.conn, sql, params, timeout_s) as answer:
            yield answer

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
