"""The question "what was it then?", for one lease and for the whole ledger."""

from typing import Final

import msgspec
from sqlite_utils import Database

from ledger.keys import LeaseKey
from ledger.reading import RecordedEvent
from ledger.snapshot import AuthLeasePhase
from ledger.state import LeaseState
from projections.audit_schema import EVENTS, LEASES
from projections.time_travel.moments import When, resolve
from projections.time_travel.streams import Streams
from projections.typed_rows import TypedRows
from projections.wide_integers import to_column

__all__ = ["LeaseAsOf", "LeaseThen", "as_of", "leases_at"]


class LeaseAsOf(msgspec.Struct, frozen=True, omit_defaults=True):
    """One lease as it was at a moment.

    Attributes:
        key: The lease key as text.
        version: The stream version then; 0 when nothing had happened to it yet.
        state: All that its events up to there say.
        last: The last of them.
        at_ms: The time asked for, epoch milliseconds, when a time was asked for.
        clock_back_ms: By how much the last event is dated before one recorded earlier: a clock went back.
        dated_before: Versions of later events dated at or before the time asked for, which nevertheless come after it:
            somebody's clock went back. The first twenty.
    """

    key: str
    version: int
    state: LeaseState
    last: RecordedEvent | None = None
    at_ms: int | None = None
    clock_back_ms: int = 0
    dated_before: tuple[int, ...] = ()


class LeaseThen(msgspec.Struct, frozen=True):
    """One row of the whole ledger as it was at a time.

    Attributes:
        key: The lease key as text.
        phase: ``None`` when the key held no lease.
        generation: How many credentials had been published.
        expires_at: Epoch seconds; ``None`` means never.
        expires_utc: The same for people.
        credential_present: Whether the lease held a credential.
        published_at: Epoch milliseconds of the publication in force.
        published_by: Id of the event that published it, when known.
        attempt: Id of the refresh attempt that was open.
        version: Stream version of the last event then.
        position: Log position of that event.
        tag: What kind of event it was.
        actor: Who made it.
        at_ms: When, epoch milliseconds on that actor's clock.
        at_utc: The same for people.
        clock_back_ms: By how much it is dated before an event recorded earlier: a clock went back.
    """

    key: str
    phase: AuthLeasePhase | None
    generation: int
    expires_at: int | None
    expires_utc: str | None
    credential_present: bool
    published_at: int | None
    published_by: str | None
    attempt: str | None
    version: int
    position: int
    tag: str
    actor: str
    at_ms: int
    at_utc: str | None
    clock_back_ms: int


_MOST_NAMED: Final = 20

_THEN: Final = TypedRows(LeaseThen, wide=("generation", "expires_at", "published_at", "at_ms", "clock_back_ms"))

_IN_THE_FILE: Final = {
    "attempt": f"CASE WHEN e.phase = '{AuthLeasePhase.REFRESHING}' THEN e.attempt END",
    "clock_back_ms": "e.running_at_ms",
}

_COLUMNS: Final = ", ".join(_IN_THE_FILE.get(name, f"e.{name}") for name in LeaseThen.__struct_fields__)

_LEASES_AT: Final = f"""
    SELECT {_COLUMNS} FROM {LEASES} AS l CROSS JOIN {EVENTS} AS e ON e.position = (
        SELECT position FROM {EVENTS} WHERE key = l.key AND running_at_ms <= ?
        ORDER BY running_at_ms DESC, position DESC LIMIT 1
    ) WHERE l.key > ? ORDER BY l.key LIMIT ?"""  # noqa: S608  # constants only


def as_of(streams: Streams, key: LeaseKey, when: When) -> LeaseAsOf:
    """A lease as it was at a moment.

    Raises:
        ValueError: A version is negative, or a datetime names no time zone.
        NoSuchMoment: The version is beyond the lease's last.
        CorruptHistory: The lease's events contradict each other.
        UnknownEventTag: A newer version wrote one of them.
        LedgerStorageError: The storage could not be read.
    """
    moment = resolve(streams, key, when)
    version = moment.version
    last = streams.event(key, version)
    running_at_ms = streams.times.running_at_ms(key, version)
    at_ms = moment.at_ms
    return LeaseAsOf(
        key=str(key),
        version=version,
        state=streams.state(key, version),
        last=last,
        at_ms=at_ms,
        clock_back_ms=0 if last is None or running_at_ms is None else running_at_ms - last.event.at,
        dated_before=() if at_ms is None else tuple(streams.times.dated_before(key, version, at_ms, _MOST_NAMED)),
    )


def leases_at(db: Database, at_ms: int, after: str = "", limit: int = -1) -> list[LeaseThen]:
    """Every lease that had events by a time, as it was then, sorted by key. From a caught-up audit file.

    Args:
        db: The audit file, in a read transaction.
        at_ms: Epoch milliseconds.
        after: Only those whose keys come after this one.
        limit: The most leases; by default all.
    """
    rows = _THEN.read(db.execute(_LEASES_AT, (to_column(at_ms), after, limit)).fetchall())
    return [msgspec.structs.replace(row, clock_back_ms=row.clock_back_ms - row.at_ms) for row in rows]
