"""What a snapshot to restore says beyond its own fields: who had published it, and which attempt was open."""

from ledger.codec import EventCodec
from ledger.commands import Restore
from ledger.events import LeaseAcquired, LeaseRefreshed, OpenAttempt
from ledger.heads import StreamHeads, decode_row
from ledger.keys import LeaseKey
from ledger.reading import rows_newest_first
from ledger.recorders.base import LeaseRecorder
from ledger.snapshot import AuthLeaseSnapshot
from ledger.state import snapshot_of

__all__ = ["restore_command"]


def restore_command(
    heads: StreamHeads,
    recorder: LeaseRecorder,
    codec: EventCodec,
    key: LeaseKey,
    snapshot: AuthLeaseSnapshot,
    expires_at: int | None,
    compensates: int | None,
) -> Restore:
    """The command that brings a snapshot back, with what this stream knows about the moment it was taken.

    A version that belongs to another stream's or another ledger's snapshot shows in that the state there differs; the
    snapshot then counts as one nobody here has taken.
    """
    captured_at: int | None = None
    attempt: OpenAttempt | None = None
    published_by: str | None = None
    if snapshot.version is not None:
        state = heads.state_at(key, snapshot.version)
        if state.version == snapshot.version and snapshot_of(state) == snapshot:
            captured_at, attempt, published_by = state.version, state.attempt, state.published_by
    if captured_at is None and snapshot.is_live:
        published_by = _publisher(recorder, codec, str(key), snapshot)
    return Restore(
        phase=snapshot.phase,
        expires_at=expires_at,
        credential_present=snapshot.credential_present,
        generation=snapshot.generation,
        published_at=snapshot.credential_published_at_millis,
        published_by=published_by,
        attempt=attempt,
        captured_at_version=captured_at,
        compensates=compensates,
    )


def _publisher(recorder: LeaseRecorder, codec: EventCodec, stream: str, snapshot: AuthLeaseSnapshot) -> str | None:
    # Publication times of a stream only grow, so one of them names its event and the search can stop below it.
    sought = snapshot.credential_published_at_millis
    if sought is None:
        return None
    for row in rows_newest_first(recorder, stream):
        event = decode_row(codec, stream, row)
        if isinstance(event, LeaseAcquired | LeaseRefreshed) and event.published_at <= sought:
            return event.id if (event.published_at, event.generation) == (sought, snapshot.generation) else None
    return None
