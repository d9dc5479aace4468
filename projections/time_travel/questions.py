"""The questions about other moments than now, as methods of an audit log."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from datetime import datetime

from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from projections.audit_file import AuditFile
from projections.catch_up import Progress
from projections.time_travel.as_of import LeaseAsOf, LeaseThen, as_of, leases_at
from projections.time_travel.changes import Change, last_change
from projections.time_travel.difference import LeaseDifference, diff
from projections.time_travel.fingerprints import AuditFingerprints
from projections.time_travel.moments import When, as_ms, chosen
from projections.time_travel.streams import LedgerStreams
from projections.time_travel.timeline import DEFAULT_LIMIT, Timeline, TimelineFilter, as_texts, timeline
from projections.time_travel.times import AuditTimes

__all__ = ["TimeQuestions"]


class TimeQuestions(ABC):
    """Asks about any moment. Each answer equals what a fold of the events up to it gives.

    All of them raise ``ValueError`` for a moment that is none, ``NoSuchMoment`` for a version beyond the lease's last,
    ``CorruptHistory`` and ``UnknownEventTag`` for events that cannot be folded, and ``LedgerStorageError`` when the
    ledger or the audit file cannot be used.
    """

    ledger: LeaseLedger

    @abstractmethod
    def _current(self, progress: Progress | None = None) -> AuditFile:
        """The audit file, after taking in everything recorded so far."""

    @contextlib.contextmanager
    def _streams(self) -> Iterator[LedgerStreams]:
        with self._current().reading() as db:
            yield LedgerStreams(self.ledger, AuditTimes(db), AuditFingerprints(db))

    def as_of(self, key: LeaseKey, version: int | None = None, at: int | datetime | None = None) -> LeaseAsOf:
        """A lease as it was.

        Args:
            key: The lease.
            version: After the event at this stream version; 0 is before the first.
            at: At this time instead: epoch milliseconds, or a datetime with a time zone. After every event whose
                stream's running maximum of time is at most this. With neither, the lease as it is now.
        """
        with self._streams() as streams:
            when = chosen(version, at)
            return as_of(streams, key, streams.last_version(key) if when is None else when)

    def leases_at(self, at: int | datetime) -> list[LeaseThen]:
        """Every lease that had events by a time, as it was then, sorted by key.

        Args:
            at: Epoch milliseconds, or a datetime with a time zone.
        """
        at_ms = as_ms(at)
        with self._current().reading() as db:
            return leases_at(db, at_ms)

    def diff(self, key: LeaseKey, a: When, b: When) -> LeaseDifference:
        """What changed on a lease from one moment to another, and by which events.

        Args:
            key: The lease.
            a: The first moment: a stream version, an ``At``, or a datetime with a time zone.
            b: The second; it may be the earlier one.
        """
        with self._streams() as streams:
            return diff(streams, key, a, b)

    def last_change(
        self, key: LeaseKey, field: str, version: int | None = None, at: int | datetime | None = None
    ) -> Change | None:
        """The last event that changed a field of a lease's state; ``None`` when none ever did.

        Args:
            key: The lease.
            field: Such as ``expires_at``, ``generation`` or ``phase``.
            version: Up to this stream version.
            at: Up to this time instead, as for :meth:`as_of`. With neither, up to now.
        """
        with self._streams() as streams:
            return last_change(streams, key, field, chosen(version, at))

    def timeline(
        self,
        keys: Iterable[LeaseKey | str] | None = None,
        *,
        actors: Iterable[str] | None = None,
        tags: Iterable[str] | None = None,
        correlation_id: str | None = None,
        since: int | datetime | None = None,
        until: int | datetime | None = None,
        after: int = 0,
        limit: int = DEFAULT_LIMIT,
    ) -> Timeline:
        """What happened, over any leases, in the order it was recorded, page by page.

        Args:
            keys: Only these leases.
            actors: Only by these.
            tags: Only these kinds of event, such as ``lease.refreshed`` or ``refreshed``; no others are accepted.
            correlation_id: Only what is filed under this.
            since: Only events that stand in time here or later: epoch milliseconds, or a datetime with a time zone.
            until: Only events that "at" this time includes.
            after: ``next`` of the page before.
            limit: The most events in the page.
        """
        wanted = TimelineFilter(
            as_texts(keys),
            as_texts(actors),
            as_texts(tags),
            correlation_id,
            None if since is None else as_ms(since),
            None if until is None else as_ms(until),
        )
        with self._current().reading() as db:
            return timeline(db, wanted, after, limit)
