"""The head of each stream: its folded state and the digest of its last event, kept fresh without refolding.

A head in the cache is never wrong, at most behind: when anything was committed since it was read, only the
stream's new events are fetched and folded onto it. Long streams start from a stored fold.
"""

import contextlib
from collections.abc import Sequence
from typing import Final

import msgspec

from ledger.chain import event_digest, fold_digest, genesis_digest
from ledger.codec import UNREADABLE, EventCodec
from ledger.errors import CorruptHistory
from ledger.events import LeaseEvent
from ledger.keys import LeaseKey
from ledger.recorders.base import UNKNOWN_CHANGES, LeaseRecorder, StoredFold, StreamRow
from ledger.snapshot import AuthLeaseSnapshot
from ledger.state import EMPTY_STATE, FOLD_VERSION, LeaseState, evolve, snapshot_of

__all__ = ["Head", "StreamHeads", "decode_row"]

FOLD_EVERY: Final = 32
"""A fold is stored with every so-manieth event of a stream: the most a first read has to fold."""

CACHED_HEADS: Final = 16_384
"""Heads kept; the oldest go first. One is about a kilobyte."""

_encode_state = msgspec.json.Encoder().encode
_decode_state = msgspec.json.Decoder(LeaseState).decode


def decode_row(codec: EventCodec, stream: str, row: StreamRow) -> LeaseEvent:
    """The event of a stored row.

    Raises:
        UnknownEventTag: A newer version wrote it.
        CorruptHistory: The stored bytes are no event.
    """
    try:
        return codec.decode(row.tag, row.body)
    except UNREADABLE as error:
        raise CorruptHistory(stream, row.version, f"its body cannot be read ({error})") from error


class Head:
    """A stream as of its last event known here."""

    __slots__ = ("_snapshot", "digest", "state", "token")

    def __init__(self, state: LeaseState, digest: str, token: int) -> None:
        self.state = state
        self.digest = digest
        self.token = token
        self._snapshot: AuthLeaseSnapshot | None = None

    def snapshot(self) -> AuthLeaseSnapshot:
        """The public view of the state, made once."""
        if self._snapshot is None:
            self._snapshot = snapshot_of(self.state)
        return self._snapshot


class StreamHeads:
    """Loads, keeps and advances stream heads. Safe to share between threads."""

    def __init__(self, recorder: LeaseRecorder, codec: EventCodec) -> None:
        self._recorder = recorder
        self._codec = codec
        self._heads: dict[LeaseKey, Head] = {}

    def known(self, key: LeaseKey) -> Head:
        """A head that may be behind: good enough to try an append at its version."""
        return self._heads.get(key) or self.load(key)

    def current(self, key: LeaseKey) -> Head:
        """The head as of now, other processes' events included."""
        token = self._recorder.change_token()
        head = self._heads.get(key)
        if head is None:
            return self._load(key, token)
        if head.token == token != UNKNOWN_CHANGES:
            return head
        stream = str(key)
        return self._keep(key, self.extend(stream, head, self._recorder.rows(stream, head.state.version), token))

    def load(self, key: LeaseKey) -> Head:
        """The head folded from stored events, whatever the cache says."""
        return self._load(key, self._recorder.change_token())

    def _load(self, key: LeaseKey, token: int) -> Head:
        stream = str(key)
        base = Head(EMPTY_STATE, genesis_digest(self._recorder.ledger_id, stream), UNKNOWN_CHANGES)
        # A short stream, the usual one, has no stored fold to look for.
        rows = self._recorder.rows(stream, 0, FOLD_EVERY)
        if len(rows) == FOLD_EVERY:
            base = self._from_fold(stream, None) or base
            rows = self._recorder.rows(stream, base.state.version)
        return self._keep(key, self.extend(stream, base, rows, token))

    def state_at(self, key: LeaseKey, version: int) -> LeaseState:
        """The state after the event at ``version``."""
        stream = str(key)
        base = self._from_fold(stream, version)
        state = EMPTY_STATE if base is None else base.state
        for row in self._recorder.rows(stream, state.version, version):
            state = evolve(state, decode_row(self._codec, stream, row), stream)
        return state

    def extend(self, stream: str, head: Head, rows: Sequence[StreamRow], token: int = UNKNOWN_CHANGES) -> Head:
        """The head after more rows of its stream."""
        state = head.state
        for row in rows:
            state = evolve(state, decode_row(self._codec, stream, row), stream)
        if not rows:
            digest = head.digest
        else:
            last = rows[-1]
            digest = event_digest(self._recorder.ledger_id, stream, last.version, last.tag, last.body)
        return Head(state, digest, token)

    def advance(self, key: LeaseKey, before: Head, state: LeaseState, digest: str) -> None:
        """Keep the head that an append of this recorder's own made of ``before``.

        Its token is right only if nothing else was committed since ``before`` was read; if anything was, it equals
        no token to come, and the stream is read again.
        """
        token = UNKNOWN_CHANGES if before.token == UNKNOWN_CHANGES else before.token + 1
        self._keep(key, Head(state, digest, token))

    def fold_due(self, state: LeaseState, digest: str) -> StoredFold | None:
        """The fold to store with the event that led to ``state``, when one is due."""
        if state.version % FOLD_EVERY:
            return None
        encoded = _encode_state(state)
        return StoredFold(state.version, FOLD_VERSION, fold_digest(digest, encoded), encoded)

    def _from_fold(self, stream: str, upto: int | None) -> Head | None:
        fold = self._recorder.stored_fold(stream, FOLD_VERSION, upto)
        if fold is None:
            return None
        row = next(iter(self._recorder.rows(stream, fold.version - 1, fold.version)), None)
        if row is None:
            return None
        digest = event_digest(self._recorder.ledger_id, stream, row.version, row.tag, row.body)
        if fold.digest != fold_digest(digest, fold.state):
            return None
        try:
            state = _decode_state(fold.state)
        except UNREADABLE:
            return None
        return Head(state, digest, UNKNOWN_CHANGES) if state.version == fold.version else None

    def _keep(self, key: LeaseKey, head: Head) -> Head:
        heads = self._heads
        heads[key] = head
        while len(heads) > CACHED_HEADS:
            # Another thread may change the cache meanwhile; then it evicts as well.
            with contextlib.suppress(RuntimeError, StopIteration):
                heads.pop(next(iter(heads)), None)
        return head
