"""The streams of a saved incident, as far as they reach."""

from collections.abc import Sequence

from ledger.codec import EventCodec
from ledger.events import LeaseRefreshStarted
from ledger.keys import LeaseKey
from ledger.reading import RecordedEvent
from ledger.state import EMPTY_STATE, LeaseState, evolve
from projections.incident.bundle import Bundle
from projections.time_travel.moments import NoSuchMoment
from projections.time_travel.streams import Streams

__all__ = ["BundleStreams"]


class BundleStreams(Streams):
    """Events and states of a checked bundle. Leases that are not part of it have no events here.

    Args:
        bundle: The bundle.

    Attributes:
        recorded: All its events, in the order of the log.
    """

    scope = "this incident"

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        codec = EventCodec()
        self._judged_at_ms = bundle.judged_at_ms
        self._events: dict[LeaseKey, list[RecordedEvent]] = {}
        self._states: dict[LeaseKey, list[LeaseState]] = {}
        keys: dict[str, LeaseKey] = {}
        for stream in bundle.streams:
            key = keys[stream.key] = LeaseKey.parse(stream.key)
            self._events[key], self._states[key] = [], [stream.before.state]
        recorded: list[RecordedEvent] = []
        for stored in bundle.events:
            key = keys[stored.key]
            event = codec.decode(stored.tag, stored.body)
            recorded.append(RecordedEvent(stored.position, key, stored.version, event))
            self._events[key].append(recorded[-1])
            self._states[key].append(evolve(self._states[key][-1], event, stored.key))
        self.recorded: tuple[RecordedEvent, ...] = tuple(recorded)

    def now_ms(self) -> int:
        """When the incident ended or was taken down."""
        return self._judged_at_ms

    @property
    def leases(self) -> Sequence[LeaseKey]:
        """The leases of the incident, sorted by key."""
        return sorted(self._events, key=str)

    def last_version(self, key: LeaseKey) -> int:
        """The version of the lease's last event here; 0 for none."""
        states = self._states.get(key)
        return states[-1].version if states else 0

    def first_version(self, key: LeaseKey) -> int:
        """The version of the lease's first event here."""
        states = self._states.get(key)
        return states[0].version + 1 if states else 1

    def state(self, key: LeaseKey, version: int) -> LeaseState:
        """The lease after the event at a version.

        Raises:
            NoSuchMoment: The bundle does not reach there.
        """
        states = self._states.get(key)
        if states is None and version == 0:
            return EMPTY_STATE
        if states is None or not states[0].version <= version <= states[-1].version:
            raise NoSuchMoment(key, version, self.last_version(key))
        return states[version - states[0].version]

    def events(self, key: LeaseKey, after: int, upto: int) -> Sequence[RecordedEvent]:
        """The lease's events with ``after < version <= upto``, in order."""
        skipped = self.first_version(key) - 1
        return self._events.get(key, [])[max(after - skipped, 0) : max(upto - skipped, 0)]

    def find(self, key: LeaseKey, event_id: str) -> RecordedEvent | None:
        """The lease's event with that id."""
        return next((recorded for recorded in self._events.get(key, []) if recorded.event.id == event_id), None)

    def attempts_holding(self, fingerprint: str) -> Sequence[RecordedEvent]:
        """The events of the bundle that began the attempts carrying a refresh token's fingerprint, oldest first."""
        return [
            recorded
            for recorded in self.recorded
            if isinstance(recorded.event, LeaseRefreshStarted) and recorded.event.fingerprint == fingerprint
        ]
