"""Watching somebody else's refresh attempt: how long it may still take, by a clock that nobody sets."""

from collections.abc import Callable
from typing import Final

from ledger.events import Holder
from ledger.snapshot import AuthLeasePhase
from ledger.state import LastFailure, LeaseState

__all__ = ["HOLDER_CHECK_EVERY_S", "AttemptWatch", "duration_s"]

HOLDER_CHECK_EVERY_S: Final = 0.1
DEFAULT_DURATION_MS: Final = 60_000
"""Of an attempt that a restore brought back and nobody knows."""


def duration_s(state: LeaseState) -> float:
    """How long the open attempt may take."""
    return (DEFAULT_DURATION_MS if state.attempt is None else state.attempt.duration_ms) / 1000


class AttemptWatch:
    """An attempt of somebody else's, as seen from here: on our own clock, since we first saw it."""

    def __init__(self, state: LeaseState, now_s: float) -> None:
        self.attempt = state.attempt
        self.since_version = state.refreshing_since
        self.published_by = state.published_by
        self.first_seen_s = now_s
        self._next_holder_check_s = now_s

    def is_on(self, state: LeaseState) -> bool:
        return state.phase is AuthLeasePhase.REFRESHING and state.refreshing_since == self.since_version

    def is_over(self, now_s: float, is_gone: Callable[[Holder], bool]) -> bool:
        """Whether its duration has passed, or its holder is provably gone."""
        duration_ms = DEFAULT_DURATION_MS if self.attempt is None else self.attempt.duration_ms
        if now_s - self.first_seen_s >= duration_ms / 1000:
            return True
        if self.attempt is None or now_s < self._next_holder_check_s:
            return False
        self._next_holder_check_s = now_s + HOLDER_CHECK_EVERY_S
        return is_gone(self.attempt.holder)

    def failed_with(self, last: LastFailure) -> bool:
        """Whether that failure is the watched attempt's."""
        return self.attempt is not None and last.attempt == self.attempt.id
