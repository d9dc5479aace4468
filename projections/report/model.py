"""What a report shows, as columns: every event with the state of its lease after it, computed by the ledger's own fold.

The page computes nothing of a lease's life; it draws what is here. Columns rather than objects, and texts that repeat
as numbers into a list, keep a page of thousands of events small. Integers beyond 2^53-1 are texts of their digits.
"""

from typing import Any, Final

import msgspec

from ledger.errors import LeaseLedgerError
from ledger.events import LeaseAcquired, LeaseEvent, LeaseRefreshed, LeaseRestored
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.reading import RecordedEvent
from ledger.state import EMPTY_STATE, LeaseState, evolve
from projections.audit_rows import summary
from projections.export.json_text import exact
from projections.export.selection import Selection, of_keys
from projections.importing import is_imported
from projections.report.attempts import Attempt, AttemptTracker
from projections.report.verdicts import LeaseVerdict, Verdicts

__all__ = ["EventColumns", "ReportModel", "TooManyEvents", "Verdict", "build_model"]

_COMMON: Final = frozenset({"id", "at", "actor", "prev", "generation", "expires_at", "published_at"})


class TooManyEvents(LeaseLedgerError, ValueError):
    """A page of so many events could not be used; the message says what to narrow."""


class EventColumns(msgspec.Struct):
    """The events, column by column; the nth item of each belongs to the nth event.

    Attributes:
        position: Place in the whole log.
        key: Index of the lease.
        version: Place in the lease's stream.
        at: Epoch milliseconds.
        behind: By how many milliseconds it is dated before an earlier event of its lease: a clock went back.
        actor: Index of who.
        tag: Index of what.
        text: What happened, in words.
        id: Id of the event.
        phase: Phase of the lease after it; empty for none.
        generation: After it.
        expires_at: After it, epoch seconds; ``None`` for never, ``"unknown"`` where the source did not tell.
        credential: Whether the lease holds a credential after it.
        published_at: Epoch milliseconds of the publication then in force.
        more: What else that event carries.
    """

    position: list[int] = []
    key: list[int] = []
    version: list[int] = []
    at: list[int | str] = []
    behind: list[int] = []
    actor: list[int] = []
    tag: list[int] = []
    text: list[str] = []
    id: list[str] = []
    phase: list[str] = []
    generation: list[int | str] = []
    expires_at: list[int | str | None] = []
    credential: list[bool] = []
    published_at: list[int | str | None] = []
    more: list[dict[str, Any]] = []


class Verdict(msgspec.Struct, frozen=True):
    """The verdict on one lease: its index, code and words, and the indexes of those proving events that are shown."""

    key: int
    code: str
    text: str
    phase: str
    proof: list[int]


class ReportModel(msgspec.Struct):
    """Everything a page shows."""

    ledger: str
    title: str
    keys: list[str]
    actors: list[str]
    tags: list[str]
    events: EventColumns
    attempts: list[Attempt]
    verdicts: list[Verdict]


class _Index:
    """Gives each text a number, in the order of first appearance."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def __getitem__(self, text: str) -> int:
        return self._numbers.setdefault(text, len(self._numbers))

    def texts(self) -> list[str]:
        return list(self._numbers)


class _Builder:
    """Takes in the events one by one."""

    def __init__(self, selection: Selection, limit: int) -> None:
        self.columns = EventColumns()
        self.keys, self.actors, self.tags = _Index(), _Index(), _Index()
        self.attempts = AttemptTracker()
        self.shown: dict[tuple[LeaseKey, int], int] = {}
        self.leases: dict[LeaseKey, None] = {}
        self._selection = selection
        self._limit = limit
        self._states: dict[LeaseKey, LeaseState] = {}
        self._running: dict[LeaseKey, int] = {}
        self._expiry_unknown: set[LeaseKey] = set()

    def take(self, recorded: RecordedEvent) -> None:
        """One more event of the log."""
        key, event = recorded.key, recorded.event
        state = self._states[key] = evolve(self._states.get(key, EMPTY_STATE), event, str(key))
        running = self._running[key] = max(self._running.get(key, event.at), event.at)
        if isinstance(event, LeaseAcquired | LeaseRefreshed | LeaseRestored):
            (self._expiry_unknown.add if is_imported(event) else self._expiry_unknown.discard)(key)
        if not self._selection.spans(running):
            return
        self.leases[key] = None
        shown = self._selection.tags is None or event.tag in self._selection.tags
        index = self._show(recorded, state, running - event.at) if shown else None
        self.attempts.take(index, self.keys[str(key)], self.actors[event.actor], recorded)

    def _show(self, recorded: RecordedEvent, state: LeaseState, behind: int) -> int:
        index = len(self.shown)
        if index == self._limit:
            raise TooManyEvents(
                f"more than {self._limit:,} events, too many for one page; choose leases or a time range"
            )
        self.shown[recorded.key, recorded.version] = index
        self._add(recorded, state, behind)
        return index

    def _add(self, recorded: RecordedEvent, state: LeaseState, behind: int) -> None:
        event, columns = recorded.event, self.columns
        columns.position.append(recorded.position)
        columns.key.append(self.keys[str(recorded.key)])
        columns.version.append(recorded.version)
        columns.at.append(exact(event.at))
        columns.behind.append(behind)
        columns.actor.append(self.actors[event.actor])
        columns.tag.append(self.tags[event.tag])
        columns.text.append(summary(event))
        columns.id.append(event.id)
        columns.phase.append(state.phase or "")
        columns.generation.append(exact(state.generation))
        unknown = state.credential_present and recorded.key in self._expiry_unknown
        columns.expires_at.append("unknown" if unknown else exact(state.expires_at))
        columns.credential.append(state.credential_present)
        columns.published_at.append(exact(state.published_at))
        columns.more.append(_more(event))


def _more(event: LeaseEvent) -> dict[str, Any]:
    fields: dict[str, Any] = exact(msgspec.to_builtins(event))
    return {name: value for name, value in fields.items() if name not in _COMMON}


def build_model(ledger: LeaseLedger, selection: Selection, title: str, verdicts: Verdicts, limit: int) -> ReportModel:
    """Read a ledger into the model of a page.

    Raises:
        TooManyEvents: More than ``limit`` events were chosen.
        CorruptHistory: A lease's events contradict each other.
        UnknownEventTag: A newer version wrote one of them.
        LedgerStorageError: The ledger cannot be read.
    """
    builder = _Builder(selection, limit)
    for recorded in of_keys(ledger, selection.keys):
        builder.take(recorded)
    found = [_verdict(key, verdicts(key, selection.until_ms), builder) for key in builder.leases]
    return ReportModel(
        ledger.ledger_id,
        title,
        builder.keys.texts(),
        builder.actors.texts(),
        builder.tags.texts(),
        builder.columns,
        builder.attempts.found,
        found,
    )


def _verdict(key: LeaseKey, verdict: LeaseVerdict, builder: _Builder) -> Verdict:
    proof = [builder.shown[key, proving] for proving in verdict.versions if (key, proving) in builder.shown]
    return Verdict(builder.keys[str(key)], verdict.code, verdict.text, verdict.phase or "", proof)
