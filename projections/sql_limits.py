"""Running one question in SQL that only reads, within limits: it can be interrupted, ends in time, and stays small.

SQLite computes in C, where no signal handler runs, so it calls back now and then: there an interrupt of the main thread
and the end of the time allowed are noticed.
"""

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from ledger.errors import LeaseLedgerError

__all__ = ["Answer", "QuestionRefused", "QuestionTooLong", "asked", "kept_apart"]

_STEPS_BETWEEN_LOOKS: Final = 10_000
_LIMITS: Final = {sqlite3.SQLITE_LIMIT_LENGTH: 4 * 1024 * 1024, sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1_000}
"""The longest value and the longest pattern: no one step of SQLite's, between two looks, takes longer than they let."""

_READING: Final = frozenset({sqlite3.SQLITE_READ, sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE})
_READING_PRAGMAS: Final = frozenset({"table_info", "table_xinfo", "table_list", "index_list", "index_info"})
_DENIED_FUNCTIONS: Final = frozenset({"load_extension", "fts3_tokenizer"})

_OF_THE_FILE: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_READONLY,
    }
)
"""What is wrong with the file, and not with the question."""


class QuestionRefused(LeaseLedgerError, ValueError):
    """A question cannot be understood, does more than read, or asks for a value longer than is kept in memory."""


class QuestionTooLong(LeaseLedgerError, TimeoutError):
    """A question was not answered in the time it was given.

    Attributes:
        timeout_s: That time, in seconds.
    """

    def __init__(self, timeout_s: float) -> None:
        super().__init__(timeout_s)
        self.timeout_s = timeout_s

    def __str__(self) -> str:
        return f"the question was not answered within {self.timeout_s:g} s; ask for less, or give it longer (--timeout)"


class Answer(NamedTuple):
    """What a question gives.

    Attributes:
        names: A name for each column, no two the same.
        rows: The rows, read one by one as they are asked for.
    """

    names: tuple[str, ...]
    rows: Iterator[tuple[Any, ...]]


def kept_apart(names: Sequence[str]) -> tuple[str, ...]:
    """The names of columns, a second ``key`` as ``key_2``, so that a row of two equal names loses neither value."""
    given, found = set(names), dict[str, None]()
    for name in names:
        apart, number = name, 1
        while apart in found or (number > 1 and apart in given):
            number += 1
            apart = f"{name}_{number}"
        found[apart] = None
    return tuple(found)


@contextlib.contextmanager
def asked(
    connection: sqlite3.Connection,
    sql: str,
    params: Sequence[object] | Mapping[str, object],
    timeout_s: float | None,
) -> Iterator[Answer]:
    """Ask one question; its answer is good within the block. The caller has the connection for itself.

    Args:
        connection: Where to ask.
        sql: One statement that only reads.
        params: Values for its places.
        timeout_s: Seconds of computing allowed, for the whole answer; ``None`` for any. Time that the caller spends
            between two rows does not count.

    Raises:
        QuestionRefused: See there.
        QuestionTooLong: The time was over.
        KeyboardInterrupt: The main thread was interrupted while SQLite computed.
        sqlite3.Error: The file cannot be used.
    """
    watch = _Watch(timeout_s)
    with _query_only(connection), contextlib.ExitStack() as undoing:
        for limit, most in _LIMITS.items():
            undoing.callback(connection.setlimit, limit, connection.setlimit(limit, most))
        undoing.callback(connection.set_authorizer, None)
        connection.set_authorizer(_only_reading)
        undoing.callback(connection.set_progress_handler, None, 0)
        connection.set_progress_handler(watch, _STEPS_BETWEEN_LOOKS)
        cursor = undoing.enter_context(contextlib.closing(connection.cursor()))
        watch.computing(lambda: cursor.execute(sql, params))
        if cursor.description is None:
            raise QuestionRefused("the question cannot be answered: it asks nothing")
        names = kept_apart([column[0] for column in cursor.description])
        yield Answer(names, iter(lambda: watch.computing(cursor.fetchone), None))


class _Watch:
    """Looks at the clock while SQLite computes, and remembers what interrupted it."""

    def __init__(self, timeout_s: float | None) -> None:
        self._timeout_s = timeout_s
        self._left_s = float("inf") if timeout_s is None else timeout_s
        self._ends_at = 0.0
        self._interrupt: BaseException | None = None

    def __call__(self) -> bool:
        # Whatever is raised here SQLite's driver turns into an error of its own.
        try:
            return time.monotonic() > self._ends_at
        except BaseException as interrupt:
            self._interrupt = interrupt
            return True

    def computing(self, step: Callable[[], Any]) -> Any:
        """Let SQLite compute, and say why it stopped if it did."""
        began = time.monotonic()
        self._ends_at = began + self._left_s
        try:
            return step()
        except (sqlite3.Error, ValueError, OverflowError, MemoryError) as error:
            code = getattr(error, "sqlite_errorcode", None)
            if code == sqlite3.SQLITE_INTERRUPT:
                raise self._why_interrupted() from None
            if isinstance(code, int) and code & 0xFF in _OF_THE_FILE:
                raise
            raise QuestionRefused(f"the question cannot be answered: {_words(error)}") from error
        finally:
            self._left_s -= time.monotonic() - began

    def _why_interrupted(self) -> BaseException:
        if self._interrupt is not None:
            return self._interrupt
        if self._timeout_s is not None and time.monotonic() > self._ends_at:
            return QuestionTooLong(self._timeout_s)
        # Raised by a signal handler before the look had begun.
        return KeyboardInterrupt()


@contextlib.contextmanager
def _query_only(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("PRAGMA query_only = ON")
    try:
        yield
    finally:
        # Where an interrupt left the limits in force, the connection is given up; the interrupt is what comes out.
        with contextlib.suppress(sqlite3.Error):
            connection.execute("PRAGMA query_only = OFF")


def _only_reading(action: int, first: str | None, second: str | None, *_: object) -> int:
    if action == sqlite3.SQLITE_FUNCTION:
        allowed = second not in _DENIED_FUNCTIONS
    else:
        allowed = action in _READING or (action == sqlite3.SQLITE_PRAGMA and first in _READING_PRAGMAS)
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _words(error: Exception) -> str:
    if isinstance(error, UnicodeError):
        return "the question or one of its values is no Unicode text"
    if isinstance(error, MemoryError):
        return "it asks for more memory than there is"
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_AUTH:
        return "it does more than read; the audit file only answers, and the ledger only grows by its own events"
    return str(error).rstrip(".")
