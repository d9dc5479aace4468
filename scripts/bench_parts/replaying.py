"""Replay: every event through ``read_all``, against a raw fetch of the same rows that decodes them with msgspec."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec

from bench_parts.measuring import Ratio, compare, seconds_of, speed_ratio
from bench_parts.transitions import STREAM, record_streams
from ledger.events import EVENT_TYPES
from ledger.lease_ledger import LeaseLedger

__all__ = ["replay_ratio"]

TARGET = 0.75


def _through_the_ledger(ledger: LeaseLedger) -> None:
    for _ in ledger.read_all():
        pass


def _raw(connection: sqlite3.Connection) -> None:
    decoders = {kind.tag: msgspec.json.Decoder(kind).decode for kind in EVENT_TYPES}
    query = "SELECT rowid, originator_id, originator_version, topic, state FROM stored_events ORDER BY rowid"
    for _position, _stream, _version, tag, body in connection.execute(query):
        decoders[tag](body)


def replay_ratio(folder: Path, streams: int, rounds: int) -> Iterator[Ratio]:
    """Compare the replay of a ledger of so many streams."""
    path = folder / "replay.db"
    url = f"sqlite:///{path}?synchronous=normal"
    events = streams * STREAM
    with LeaseLedger.open(url, actor="agent-7@build-host pid 4242") as ledger, closing(sqlite3.connect(path)) as raw:
        record_streams(ledger, streams)
        taken = compare(
            {
                "ledger": lambda _: seconds_of(lambda: _through_the_ledger(ledger)) / events,
                "raw": lambda _: seconds_of(lambda: _raw(raw)) / events,
            },
            rounds,
        )
    label = f"replay of {events:,} events"
    yield speed_ratio(label, taken["ledger"], "raw fetch and msgspec decode", taken["raw"], TARGET)
