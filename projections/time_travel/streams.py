"""Where the events of leases are read from: a ledger, or a saved piece of one. All reads are bounded by version."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar, Final

from ledger.codec import EventCodec
from ledger.heads import decode_row
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.reading import RecordedEvent
from ledger.state import LeaseState, evolve
from projections.time_travel.fingerprints import Fingerprints, LoggedFingerprints
from projections.time_travel.times import Times

__all__ = ["LedgerStreams", "StreamTimes", "Streams"]

_FIRST_PAGE: Final = 16
_LARGEST_PAGE: Final = 512


class Streams(ABC):
    """Events and states of leases, by stream version. Version 0 is the moment before the first event.

    Attributes:
        scope: What its events are all of, in words: nothing is known of what is not in them.
        times: How far each lease's time had come at each version.
    """

    scope: ClassVar[str] = "this ledger"

    def __init__(self, times: Times | None = None) -> None:
        self.times: Times = times or StreamTimes(self)

    @abstractmethod
    def now_ms(self) -> int:
        """The time that "now" means here, epoch milliseconds."""

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
    def attempts_holding(self, fingerprint: str) -> Sequence[RecordedEvent]:
        """The events that began the attempts, under any key, carrying a refresh token's fingerprint; oldest first."""

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

    def oldest_first(self, key: LeaseKey, after: int, upto: int) -> Iterator[RecordedEvent]:
        """The lease's events with ``after < version <= upto``, in order, page by page."""
        while after < upto:
            page = self.events(key, after, min(after + _LARGEST_PAGE, upto))
            yield from page
            if not page:
                return
            after = page[-1].version

    def steps(self, key: LeaseKey, after: int, upto: int) -> Iterator[tuple[LeaseState, RecordedEvent, LeaseState]]:
        """Each event with ``after < version <= upto``, in order, with the state before and after it."""
        state = self.state(key, after)
        for recorded in self.oldest_first(key, after, upto):
            before, state = state, evolve(state, recorded.event, str(key))
            yield before, recorded, state


class StreamTimes:
    """Times read off the events themselves: exact anywhere, and slower the longer a stream is.

    Args:
        streams: Where the events are.
    """

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    def version_at(self, key: LeaseKey, at_ms: int) -> int:
        """The last version whose running maximum is at most ``at_ms``; the one before the first event if none is."""
        # The running maximum passes a time with the first event that does.
        version = self._streams.first_version(key) - 1
        for recorded in self._all(key):
            if recorded.event.at > at_ms:
                break
            version = recorded.version
        return version

    def running_at_ms(self, key: LeaseKey, version: int) -> int | None:
        """The running maximum at a version; ``None`` for a version that is not there."""
        events = self._streams.oldest_first(key, self._streams.first_version(key) - 1, version)
        return max((recorded.event.at for recorded in events), default=None)

    def dated_before(self, key: LeaseKey, version: int, at_ms: int, most: int) -> Sequence[int]:
        """Versions after ``version`` dated at or before ``at_ms``, oldest first, at most so many."""
        found: list[int] = []
        for recorded in self._streams.oldest_first(key, version, self._streams.last_version(key)):
            if recorded.event.at <= at_ms and len(found) < most:
                found.append(recorded.version)
        return found

    def _all(self, key: LeaseKey) -> Iterator[RecordedEvent]:
        streams = self._streams
        return streams.oldest_first(key, streams.first_version(key) - 1, streams.last_version(key))


class LedgerStreams(Streams):
    """The streams of a ledger.

    Args:
        ledger: The ledger.
        times: Quicker times than reading a stream from its start gives, from an audit file.
        fingerprints: Quicker look-ups than reading the whole log gives, from an audit file.
    """

    def __init__(
        self, ledger: LeaseLedger, times: Times | None = None, fingerprints: Fingerprints | None = None
    ) -> None:
        super().__init__(times)
        self.ledger = ledger
        self._fingerprints: Fingerprints = fingerprints or LoggedFingerprints(ledger.recorder)
        self._codec = EventCodec()

    def now_ms(self) -> int:
        """By the ledger's clock."""
        return self.ledger.clock()

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

    def attempts_holding(self, fingerprint: str) -> Sequence[RecordedEvent]:
        """The events that began the attempts carrying a refresh token's fingerprint, oldest first."""
        found = (self.event(key, version) for key, version in self._fingerprints.starts(fingerprint))
        return [recorded for recorded in found if recorded is not None]
