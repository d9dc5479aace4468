"""Re-verification from scratch: everything the log promises, checked event by event, and which witness saw a fault."""

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from ledger.chain import EMPTY_ROLL, event_digest, fold_digest, genesis_digest, roll
from ledger.codec import UNREADABLE, EventCodec
from ledger.errors import CorruptHistory, LedgerStorageError, UnknownEventTag
from ledger.reading import lease_of
from ledger.recorders.base import LeaseRecorder, LogRow, StoredFold
from ledger.recorders.stored_rows import is_whole_fold
from ledger.salvage import Gap, rows_and_gaps
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
            ``storage`` (its schema, pages or indexes), ``checkpoint`` (a kept one) or ``audit`` (the audit file).
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


def log_pages(recorder: LeaseRecorder, after: int = 0) -> Iterator[LogRow]:
    """Every stored row after a position, in order.

    Raises:
        CorruptHistory: A row's columns hold what no event has.
        LedgerStorageError: The storage could not be read.
    """
    while True:
        page = recorder.log(after, PAGE)
        for row in page:
            yield LogRow._make(row)
        if len(page) < PAGE:
            return
        after = page[-1][0]


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
        self._seen_since_gap: set[str] | None = None
        self._take_folds(recorder)

    def report(self, witness: str, detail: str, row: LogRow | None = None, name: str | None = None) -> None:
        if row is None:
            self.findings.append(Finding(witness, detail, object_name=name))
        else:
            self.findings.append(Finding(witness, detail, row.position, row.stream, row.version, name))

    def skip(self, gap: Gap) -> None:
        error = gap.error
        if isinstance(error, CorruptHistory):
            key = error.stream if _is_lease(error.stream) else None
            self.findings.append(Finding("body", error.detail, gap.first, key, error.version or None))
        else:
            upto = "" if gap.last == gap.first else f" to {gap.last}"
            detail = f"what is stored at position {gap.first}{upto} cannot be read: {error}"
            self.findings.append(Finding("storage", detail, gap.first, object_name="stored_events"))
        self.position = gap.last
        self._seen_since_gap = set()

    def take(self, row: LogRow) -> None:
        if row.position != self.position + 1:
            self.report("order", f"position {row.position} follows {self.position}: events were removed", row)
        head = self.heads.get(row.stream)
        before = head.version if head else 0
        # What a gap swallowed is told once: whether a stream's first event behind it follows cannot be known.
        follows_gap = row.version > before + 1 and self._is_first_since_gap(row.stream)
        if row.version != before + 1 and not follows_gap:
            self.report("order", f"version {row.version} follows {before}: events are missing or out of order", row)
        if head is None:
            self._check_stream(row)
        prev = head.digest if head else genesis_digest(self.ledger_id, row.stream)
        self._check_event(row, None if follows_gap else prev)
        digest = event_digest(self.ledger_id, row.stream, row.version, row.tag, row.body)
        self._check_fold(row, digest)
        self.position, self.rolling = row.position, roll(self.rolling, row.position, digest)
        self.heads[row.stream] = StreamHead(row.version, digest)

    def finish(self) -> None:
        for stream, folds in self.folds.items():
            for version in folds:
                self._report_fold(f"a fold is stored for {stream} at version {version}, which holds no event", stream)

    def _is_first_since_gap(self, stream: str) -> bool:
        if self._seen_since_gap is None or stream in self._seen_since_gap:
            return False
        self._seen_since_gap.add(stream)
        return True

    def _take_folds(self, recorder: LeaseRecorder) -> None:
        try:
            stored = recorder.stored_folds()
        except LedgerStorageError as error:
            self._report_fold(f"the stored folds cannot be read: {error}", None)
            return
        for stream, fold in stored:
            if isinstance(stream, str) and is_whole_fold(fold):
                self.folds.setdefault(stream, {})[fold.version] = fold
            else:
                self._report_fold("a stored fold's columns hold what no fold has; empty stored_folds", stream)

    def _report_fold(self, detail: str, stream: object) -> None:
        key = stream if isinstance(stream, str) else None
        self.findings.append(Finding("fold", detail, key=key, object_name="stored_folds"))

    def _check_stream(self, row: LogRow) -> None:
        try:
            lease_of(row.stream, row.version)
        except CorruptHistory as error:
            self.report("body", error.detail, row)

    def _check_event(self, row: LogRow, prev: str | None) -> None:
        state = self.states.get(row.stream, EMPTY_STATE)
        self.states[row.stream] = None
        try:
            # What no field is read from goes unchecked by the codec.
            row.body.decode()
            event = self.codec.decode(row.tag, row.body)
        except (UnknownEventTag, *UNREADABLE) as error:
            self.report("body", str(error), row)
            return
        if prev is None:
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
        if fold is None or state is None:
            return
        if not 1 <= fold.fold <= FOLD_VERSION:
            detail = f"the stored fold is by fold code {fold.fold}, which is not known here; empty stored_folds"
            self.report("fold", detail, row, "stored_folds")
            return
        # What older fold code computed is void, and not computed here; it still has to be of this event.
        is_other = fold.fold == FOLD_VERSION and fold.state != _encode_state(state)
        if is_other or fold.digest != fold_digest(digest, fold.state):
            detail = "the stored fold is not what the events fold to; empty stored_folds"
            self.report("fold", detail, row, "stored_folds")


