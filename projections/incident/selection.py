"""Choosing an incident: which stretch of which streams it is about."""

from collections.abc import Iterable, Iterator
from typing import Final

from ledger.chain import event_digest, genesis_digest
from ledger.codec import EventCodec
from ledger.errors import LeaseLedgerError
from ledger.heads import decode_row
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.reading import RecordedEvent
from ledger.recorders.base import LogRow, StreamRow
from ledger.verification import log_pages
from projections.incident.bundle import FORMAT, Bundle, BundledEvent, BundledStream, Edge, Selection, seal
from projections.incident.commanding import attempt_of
from projections.time_travel.streams import LedgerStreams

__all__ = ["NothingSelected", "select"]

_PAGE: Final = 512

_Range = tuple[int, int]
"""The versions of a stretch: after the first, up to the second."""


class NothingSelected(LeaseLedgerError, LookupError):
    """No event answers the selection.

    Attributes:
        selection: What was asked for.
    """

    def __init__(self, selection: Selection) -> None:
        super().__init__(selection)
        self.selection = selection

    def __str__(self) -> str:
        return "no event answers the selection; widen the time range, or check key, correlation id and attempt"


def select(ledger: LeaseLedger, selection: Selection) -> Bundle:
    """The chosen events as a bundle.

    Every stream's stretch is without gaps, so that it can be replayed: what lies between two chosen events of a lease
    comes along. A correlation id or an attempt without a key is looked for in the whole log.

    Raises:
        IdentityError: A key is none.
        NothingSelected: No event answers.
        CorruptHistory: An event contradicts those before it, or cannot be read.
        LedgerStorageError: The ledger cannot be read.
    """
    streams = LedgerStreams(ledger)
    ranges = dict(_ranges(ledger, streams, selection))
    if not ranges:
        raise NothingSelected(selection)
    bundled = [_bundled(ledger, key, *ranges[key]) for key in sorted(ranges, key=str)]
    events = sorted((event for _, found in bundled for event in found), key=lambda event: event.position)
    judged_at_ms = ledger.clock() if selection.until_ms is None else selection.until_ms
    return seal(
        Bundle(FORMAT, ledger.ledger_id, judged_at_ms, selection, tuple(stream for stream, _ in bundled), tuple(events))
    )


def _ranges(ledger: LeaseLedger, streams: LedgerStreams, selection: Selection) -> Iterator[tuple[LeaseKey, _Range]]:
    keys = [LeaseKey.parse(key) for key in selection.keys]
    found: Iterable[tuple[LeaseKey, _Range]]
    if selection.attempt is not None:
        found = _of_attempt(ledger, streams, keys, selection.attempt)
    elif selection.correlation_id is not None:
        found = _of_correlation(ledger, keys, selection.correlation_id)
    else:
        found = ((key, (0, streams.last_version(key))) for key in keys or ledger.keys())
    for key, (first, last) in found:
        since, until = selection.since_ms, selection.until_ms
        after = first if since is None else max(first, streams.times.version_at(key, since - 1))
        upto = last if until is None else min(last, streams.times.version_at(key, until))
        if after < upto:
            yield key, (after, upto)


def _rows(ledger: LeaseLedger, keys: list[LeaseKey]) -> Iterator[LogRow]:
    """The stored rows of some streams, or of the whole log."""
    if not keys:
        yield from log_pages(ledger.recorder)
        return
    for key in keys:
        after = 0
        while page := ledger.recorder.rows(str(key), after, after + _PAGE):
            for row in page:
                yield LogRow(row.position, str(key), row.version, row.tag, row.body)
            after = page[-1].version


def _naming(ledger: LeaseLedger, keys: list[LeaseKey], text: str) -> Iterator[RecordedEvent]:
    """The events in whose stored bytes a text occurs."""
    codec, needle = EventCodec(), text.encode()
    for row in _rows(ledger, keys):
        if needle in row.body:
            stored = StreamRow(row.position, row.version, row.tag, row.body)
            event = decode_row(codec, row.stream, stored)
            yield RecordedEvent(row.position, LeaseKey.parse(row.stream), row.version, event)


def _of_correlation(
    ledger: LeaseLedger, keys: list[LeaseKey], correlation_id: str
) -> Iterable[tuple[LeaseKey, _Range]]:
    found: dict[LeaseKey, _Range] = {}
    for recorded in _naming(ledger, keys, correlation_id):
        if recorded.event.correlation_id == correlation_id:
            after, _ = found.get(recorded.key, (recorded.version - 1, 0))
            found[recorded.key] = (after, recorded.version)
    return found.items()


def _of_attempt(
    ledger: LeaseLedger, streams: LedgerStreams, keys: list[LeaseKey], attempt: str
) -> Iterator[tuple[LeaseKey, _Range]]:
    """From the publication whose tokens the attempt spent to the last event that names it."""
    naming = [recorded for recorded in _naming(ledger, keys, attempt) if attempt_of(recorded.event) == attempt]
    if not naming:
        return
    key, started = naming[0].key, naming[0].version
    published_by = streams.state(key, started).published_by
    publication = None if published_by is None else streams.find(key, published_by)
    after = started - 1 if publication is None else min(publication.version, started) - 1
    yield key, (after, naming[-1].version)


def _bundled(ledger: LeaseLedger, key: LeaseKey, after: int, upto: int) -> tuple[BundledStream, list[BundledEvent]]:
    stream = str(key)
    digest = genesis_digest(ledger.ledger_id, stream)
    if after:
        (row,) = ledger.recorder.rows(stream, after - 1, after)
        digest = event_digest(ledger.ledger_id, stream, row.version, row.tag, row.body)
    before = Edge(after, digest, ledger.state(key, after))
    events: list[BundledEvent] = []
    for row in ledger.recorder.rows(stream, after, upto):
        prev, digest = digest, event_digest(ledger.ledger_id, stream, row.version, row.tag, row.body)
        body = row.body.decode()
        events.append(BundledEvent(row.position, stream, row.version, row.tag, body, prev, digest))
    return BundledStream(stream, before, Edge(upto, digest, ledger.state(key, upto))), events
