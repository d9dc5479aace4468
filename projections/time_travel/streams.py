"""Where the events of leases are read from: a ledger, or a saved piece of one. All reads are bounded by version."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from ledger.codec import EventCodec
from ledger.heads import decode_row
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.reading import RecordedEvent
from ledger.state import LeaseState, evolve

__all__ = ["LedgerStreams", "Streams"]

_FIRST_PAGE: Final = 16
_LARGEST_PAGE: Final = 512


class Streams(ABC):
    """Events and states of leases, by stream version. Version 0 is the moment before the first event."""

    @abstractmethod
    def now_ms(self) -> int:
        """The time that "now" means here, epoch milliseconds."""

    @abstractmethod
    def keys(self) -> Sequence[LeaseKey]:
        """Every key that has events here, sorted by its text."""

    @abstractmethod
    def last_version(self, key: LeaseKey) -> int:
        """The version of the lease's last event; 0 for none."""

    @abstractmethod
    def first_version(self, key: LeaseKey) -> int:
        """The version of the first event that can be read here: 1 for a whole stream."""

    @abstractmethod
    def state(self, key: LeaseKey, version: int) -> LeaseState:
        """The lease after the event at a version, from ``first_version - 1`` to ``last_version``."""

    @abstractmethod
    def events(self, key: LeaseKey, after: int, upto: int) -> Sequence[RecordedEvent]:
        """The lease's events with ``after < version <= upto``, in order."""

    @abstractmethod
    def find(self, key: LeaseKey, event_id: str) -> RecordedEvent | None:
        """The lease's event with that id."""

    @abstractmethod
    def version_at(self, key: LeaseKey, at_ms: int) -> int:
        """The last version whose running maximum of time is at most ``at_ms``; 0 for none."""

    def event(self, key: LeaseKey, version: int) -> RecordedEvent | None:
        """The lease's event at a version; ``None`` when there is none to read."""
        return next(iter(self.events(key, version - 1, version)), None) if version > 0 else None

    def newest_first(self, key: LeaseKey, upto: int) -> Iterator[RecordedEvent]:
        """The lease's events from a version back to the first that can be read, in pages that grow."""
        size, first = _FIRST_PAGE, self.first_version(key)
        while upto >= first:
            after = max(upto - size, first - 1)
            yield from reversed(self.events(key, after, upto))
            upto, size = after, min(size * 2, _LARGEST_PAGE)

    def steps(
        self, key: LeaseKey, after: int, upto: int, start: LeaseState | None = None
    ) -> Iterator[tuple[LeaseState, RecordedEvent, LeaseState]]:
        """Each event with ``after < version <= upto``, with the state before and after it."""
        state = self.state(key, after) if start is None else start
        while after < upto:
            page = self.events(key, after, min(after + _LARGEST_PAGE, upto))
            for recorded in page:
                before, state = state, evolve(state, recorded.event, str(key))
                yield before, recorded, state
            if not page:
                return
            after = page[-1].version


class LedgerStreams(Streams):
    """The streams of a ledger.

    Args:
        ledger: The ledger.
        version_at: Finds the version at a time quicker than reading the stream from its start does.
    """

    def __init__(self, ledger: LeaseLedger, version_at: Callable[[LeaseKey, int], int] | None = None) -> None:
        self.ledger = ledger
        self._version_at = version_at
        self._codec = EventCodec()

    def now_ms(self) -> int:
        """By the ledger's clock."""
        return self.ledger.clock()

    def keys(self) -> Sequence[LeaseKey]:
        """Every key that ever had an event."""
        return self.ledger.keys()

    def last_version(self, key: LeaseKey) -> int:
        """The version of the lease's last event; 0 for none."""
        return self.ledger.recorder.last_version(str(key))

    def first_version(self, key: LeaseKey) -> int:
        """A ledger holds every event."""
        return 1

    def state(self, key: LeaseKey, version: int) -> LeaseState:
        """The lease after the event at a version."""
        return self.ledger.state(key, version)

    def events(self, key: LeaseKey, after: int, upto: int) -> Sequence[RecordedEvent]:
        """The lease's events with ``after < version <= upto``, in order."""
        stream = str(key)
        rows = self.ledger.recorder.rows(stream, after, upto)
        return [RecordedEvent(row.position, key, row.version, decode_row(self._codec, stream, row)) for row in rows]

    def find(self, key: LeaseKey, event_id: str) -> RecordedEvent | None:
        """The lease's event with that id."""
        return self.ledger.find(key, event_id)

    def version_at(self, key: LeaseKey, at_ms: int) -> int:
        """The last version whose running maximum of time is at most ``at_ms``; 0 for none."""
        if self._version_at is not None:
            return self._version_at(key, at_ms)
        # The running maximum passes a time with the first event that does.
        version = 0
        for recorded in self.ledger.read(key):
            if recorded.event.at > at_ms:
                break
            version = recorded.version
        return version
