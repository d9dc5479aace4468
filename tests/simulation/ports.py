"""What agents share, with a place to fail, to crash or to let others run before and after every operation."""

import builtins
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from ledger.keys import LeaseKey
from ledger.recorders.base import NewEvent, StreamRow
from ledger.recorders.memory import MemoryLeaseRecorder
from ledger.stores.base import ANY, Expectation, TokenStore, refuse_unless_expected
from ledger.stores.memory import MemoryTokenStore
from ledger.tokens import PersistedTokens


class Watcher(Protocol):
    """Who is told of every operation, and may raise there."""

    def reach(self, point: str) -> None:
        """An operation is about to happen, or has just happened."""

    def saw_ledger(self) -> None:
        """The ledger is being read, now."""

    def appended(self, event: NewEvent) -> None:
        """An event is in the log."""

    def saved(self, store: TokenStore, key: LeaseKey, before: PersistedTokens | None, after: PersistedTokens) -> None:
        """Tokens are in place."""

    def cleared(self, store: TokenStore, key: LeaseKey, before: PersistedTokens | None) -> None:
        """Tokens are gone."""


class SharedLog(MemoryLeaseRecorder):
    """The ledger's log, shared by all processes."""

    def __init__(self, ledger_id: str, watcher: Watcher) -> None:
        super().__init__(ledger_id)
        self._watcher = watcher
        self._exclusive = False

    def append(self, event: NewEvent) -> int:
        self._watcher.reach("append")
        position = super().append(event)
        self._watcher.appended(event)
        self._watcher.reach("appended")
        return position

    def append_exclusively(self, stream: str, after: int, build: Callable[[Sequence[StreamRow]], NewEvent]) -> int:
        self._watcher.reach("append")
        self._exclusive = True
        try:
            event = build(self.rows(stream, after))
        finally:
            self._exclusive = False
        position = super().append(event)
        self._watcher.appended(event)
        self._watcher.reach("appended")
        return position

    def rows(self, stream: str, after: int = 0, upto: int | None = None) -> Sequence[StreamRow]:
        if not self._exclusive:
            self._watcher.reach("read ledger")
        self._watcher.saw_ledger()
        return super().rows(stream, after, upto)

    def change_token(self) -> int:
        self._watcher.reach("read ledger")
        self._watcher.saw_ledger()
        return super().change_token()

    def copy(self) -> "SharedLog":
        """The log as it is now, as a backup would keep it."""
        copy = SharedLog(self.ledger_id, self._watcher)
        copy.insert_events(list(self._stored_events))
        copy._folds = {stream: dict(folds) for stream, folds in self._folds.items()}
        return copy


class SharedStore(TokenStore):
    """A token store that can fail, before and after its bytes are in place.

    Args:
        watcher: Who is told.
        swaps_atomically: Whether compare and swap are one operation, or others may come in between.
        place: Where it is, for a store that can tell.
    """

    def __init__(self, watcher: Watcher, *, swaps_atomically: bool, place: str | None) -> None:
        self.place = place
        self.inner = MemoryTokenStore()
        self._watcher = watcher
        self._swaps_atomically = swaps_atomically

    @property
    def backend_name(self) -> str:
        return "simulated"

    @property
    def location(self) -> str | None:
        return self.place

    def load(self, key: LeaseKey) -> PersistedTokens | None:
        self._watcher.reach("load")
        return self.inner.load(key)

    def save(self, key: LeaseKey, tokens: PersistedTokens, *, expect: Expectation = ANY) -> None:
        self._watcher.reach("save")
        expect = self._compared(key, expect)
        before = self.inner.load(key)
        self.inner.save(key, tokens, expect=expect)
        self._watcher.saved(self, key, before, tokens)
        self._watcher.reach("saved")

    def clear(self, key: LeaseKey, *, expect: Expectation = ANY) -> None:
        self._watcher.reach("clear")
        expect = self._compared(key, expect)
        before = self.inner.load(key)
        self.inner.clear(key, expect=expect)
        self._watcher.cleared(self, key, before)
        self._watcher.reach("cleared")

    def _compared(self, key: LeaseKey, expect: Expectation) -> Expectation:
        if self._swaps_atomically or expect is ANY:
            return expect
        refuse_unless_expected(key, expect, lambda: self.inner.load(key))
        self._watcher.reach("swap")
        return ANY

    def list(self) -> builtins.list[LeaseKey]:
        return self.inner.list()


fields_of = msgspec.json.Decoder(dict).decode
"""The fields of an event's body, for readers that do not take the ledger's word for their meaning."""
