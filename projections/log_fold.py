"""The fold behind the audit file: the whole log, in order, into readable rows and the current state of each lease."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec

from ledger.chain import event_digest, roll
from ledger.codec import UNREADABLE, EventCodec
from ledger.errors import CorruptHistory
from ledger.events import LeaseEvent
from ledger.heads import decode_row
from ledger.keys import IdentityError, LeaseKey
from ledger.recorders.base import LogRow, StreamRow
from ledger.state import EMPTY_STATE, LeaseState, evolve
from projections.audit_rows import LastEvent, RowKind, event_row, lease_row

__all__ = ["KEPT_LEASES", "LogFold"]

KEPT_LEASES: Final = 20_000
"""Leases held in memory between pages; one is about a kilobyte."""


class _Lease(msgspec.Struct, gc=False):
    """A lease while its events go by: its state, the greatest time so far, and the last event with its place."""

    key: LeaseKey
    state: LeaseState
    running_at_ms: int
    position: int = 0
    tag: str = ""
    event: LeaseEvent | None = None


class LogFold:
    """Goes on from a position, page by page.

    Args:
        ledger_id: Id of the ledger whose log it is; part of every digest.
        position: The last position already folded.
        rolling: Rolling digest up to there.
        last_digest: Digest of the event there.
        stored_state: Finds the state of a stream as of ``position`` and the greatest time of its events; ``None`` for
            a stream without events.
    """

    def __init__(
        self,
        ledger_id: str,
        position: int,
        rolling: str,
        last_digest: str,
        stored_state: Callable[[str], tuple[LeaseState, int] | None],
    ) -> None:
        self.ledger_id = ledger_id
        self.position = position
        self.rolling = rolling
        self.last_digest = last_digest
        self._stored_state = stored_state
        self._codec = EventCodec()
        self._leases: dict[str, _Lease] = {}
        self._changed: dict[str, _Lease] = {}

    def event_rows(self, page: Sequence[LogRow]) -> Iterator[tuple[RowKind, tuple[Any, ...]]]:
        """Kind and row of each event of the page; with each one asked for, the fold has taken in all before it.

        Raises:
            CorruptHistory: An event does not follow from those before it, or cannot be read.
            UnknownEventTag: A newer version wrote it.
        """
        leases, changed, decoders = self._leases, self._changed, self._codec.decoders
        for stored in page:
            position, stream, version, tag, body = stored
            lease = leases.get(stream) or self._load(stream, version)
            try:
                event = decoders[tag](body)
            except (KeyError, TypeError, *UNREADABLE):
                if not isinstance(body, bytes):
                    raise CorruptHistory(stream, version, "its columns hold what no event has") from None
                # The slow way knows retired tags, and says what is wrong.
                event = decode_row(self._codec, stream, StreamRow(position, version, tag, body))
            state = lease.state
            if position != self.position + 1 or version != state.version + 1:
                raise _gap(LogRow._make(stored), self.position, state.version)
            state = evolve(state, event, stream)
            digest = event_digest(self.ledger_id, stream, version, tag, body)
            if event.at > lease.running_at_ms or version == 1:
                lease.running_at_ms = event.at
            yield event_row(stored, lease.key, event, state, digest, lease.running_at_ms)
            lease.state, lease.position, lease.tag, lease.event = state, position, tag, event
            changed[stream] = lease
            self.position, self.last_digest = position, digest
            self.rolling = roll(self.rolling, position, digest)

    def pass_over(self, row: LogRow, digest: str) -> None:
        """Leave out an event that :meth:`event_rows` raised for; later events of its stream do not follow either.

        Args:
            row: The event as stored, as far as it can be read.
            digest: Its digest; empty for what is no event.
        """
        self.position, self.last_digest = row.position, digest
        self.rolling = roll(self.rolling, row.position, digest)

    @property
    def unwritten(self) -> int:
        """How many leases changed since :meth:`lease_rows` was last asked."""
        return len(self._changed)

    def lease_rows(self) -> Iterator[tuple[Any, ...]]:
        """The row of each lease that changed since this was last asked."""
        for stream, lease in self._changed.items():
            assert lease.event is not None
            last = LastEvent(lease.position, lease.tag, lease.event.actor, lease.event.at, lease.running_at_ms)
            yield lease_row(stream, lease.key, lease.state, last)
        self._changed.clear()
        if len(self._leases) > KEPT_LEASES:
            self._leases.clear()

    def _load(self, stream: str, version: int) -> _Lease:
        try:
            key = LeaseKey.parse(stream)
        except (IdentityError, AttributeError) as error:
            # SQLite keeps any type in any column, so a row that went around the ledger may have no text here.
            raise CorruptHistory(str(stream), version, f"it names no lease ({error})") from error
        state, running_at_ms = self._stored_state(stream) or (EMPTY_STATE, 0)
        lease = self._leases[stream] = _Lease(key, state, running_at_ms)
        return lease


def _gap(row: LogRow, position: int, version: int) -> CorruptHistory:
    if row.position != position + 1:
        detail = f"position {row.position} follows {position}: events were removed"
    else:
        detail = f"it follows version {version}: events are missing or out of order"
    return CorruptHistory(row.stream, row.version, detail)
