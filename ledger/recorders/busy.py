"""Waiting one's turn to write a SQLite file.

SQLite's own busy handler backs off to a tenth of a second and lets whoever comes next go first, so one process may
starve for seconds. Short pauses of random length give every waiter the same chance, many times a second.
"""

import random
import sqlite3
import time
from collections.abc import Callable
from typing import Final, TypeVar

__all__ = ["is_busy", "until_free"]

T = TypeVar("T")

SHORTEST_PAUSE_S: Final = 0.000_2
LONGEST_PAUSE_S: Final = 0.001_5


def is_busy(error: sqlite3.Error) -> bool:
    """Whether a statement failed only because another connection was in the way."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)
    return code & 0xFF == sqlite3.SQLITE_BUSY


def until_free(write: Callable[[], T], timeout_s: float) -> T:
    """Run a write again and again while another connection holds the file's write lock.

    Args:
        write: One statement outside of a transaction, or the one that begins one: it failed without a trace.
        timeout_s: Seconds to go on trying.

    Raises:
        sqlite3.OperationalError: The file was not free in time, or something else is wrong.
    """
    deadline: float | None = None
    while True:
        try:
            return write()
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                raise
            now = time.monotonic()
            deadline = now + timeout_s if deadline is None else deadline
            if now >= deadline:
                raise
            time.sleep(random.uniform(SHORTEST_PAUSE_S, LONGEST_PAUSE_S))  # noqa: S311  # fairness, not secrecy
