"""What is judged, and the few ways of looking back that every judgement needs."""

from collections.abc import Callable, Sequence

import msgspec

from ledger.events import Holder, LeaseRefreshFailed, LeaseRefreshStarted
from ledger.keys import LeaseKey
from ledger.reading import RecordedEvent
from ledger.state import LeaseState
from projections.explain import words
from projections.explain.codes import VerdictCode
from projections.time_travel.streams import Streams

__all__ = ["AttemptSeen", "Case", "Judgement"]


class AttemptSeen(msgspec.Struct, frozen=True):
    """A refresh attempt, and the failure that ended it; ``None`` when it is open or ended otherwise."""

    started: RecordedEvent
    failed: RecordedEvent | None

    @property
    def was_abandoned(self) -> bool:
        """Whether it was given up because its holder was gone or silent."""
        return (
            self.failed is not None
            and isinstance(self.failed.event, LeaseRefreshFailed)
            and self.failed.event.abandoned
        )


class Judgement(msgspec.Struct, frozen=True):
    """A verdict's core: its code, its words and its proof, in any order and with gaps."""

    code: VerdictCode
    text: str
    proof: tuple[RecordedEvent | None, ...] = ()
    elsewhere: tuple[RecordedEvent, ...] = ()


class Case(msgspec.Struct, frozen=True):
    """A lease at the moment to be judged.

    Attributes:
        streams: Where its events are.
        key: The lease.
        version: The stream version then.
        state: The lease then.
        at_ms: The moment, epoch milliseconds.
        is_gone: Whether a holder's process certainly no longer runs; only for judging the present.
        peers: Other ledgers that may hold copies of the same login.
        imported: Whether it is known from an imported trail, which tells neither expiry nor holder nor errors.
    """

    streams: Streams
    key: LeaseKey
    version: int
    state: LeaseState
    at_ms: int
    is_gone: Callable[[Holder], bool] | None = None
    peers: Sequence[Streams] = ()
    imported: bool = False

    @property
    def is_over(self) -> bool:
        """Whether the credential's time was over at the moment."""
        expires_at = self.state.expires_at
        return self.state.credential_present and expires_at is not None and self.at_ms >= expires_at * 1000

    def life(self) -> str:
        """How the credential's life stood at the moment, in words."""
        if self.imported:
            return "when it expires is not known"
        if self.state.expires_at is None:
            return "it never expires"
        return f"it {'expired' if self.is_over else 'expires'} at {words.time(self.state.expires_at * 1000)}"

    def publication(self) -> RecordedEvent | None:
        """The event that published the credential in force, if it can be read here."""
        wanted = self.state.published_by
        if wanted is None:
            return None
        return next(
            (event for event in self.streams.newest_first(self.key, self.version) if event.event.id == wanted), None
        )

    def started(self, attempt_id: str | None) -> RecordedEvent | None:
        """The event that began an attempt, if it can be read here."""
        if attempt_id is None:
            return None
        return next(
            (event for event in self.streams.newest_first(self.key, self.version) if event.event.id == attempt_id), None
        )

    def attempts(self, upto: int, published_by: str | None) -> list[AttemptSeen]:
        """The attempts begun since a publication, up to a version, oldest first: they all held the same tokens."""
        seen: list[AttemptSeen] = []
        failures: dict[str, RecordedEvent] = {}
        for recorded in self.streams.newest_first(self.key, upto):
            event = recorded.event
            if event.id == published_by:
                break
            if isinstance(event, LeaseRefreshFailed) and event.attempt is not None:
                failures[event.attempt] = recorded
            elif isinstance(event, LeaseRefreshStarted):
                seen.append(AttemptSeen(recorded, failures.get(event.attempt)))
        return seen[::-1]
