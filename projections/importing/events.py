"""From a line of the trail to an event, with everything that the trail does not tell left unknown and said so.

What is derived, and from what: the generation counts the publications that the trail shows, so it is the least that it
can have been; the time of a publication, and of a refresh, is the time of its line. Expiry, holder, duration and
errors are not in the trail. An event has no way to leave an expiry open, so the imported one reads "never" and its
cause says that it is unknown.
"""

import os
from typing import Final, assert_never

from ledger.codec import EventCodec
from ledger.commands import (
    Acquire,
    BeginRefresh,
    Command,
    CompleteRefresh,
    FailRefresh,
    MarkExpiring,
    MarkReauthRequired,
    Release,
    ReleaseCredentialLifecycle,
    Restore,
)
from ledger.events import Holder, LeaseEvent
from ledger.execution import CommandExecutor
from ledger.heads import StreamHeads
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.phases import ALL_PHASES, TRANSITIONS, Transition
from ledger.snapshot import AuthLeasePhase
from ledger.state import EMPTY_STATE, LeaseState
from projections.importing.trail import TARGET, TrailLine, UnusableLine

__all__ = ["IMPORT_ACTOR", "TrailRecorder", "is_imported"]

IMPORT_ACTOR: Final = f"somebody (imported from {TARGET})"
"""Who imported events name: the trail does not tell who acted."""

_UNKNOWN_HOLDER: Final = Holder("unknown", "unknown", 0, "", "import")
_EXPIRY: Final = "expiry unknown"
_LEAST: Final = "generation counted from the trail, so at least that"
_UNKNOWNS: Final = {
    Transition.ACQUIRE: f"{_EXPIRY}; {_LEAST}; published at the time of the line",
    Transition.COMPLETE_REFRESH: f"{_EXPIRY}; {_LEAST}; published at the time of the line",
    Transition.BEGIN_REFRESH: "holder and duration unknown",
    Transition.REFRESH_FAILED_TRANSIENT: "error unknown",
    Transition.REFRESH_FAILED_PERMANENT: "error unknown",
    Transition.RESTORE: f"what was restored is known by its phase alone; {_EXPIRY}",
}

# A machine that the runtime makes anew starts in a phase of its own, so only where these lead is sure.
_FROM_ANYWHERE: Final = frozenset(kind for kind, rows in TRANSITIONS.items() if len(rows) == len(ALL_PHASES))


def is_imported(event: LeaseEvent) -> bool:
    """Whether an event came from a trail, so that its expiry is unknown rather than never."""
    return event.actor == IMPORT_ACTOR


class TrailRecorder:
    """Records lines in a new ledger.

    Args:
        ledger: The ledger; it has to be empty.
        source: Name of the trail, for the causes.

    Attributes:
        recorded: Events recorded so far.
    """

    def __init__(self, ledger: LeaseLedger, source: str) -> None:
        codec = EventCodec()
        heads = StreamHeads(ledger.recorder, codec)
        self._source = source
        self._at_ms = 0
        self._states: dict[LeaseKey, LeaseState] = {}
        self._executor = CommandExecutor(
            ledger.recorder, codec, heads, lambda: self._at_ms, lambda: os.urandom(16).hex(), IMPORT_ACTOR
        )
        self.recorded = 0

    def record(self, number: int, line: TrailLine) -> None:
        """Record one line.

        Raises:
            UnusableLine: It contradicts what the lines before it said of the lease. Nothing was recorded.
        """
        state = self._states.get(line.key)
        remarks = [f"imported from {self._source}:{number} ({line.action})", _UNKNOWNS.get(line.transition, "")]
        if state is None:
            state = self._begin(number, line)
        before = state.phase or AuthLeasePhase.RELEASED
        if before is not line.from_phase and state.version:
            contradiction = f"the trail says from {line.from_phase}, but the lines before leave the lease {before}"
            if line.transition not in _FROM_ANYWHERE:
                raise UnusableLine(contradiction)
            if state.phase is not None:
                remarks.append(contradiction)
        self._execute(line, _command(line, state), remarks)

    def _begin(self, number: int, line: TrailLine) -> LeaseState:
        if line.transition in _FROM_ANYWHERE:
            return EMPTY_STATE
        remarks = [
            f"the trail begins here: {self._source}:{number} finds the lease {line.from_phase}",
            f"how it came there is unknown; {_EXPIRY}; {_LEAST}",
        ]
        return self._execute(line, _restore(line.from_phase, 1), remarks)

    def _execute(self, line: TrailLine, command: Command, remarks: list[str]) -> LeaseState:
        self._at_ms = line.at_ms
        _, state = self._executor.execute(line.key, command, cause="; ".join(filter(None, remarks)))
        self._states[line.key] = state
        self.recorded += 1
        return state


def _restore(phase: AuthLeasePhase, generation: int) -> Restore:
    live = phase is not AuthLeasePhase.RELEASED
    return Restore(phase if live else None, None, live, generation, None)


def _command(line: TrailLine, state: LeaseState) -> Command:
    match line.transition:
        case Transition.ACQUIRE:
            return Acquire(None)
        case Transition.MARK_EXPIRING:
            return MarkExpiring()
        case Transition.BEGIN_REFRESH:
            return BeginRefresh(0, _UNKNOWN_HOLDER)
        case Transition.COMPLETE_REFRESH:
            return CompleteRefresh(None, line.at_ms // 1000, _UNKNOWN_HOLDER.instance)
        case Transition.REFRESH_FAILED_TRANSIENT:
            return FailRefresh(False, _UNKNOWN_HOLDER.instance)
        case Transition.REFRESH_FAILED_PERMANENT:
            return FailRefresh(True, _UNKNOWN_HOLDER.instance)
        case Transition.MARK_REAUTH_REQUIRED:
            return MarkReauthRequired()
        case Transition.RELEASE:
            return Release()
        case Transition.RELEASE_CREDENTIAL:
            return ReleaseCredentialLifecycle()
        case Transition.RESTORE:
            return _restore(line.to_phase, state.generation)
        case _:
            assert_never(line.transition)
