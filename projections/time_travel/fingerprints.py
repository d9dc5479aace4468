"""Which attempts carry a refresh token's fingerprint, under any key."""

from collections.abc import Iterator
from typing import Final, Protocol

from sqlite_utils import Database

from ledger.codec import EventCodec
from ledger.events import LeaseRefreshStarted
from ledger.heads import decode_row
from ledger.keys import LeaseKey
from ledger.recorders.base import LeaseRecorder, StreamRow
from ledger.verification import log_pages
from projections.audit_schema import EVENTS

__all__ = ["AuditFingerprints", "Fingerprints", "LoggedFingerprints"]

_HOLDING: Final = f"""
    SELECT key, version FROM {EVENTS} INDEXED BY events_by_fingerprint
    WHERE fingerprint = ? ORDER BY position"""  # noqa: S608  # constants only


class Fingerprints(Protocol):
    """Finds the events that began the attempts carrying a fingerprint."""

    def starts(self, fingerprint: str) -> Iterator[tuple[LeaseKey, int]]:
        """Key and version of each, in the order of the log."""
        ...


class AuditFingerprints:
    """By index, from a caught-up audit file.

    Args:
        db: The audit file, in a read transaction.
    """

    def __init__(self, db: Database) -> None:
        self._db = db

    def starts(self, fingerprint: str) -> Iterator[tuple[LeaseKey, int]]:
        """Key and version of each, in the order of the log."""
        for key, version in self._db.execute(_HOLDING, (fingerprint,)).fetchall():
            yield LeaseKey.parse(key), version


class LoggedFingerprints:
    """By reading a whole log: exact anywhere, and slower the longer it is.

    Args:
        recorder: Where the log is.
    """

    def __init__(self, recorder: LeaseRecorder) -> None:
        self._recorder = recorder
        self._codec = EventCodec()

    def starts(self, fingerprint: str) -> Iterator[tuple[LeaseKey, int]]:
        """Key and version of each, in the order of the log."""
        needle = fingerprint.encode()
        for row in log_pages(self._recorder):
            if row.tag != LeaseRefreshStarted.tag or needle not in row.body:
                continue
            event = decode_row(self._codec, row.stream, StreamRow(row.position, row.version, row.tag, row.body))
            if isinstance(event, LeaseRefreshStarted) and event.fingerprint == fingerprint:
                yield LeaseKey.parse(row.stream), row.version