def _is_lease(stream: str) -> bool:
    try:
        lease_of(stream)
    except CorruptHistory:
        return False
    return True


def verify_log(recorder: LeaseRecorder, codec: EventCodec, against: Checkpoint | None) -> Verification:
    """Check a whole ledger, and against a kept checkpoint when one is given."""
    defects = recorder.defects()
    walk = _Walk(recorder, codec)
    for defect in defects:
        walk.findings.append(
            Finding("storage", defect.detail, defect.position, defect.key, defect.version, defect.object_name)
        )
    kept = _KeptWitness(against) if against else None
    for found in rows_and_gaps(recorder):
        if isinstance(found, Gap):
            walk.skip(found)
            continue
        walk.take(found)
        if kept:
            kept.take(found, walk)
    if kept:
        kept.finish(walk)
    walk.finish()
    checkpoint = Checkpoint(recorder.ledger_id, walk.position, walk.rolling, walk.heads)
    witnesses = ("chain", *(("checkpoint",) if against else ()))
    return Verification(tuple(walk.findings[:MOST_FINDINGS]), checkpoint, witnesses)


class _KeptWitness:
    """A kept checkpoint, held against the log while it is walked."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._kept = checkpoint
        self._named = False
        self._differing: LogRow | None = None

    def take(self, row: LogRow, walk: _Walk) -> None:
        kept = self._kept
        head = kept.heads.get(row.stream)
        if head and row.version == head.version and walk.heads[row.stream].digest != head.digest:
            self._named = True
            walk.report("checkpoint", "the kept checkpoint names another event here: this one was changed", row)
        if row.position == kept.position and walk.rolling != kept.digest:
            self._differing = row

    def finish(self, walk: _Walk) -> None:
        kept = self._kept
        if kept.ledger_id != walk.ledger_id:
            walk.report("checkpoint", f"the kept checkpoint is of another ledger ({kept.ledger_id})")
            return
        missing = [
            (stream, head.version)
            for stream, head in kept.heads.items()
            if stream not in walk.heads or walk.heads[stream].version < head.version
        ]
        if walk.position < kept.position:
            key, version = missing[0] if missing else (None, None)
            detail = (
                f"the kept checkpoint covers {kept.position} events, the ledger holds {walk.position}: "
                f"the last events are gone{_ends(missing, walk)}"
            )
            walk.findings.append(Finding("checkpoint", detail, key=key, version=version))
            return
        for key, version in missing:
            detail = "the kept checkpoint names this event, which the ledger does not hold"
            walk.findings.append(Finding("checkpoint", detail, key=key, version=version))
        if self._differing is not None and not self._named and not missing:
            walk.report("checkpoint", "up to here the log is not the one the kept checkpoint covers", self._differing)


def _ends(missing: list[tuple[str, int]], walk: _Walk) -> str:
    ends = [f"{key} after version {walk.heads[key].version if key in walk.heads else 0}" for key, _ in missing[:3]]
    return f" ({', '.join(ends)})" if ends else ""
