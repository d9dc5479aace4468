"""A ledger in memory, for tests: the storage library's plain-object recorder, made append-only."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from eventsourcing.persistence import IntegrityError, StoredEvent
from eventsourcing.popo import POPOApplicationRecorder

from ledger.errors import LedgerStorageError
from ledger.recorders.base import Defect, LeaseRecorder, LogRow, NewEvent, StoredFold, StreamRow

__all__ = ["MemoryLeaseRecorder"]


class MemoryLeaseRecorder(POPOApplicationRecorder, LeaseRecorder):
    """Keeps events in memory. Lost when the process ends."""

    def __init__(self, ledger_id: str) -> None:
        super().__init__()
        self.ledger_id = ledger_id
        self._folds: dict[str, dict[int, StoredFold]] = {}
        self._closed = False

    def _assert_uniqueness(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> None:
        super()._assert_uniqueness(stored_events, **kwargs)
        heads: dict[str, int] = {}
        for event in stored_events:
            stream = str(event.originator_id)
            head = heads.get(stream, len(self._stored_events_index[stream]))
            if event.originator_version != head + 1:
                raise IntegrityError(f"version gap in {stream}: {event.originator_version} after {head}")
            heads[stream] = event.originator_version

    def _check_open(self) -> None:
        if self._closed:
            raise LedgerStorageError("the ledger is closed; open it again")

    def sidecar(self, name: str) -> Path | None:
        return None

    def guard_lock(self, stream: str) -> None:
        return None

    def append(self, event: NewEvent) -> int:
        with self._database_lock:
            self._check_open()
            stored = StoredEvent(event.stream, event.version, event.tag, event.body)
            positions = self.insert_events([stored])
            assert positions is not None
            if event.fold is not None:
                self._folds.setdefault(event.stream, {})[event.fold.version] = event.fold
            return positions[0]

    def append_exclusively(self, stream: str, after: int, build: Callable[[Sequence[StreamRow]], NewEvent]) -> int:
        with self._database_lock:
            return self.append(build(self.rows(stream, after)))

    def rows(self, stream: str, after: int = 0, upto: int | None = None) -> Sequence[StreamRow]:
        after = max(after, 0)
        with self._database_lock:
            self._check_open()
            index = self._stored_events_index.get(stream, {})
            last = len(index) if upto is None else min(upto, len(index))
            found = [(index[version] + 1, version) for version in range(after + 1, last + 1)]
            events = self._stored_events
            return [
                StreamRow(position, version, events[position - 1].topic, events[position - 1].state)
                for position, version in found
            ]

    def log(self, after: int, limit: int) -> Sequence[LogRow]:
        after = max(after, 0)
        with self._database_lock:
            self._check_open()
            found = self._stored_events[after : after + limit]
        return [
            LogRow(position, str(event.originator_id), event.originator_version, event.topic, event.state)
            for position, event in enumerate(found, after + 1)
        ]

    def last_position(self) -> int:
        self._check_open()
        return self.max_notification_id() or 0

    def last_version(self, stream: str) -> int:
        with self._database_lock:
            self._check_open()
            return len(self._stored_events_index.get(stream, {}))

    def streams(self) -> Sequence[str]:
        with self._database_lock:
            self._check_open()
            return sorted(stream for stream, index in self._stored_events_index.items() if index)

    def streams_after(self, stream: str, limit: int) -> Sequence[str]:
        return [following for following in self.streams() if following > stream][:limit]

    def change_token(self) -> int:
        self._check_open()
        return len(self._stored_events)

    def stored_fold(self, stream: str, fold: int, upto: int | None = None) -> StoredFold | None:
        with self._database_lock:
            folds = [
                stored
                for stored in self._folds.get(stream, {}).values()
                if stored.fold == fold and (upto is None or stored.version <= upto)
            ]
        return max(folds, default=None)

    def stored_folds(self) -> Iterable[tuple[str, StoredFold]]:
        with self._database_lock:
            return [(stream, fold) for stream, folds in self._folds.items() for fold in folds.values()]

    def defects(self) -> Sequence[Defect]:
        self._check_open()
        return []

    def close(self) -> None:
        self._closed = True
