"""Forking a process that holds SQLite connections.

SQLite keeps one table of locks for a whole process, and a forked child inherits it: connections opened there later
would believe to hold locks that only the parent has, and events acknowledged to the child could be lost. So whoever has
connections is told: before the fork nobody is in the middle of anything, and the child closes what it inherited before
it opens anything of its own.
"""

import os
import threading
import weakref
from typing import Final, Protocol

from ledger.threads import uninterrupted

__all__ = ["Forking", "tell_of_forks"]


class Forking(Protocol):
    """Something with connections that a fork concerns."""

    def before_fork(self) -> None:
        """Let nobody else use the connections until one of the other two is called."""

    def after_fork_in_parent(self) -> None:
        """Let others use them again."""

    def after_fork_in_child(self) -> None:
        """Close them; the next use opens new ones."""


_told: Final["weakref.WeakSet[Forking]"] = weakref.WeakSet()
_waiting: Final[list[Forking]] = []
_one_fork: Final = threading.RLock()
"""Two threads may fork at once; each must give back just what it took."""


def tell_of_forks(connected: Forking) -> None:
    """Have it told of every fork for as long as it lives."""
    with _one_fork:
        _told.add(connected)


def _before() -> None:
    _waiting[:] = _told
    for connected in _waiting:
        connected.before_fork()


def _in_parent() -> None:
    while _waiting:
        _waiting.pop().after_fork_in_parent()


def _in_child() -> None:
    while _waiting:
        _waiting.pop().after_fork_in_child()


if hasattr(os, "register_at_fork"):
    # What runs before a fork runs in the reverse order: the turn is taken first of all, and given back last.
    os.register_at_fork(
        before=lambda: uninterrupted(_before),
        after_in_parent=lambda: uninterrupted(_in_parent),
        after_in_child=lambda: uninterrupted(_in_child),
    )
    os.register_at_fork(before=_one_fork.acquire, after_in_parent=_one_fork.release, after_in_child=_one_fork.release)
