"""Re-verification from scratch: everything the log promises, checked event by event, and which witness saw a fault."""

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from ledger.chain import EMPTY_ROLL, event_digest, fold_digest, genesis_digest, roll
from ledger.codec import UNREADABLE, EventCodec
from ledger.errors import CorruptHistory, UnknownEventTag
from ledger.recorders.base import LeaseRecorder, LogRow, StoredFold
from ledger.state import EMPTY_STATE, FOLD_VERSION, LeaseState, evolve

__all__ = [
    "Checkpoint",
    "Finding",
    "StreamHead",
    "Verification",
    "log_pages",
    "take_checkpoint",
    "verify_log",
]

PAGE: Final = 2_000
MOST_FINDINGS: Final = 100

_NOT_WHOLE: Final = "its columns hold what no event has"

_encode_state = msgspec.json.Encoder().encode


class StreamHead(msgspec.Struct, frozen=True):
    """A stream's last event: its version and digest."""

    version: int
    digest: str


class Checkpoint(msgspec.Struct, frozen=True):
    """A witness of a whole ledger up to one position.

    Attributes:
        ledger_id: Whose witness it is.
        position: The last position it covers.
        digest: Rolling digest of all events up to there, in order.
        heads: The last event of every stream, so that a changed one can be named.
    """

    ledger_id: str
    position: int
    digest: str
    heads: Mapping[str, StreamHead] = {}


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that is wrong.

    Attributes:
        witness: What shows it: ``order`` (versions or positions with gaps), ``chain`` (a digest in the next event),
            ``body`` (unreadable bytes), ``legality`` (the table forbids the event), ``fold`` (a stored fold differs),
            ``storage`` (the file or its triggers), ``checkpoint`` (a kept one) or ``audit`` (the audit file).
        detail: What is wrong, in words.
        position: Place in the log of the event at fault, when one is.
        key: Its lease.
        version: Its place in the stream.
        object_name: The table, index, view, trigger or setting at fault, when one is.
    """

    witness: str
    detail: str
    position: int | None = None
    key: str | None = None
    version: int | None = None
    object_name: str | None = None


class Verification(msgspec.Struct, frozen=True):
    """The outcome of a verification.

    Attributes:
        findings: Everything found wrong, at most 100; empty when all is well.
        checkpoint: The witness of the ledger as it was read.
        witnesses: What the ledger was checked against.
    """

    findings: tuple[Finding, ...]
    checkpoint: Checkpoint
    witnesses: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


def _stored_rows(recorder: LeaseRecorder, after: int = 0) -> Iterator[LogRow]:
    while True:
        page = recorder.log(after, PAGE)
        for row in page:
            yield LogRow._make(row)
        if len(page) < PAGE:
            return
        after = page[-1][0]


def _is_whole(row: LogRow) -> bool:
    # SQLite keeps any type in any column, so a row that went around the ledger may hold anything.
    return (
        isinstance(row.stream, str)
        and isinstance(row.version, int)
        and isinstance(row.tag, str)
        and isinstance(row.body, bytes)
    )


def log_pages(recorder: LeaseRecorder, after: int = 0) -> Iterator[LogRow]:
    """Every stored row after a position, in order.

    Raises:
        CorruptHistory: A row's columns hold what no event has.
    """
    for row in _stored_rows(recorder, after):
        if not _is_whole(row):
            raise CorruptHistory(str(row.stream), row.position, f"at position {row.position}: {_NOT_WHOLE}")
        yield row


def take_checkpoint(recorder: LeaseRecorder) -> Checkpoint:
    """The witness of everything recorded so far."""
    rolling, position = EMPTY_ROLL, 0
    heads: dict[str, StreamHead] = {}
    for row in log_pages(recorder):
        digest = event_digest(recorder.ledger_id, row.stream, row.version, row.tag, row.body)
        rolling, position = roll(rolling, row.position, digest), row.position
        heads[row.stream] = StreamHead(row.version, digest)
    return Checkpoint(recorder.ledger_id, position, rolling, heads)


class _Walk:
    """One pass over the log, gathering findings."""

    def __init__(self, recorder: LeaseRecorder, codec: EventCodec) -> None:
        self.ledger_id = recorder.ledger_id
        self.codec = codec
        self.findings: list[Finding] = []
        self.position = 0
        self.rolling = EMPTY_ROLL
        self.heads: dict[str, StreamHead] = {}
        self.folds: dict[str, dict[int, StoredFold]] = {}
        self.states: dict[str, LeaseState | None] = {}
        for stream, fold in recorder.stored_folds():
            self.folds.setdefault(stream, {})[fold.version] = fold

    def report(self, witness: str, detail: str, row: LogRow | None = None) -> None:
        where = (None, None, None) if row is None else (row.position, row.stream, row.version)
        self.findings.append(Finding(witness, detail, *where))

    def skip(self, row: LogRow) -> None:
        key = row.stream if isinstance(row.stream, str) else None
        version = row.version if isinstance(row.version, int) else None
        self.findings.append(Finding("body", _NOT_WHOLE, row.position, key, version))
        self.position = row.position

    def take(self, row: LogRow) -> None:
        if row.position != self.position + 1:
            self.report("order", f"position {row.position} follows {self.position}: events were removed", row)
        head = self.heads.get(row.stream)
        before = head.version if head else 0
        if row.version != before + 1:
            self.report("order", f"version {row.version} follows {before}: events are missing or out of order", row)
        self._check_event(row, head.digest if head else genesis_digest(self.ledger_id, row.stream))
        digest = event_digest(self.ledger_id, row.stream, row.version, row.tag, row.body)
        self._check_fold(row, digest)
        self.position, self.rolling = row.position, roll(self.rolling, row.position, digest)
        self.heads[row.stream] = StreamHead(row.version, digest)

    def _check_event(self, row: LogRow, prev: str) -> None:
        state = self.states.get(row.stream, EMPTY_STATE)
        self.states[row.stream] = None
        try:
            event = self.codec.decode(row.tag, row.body)
        except (UnknownEventTag, *UNREADABLE) as error:
            self.report("body", str(error), row)
            return
        if event.prev != prev:
            self.report(
                "chain",
                f"it does not follow from the event before it: that one (version {row.version - 1}) "
                "or this one was changed, removed, inserted or swapped",
                row,
            )
        if state is None:
            return
        try:
            self.states[row.stream] = evolve(state, event, row.stream)
        except CorruptHistory as error:
            self.report("legality", error.detail, row)

    def _check_fold(self, row: LogRow, digest: str) -> None:
        fold = self.folds.get(row.stream, {}).pop(row.version, None)
        state = self.states[row.stream]
        if fold is None or state is None or fold.fold != FOLD_VERSION:
            return
        encoded = _encode_state(state)
        if fold.state != encoded or fold.digest != fold_digest(digest, encoded):
            self.report("fold", "the stored fold is not what the events fold to; empty stored_folds", row)


def verify_log(recorder: LeaseRecorder, codec: EventCodec, against: Checkpoint | None) -> Verification:
    """Check a whole ledger, and against a kept checkpoint when one is given."""
    walk = _Walk(recorder, codec)
    for defect in recorder.defects():
        walk.report("storage", defect)
    kept = _KeptWitness(against) if against else None
    for row in _stored_rows(recorder):
        if not _is_whole(row):
            walk.skip(row)
            continue
        walk.take(row)
        if kept:
            kept.take(row, walk)
    if kept:
        kept.finish(walk)
    for stream, folds in walk.folds.items():
        for version in folds:
            walk.report("fold", f"a fold is stored for {stream} at version {version}, which holds no event")
    checkpoint = Checkpoint(recorder.ledger_id, walk.position, walk.rolling, walk.heads)
    witnesses = ("chain", *(("checkpoint",) if against else ()))
    return Verification(tuple(walk.findings[:MOST_FINDINGS]), checkpoint, witnesses)


class _KeptWitness:
    """A kept checkpoint, held against the log while it is walked."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._kept = checkpoint
        self._named = False

    def take(self, row: LogRow, walk: _Walk) -> None:
        kept = self._kept
        head = kept.heads.get(row.stream)
        if head and row.version == head.version and walk.heads[row.stream].digest != head.digest:
            self._named = True
            walk.report("checkpoint", "the kept checkpoint names another event here: this one was changed", row)
        if row.position == kept.position and walk.rolling != kept.digest and not self._named:
            self._named = True
            walk.report("checkpoint", "up to here the log is not the one the kept checkpoint covers", row)

    def finish(self, walk: _Walk) -> None:
        kept = self._kept
        if kept.ledger_id != walk.ledger_id:
            walk.report("checkpoint", f"the kept checkpoint is of another ledger ({kept.ledger_id})")
            return
        if walk.position < kept.position:
            walk.report(
                "checkpoint",
                f"the kept checkpoint covers {kept.position} events, the ledger holds {walk.position}: "
                f"{_missing(kept, walk)}",
            )


def _missing(kept: Checkpoint, walk: _Walk) -> str:
    shorter = [
        f"{stream} after version {walk.heads[stream].version if stream in walk.heads else 0}"
        for stream, head in kept.heads.items()
        if stream not in walk.heads or walk.heads[stream].version < head.version
    ]
    return "the last events are gone" + (f" ({', '.join(shorter[:3])})" if shorter else "")
