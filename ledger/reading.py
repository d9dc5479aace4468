"""Reading events back: one stream, the whole log, or one event by its id."""

from collections.abc import Iterator
from typing import Final

import msgspec

from ledger.codec import UNREADABLE, EventCodec
from ledger.errors import CorruptHistory, UnknownEventTag
from ledger.events import LeaseEvent
from ledger.heads import decode_row
from ledger.keys import IdentityError, LeaseKey
from ledger.recorders.base import LeaseRecorder, StreamRow

__all__ = ["RecordedEvent", "find_event", "lease_of", "read_log", "read_stream", "rows_newest_first"]

LOG_PAGE: Final = 500
STREAM_PAGE: Final = 512


class RecordedEvent(msgspec.Struct, frozen=True, gc=False):
    """An event and where it stands.

    Attributes:
        position: Its place in the whole log, counted from 1 without gaps.
        key: The lease.
        version: Its place in the lease's stream, counted from 1 without gaps.
        event: What happened.
    """

    position: int
    key: LeaseKey
    version: int
    event: LeaseEvent


def read_stream(recorder: LeaseRecorder, codec: EventCodec, key: LeaseKey, after: int) -> Iterator[RecordedEvent]:
    """One stream's events after version ``after``, page by page: no transaction stays open between them."""
    stream = str(key)
    after = max(after, 0)
    while True:
        rows = recorder.rows(stream, after, after + STREAM_PAGE)
        for row in rows:
            yield RecordedEvent(row.position, key, row.version, decode_row(codec, stream, row))
        if len(rows) < STREAM_PAGE:
            return
        after = rows[-1].version


def lease_of(stream: str, version: int = 1) -> LeaseKey:
    """The lease that a stored stream belongs to.

    Args:
        stream: The stream's id.
        version: Of which event it was read.

    Raises:
        CorruptHistory: No lease has such an id.
    """
    try:
        return LeaseKey.parse(stream)
    except IdentityError as error:
        raise CorruptHistory(stream, version, f"its stream is no lease ({error})") from error


def read_log(recorder: LeaseRecorder, codec: EventCodec, after: int, *, skip_unknown: bool) -> Iterator[RecordedEvent]:
    """The whole log after position ``after``, page by page: no transaction stays open between them."""
    keys: dict[str, LeaseKey] = {}
    decoders = codec.decoders
    while True:
        page = recorder.log(after, LOG_PAGE)
        for position, stream, version, tag, body in page:
            key = keys.get(stream)
            if key is None:
                key = keys[stream] = lease_of(stream, version)
            try:
                event = decoders[tag](body) if tag in decoders else codec.decode(tag, body)
            except UnknownEventTag:
                if skip_unknown:
                    continue
                raise
            except UNREADABLE as error:
                raise CorruptHistory(stream, version, f"its body cannot be read ({error})") from error
            yield RecordedEvent(position, key, version, event)
        if len(page) < LOG_PAGE:
            return
        after = page[-1][0]


def rows_newest_first(recorder: LeaseRecorder, stream: str, upto: int | None = None) -> Iterator[StreamRow]:
    """One stream's stored rows from version ``upto`` (``None``: the newest) back to the first."""
    last = recorder.last_version(stream) if upto is None else upto
    while last > 0:
        yield from reversed(recorder.rows(stream, max(last - STREAM_PAGE, 0), last))
        last -= STREAM_PAGE


def find_event(recorder: LeaseRecorder, codec: EventCodec, key: LeaseKey, event_id: str) -> RecordedEvent | None:
    """The stream's event with that id, looked for from the newest back."""
    stream = str(key)
    needle = event_id.encode()
    for row in rows_newest_first(recorder, stream):
        if needle in row.body:
            event = decode_row(codec, stream, row)
            if event.id == event_id:
                return RecordedEvent(row.position, key, row.version, event)
    return None
