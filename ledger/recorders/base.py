"""What the ledger asks of an event store, beyond what the storage library's application recorder offers.

Every backend is the library's recorder for it (streams, expected versions, notification log), made append-only and
given a lean path: one row in, plain rows out.
"""

import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from eventsourcing.persistence import ApplicationRecorder, IntegrityError

from ledger.recorders.access import OWNER_ALONE, Access
from ledger.recorders.locks import GuardLock

__all__ = [
    "LARGEST_STORED",
    "LOOK_EVERY_S",
    "Defect",
    "IntegrityError",
    "LeaseRecorder",
    "LogRow",
    "NewEvent",
    "StoredFold",
    "StreamRow",
]


LOOK_EVERY_S: Final = 0.01
"""How long a waiter sleeps between two looks where nothing wakes it."""


LARGEST_STORED: Final = 2**63 - 1
"""The greatest version and the greatest position that a database keeps."""


UNKNOWN_CHANGES: Final = -1
"""Equals no change token: of a stream so marked it is not known up to where it was read."""


class StreamRow(NamedTuple):
    """One event of one stream, as stored."""

    position: int
    version: int
    tag: str
    body: bytes


class LogRow(NamedTuple):
    """One event of the whole log, as stored."""

    position: int
    stream: str
    version: int
    tag: str
    body: bytes


class StoredFold(NamedTuple):
    """A stream's state after some event: an aid to reading long streams, never an authority.

    Attributes:
        version: The stream version the state was folded to.
        fold: Version of the fold code that computed it.
        digest: Covers the event at ``version`` and the state; a fold that has another of either is void.
        state: The state as JSON.
    """

    version: int
    fold: int
    digest: str
    state: bytes


class NewEvent(NamedTuple):
    """An event to append, with the fold to store beside it, if one is due."""

    stream: str
    version: int
    tag: str
    body: bytes
    fold: StoredFold | None = None


class Defect(NamedTuple):
    """Something wrong with the storage itself.

    Attributes:
        detail: What, in a sentence.
        object_name: The table, index, view, trigger or setting at fault, when it is known.
        position: Place in the log of the event concerned, when one is.
        key: Its stream.
        version: Its place in the stream.
    """

    detail: str
    object_name: str | None = None
    position: int | None = None
    key: str | None = None
    version: int | None = None


class LeaseRecorder(ApplicationRecorder):
    """An append-only log of streams.

    Attributes:
        ledger_id: Random id of this ledger; part of every digest, so events of one prove nothing in another.
        read_only: Whether this process can only read it; appending raises LedgerStorageError.
        access: Whom files that are made beside the ledger are for.
    """

    ledger_id: str
    read_only: bool = False
    access: Access = OWNER_ALONE

    @abstractmethod
    def sidecar(self, name: str) -> Path | None:
        """The path beside the ledger of a file that belongs to it; ``None`` for a ledger that lies in no folder."""

    @abstractmethod
    def guard_lock(self, stream: str) -> GuardLock | None:
        """The stream's lock among all who share the ledger; ``None`` where one process has it alone."""

    @abstractmethod
    def append(self, event: NewEvent) -> int:
        """Append one event durably and return its position.

        Raises:
            IntegrityError: ``version`` is not the next one of the stream; nothing was written.
            LedgerStorageError: The storage failed.
        """

    @abstractmethod
    def append_exclusively(self, stream: str, after: int, build: Callable[[Sequence[StreamRow]], NewEvent]) -> int:
        """Append while no other writer can: ``build`` sees the rows after version ``after`` as they then are.

        What ``build`` raises is raised, and nothing is written.

        Raises:
            LedgerStorageError: The storage failed.
        """

    @abstractmethod
    def rows(self, stream: str, after: int = 0, upto: int | None = None) -> Sequence[StreamRow]:
        """The events of a stream with ``after < version <= upto``, in order.

        Raises:
            CorruptHistory: One is missing in between, or is stored as no event is.
            LedgerStorageError: The storage could not be read.
        """

    @abstractmethod
    def log(self, after: int, limit: int) -> Sequence[LogRow]:
        """The events after position ``after``, in order, at most ``limit``; fewer only where the log ends.

        Raises:
            CorruptHistory: One of them is stored as no event is.
            LedgerStorageError: The storage could not be read.
        """

    @abstractmethod
    def last_position(self) -> int:
        """The greatest position; 0 for an empty ledger."""

    @abstractmethod
    def last_version(self, stream: str) -> int:
        """The stream's last version; 0 for a stream without events."""

    @abstractmethod
    def streams(self) -> Sequence[str]:
        """The id of every stream, sorted.

        Raises:
            CorruptHistory: One of them is no text.
            LedgerStorageError: The storage could not be read.
        """

    @abstractmethod
    def streams_after(self, stream: str, limit: int) -> Sequence[str]:
        """The ids of the streams that sort after ``stream``, which need not be one, sorted, at most ``limit``."""

    @abstractmethod
    def change_token(self) -> int:
        """The log's last position: it grows with every event, whoever appends it. Cheap.

        So a stream that was read after the token was taken is unchanged while the token is, and a stream whose next
        event was appended right after that token is known as of the token plus one.
        """

    def wait_for_change(self, token: int, timeout_s: float) -> None:
        """Wait until something was committed after ``token`` was taken (:meth:`change_token`), or the time is over.

        May return early: whoever waits looks again. A backend that hears of others' commits returns at once then.
        """
        time.sleep(min(timeout_s, LOOK_EVERY_S))

    @abstractmethod
    def stored_fold(self, stream: str, fold: int, upto: int | None = None) -> StoredFold | None:
        """The newest fold of the stream by fold code ``fold``, at version ``upto`` or before."""

    @abstractmethod
    def stored_folds(self) -> Iterable[tuple[str, StoredFold]]:
        """Every stored fold with its stream, whatever its columns hold."""

    @abstractmethod
    def defects(self) -> Sequence[Defect]:
        """What is wrong with the storage itself: its schema is another, a page is damaged, an index leads astray."""

    @abstractmethod
    def close(self) -> None:
        """Give up connections. A closed recorder raises LedgerStorageError on use."""
