"""The fold behind the audit file: the whole log, in order, into readable rows and the current state of each lease."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec

from ledger.chain import event_digest, roll
from ledger.codec import EventCodec
from ledger.errors import CorruptHistory
from ledger.events import LeaseEvent
from ledger.heads import decode_row
from ledger.keys import IdentityError, LeaseKey
from ledger.recorders.base import LogRow, StreamRow
from ledger.state import EMPTY_STATE, LeaseState, evolve
from projections.audit_rows import LastEvent, event_row, lease_row

__all__ = ["LogFold"]

KEPT_LEASES: Final = 50_000
"""Leases held in memory between pages; one is about a kilobyte."""


class LogFold:
    """Goes on from a position, page by page.

    Args:
        ledger_id: Id of the ledger whose log it is; part of every digest.
        position: The last position already folded.
        rolling: Rolling digest up to there.
        last_digest: Digest of the event there.
        stored_state: Finds the state of a stream as of ``position``; ``None`` for a stream without events.
    """

    def __init__(
        self,
        ledger_id: str,
        position: int,
        rolling: str,
        last_digest: str,
        stored_state: Callable[[str], LeaseState | None],
    ) -> None:
        self.ledger_id = ledger_id
        self.position = position
        self.rolling = rolling
        self.last_digest = last_digest
        self._stored_state = stored_state
        self._codec = EventCodec()
        self._leases: dict[str, tuple[LeaseKey, LeaseState]] = {}
        self._changed: dict[str, LastEvent] = {}

    def event_rows(self, page: Sequence[LogRow]) -> Iterator[tuple[Any, ...]]:
        """The row of each event of the page; with each one asked for, the fold has taken in all before it.

        Raises:
            CorruptHistory: An event does not follow from those before it, or cannot be read.
            UnknownEventTag: A newer version wrote it.
        """
        self._load(page)
        leases = self._leases
        for stored in page:
            row = LogRow._make(stored)
            key, state = leases[row.stream]
            event = self._decoded(row)
            if row.position != self.position + 1 or row.version != state.version + 1:
                raise _gap(row, self.position, state.version)
            state = evolve(state, event, row.stream)
            digest = event_digest(self.ledger_id, row.stream, row.version, row.tag, row.body)
            yield event_row(row, key, event, state, digest)
            leases[row.stream] = key, state
            self._changed[row.stream] = LastEvent(row.position, row.tag, event.actor, event.at)
            self.position, self.last_digest = row.position, digest
            self.rolling = roll(self.rolling, row.position, digest)

    def lease_rows(self) -> Iterator[tuple[Any, ...]]:
        """The row of each lease that changed since this was last asked."""
        changed, self._changed = self._changed, {}
        for stream, last in changed.items():
            key, state = self._leases[stream]
            yield lease_row(stream, key, state, last)
        if len(self._leases) > KEPT_LEASES:
            self._leases.clear()

    def _load(self, page: Sequence[LogRow]) -> None:
        for _, stream, version, _, _ in page:
            if stream in self._leases:
                continue
            try:
                key = LeaseKey.parse(stream)
            except IdentityError as error:
                raise CorruptHistory(stream, version, str(error)) from error
            self._leases[stream] = key, self._stored_state(stream) or EMPTY_STATE

    def _decoded(self, row: LogRow) -> LeaseEvent:
        try:
            return self._codec.decoders[row.tag](row.body)
        except (KeyError, msgspec.MsgspecError):
            # The slow way knows retired tags, and says what is wrong.
            stored = StreamRow(row.position, row.version, row.tag, row.body)
            return decode_row(self._codec, row.stream, stored)


def _gap(row: LogRow, position: int, version: int) -> CorruptHistory:
    if row.position != position + 1:
        detail = f"position {row.position} follows {position}: events were removed"
    else:
        detail = f"it follows version {version}: events are missing or out of order"
    return CorruptHistory(row.stream, row.version, detail)
