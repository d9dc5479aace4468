"""Faults on demand: wrappers that fail, kill or pause at a chosen call, around things that are otherwise real."""

import builtins
import os
import secrets
import signal
import threading
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ledger.handle import AuthLeaseHandle, RefreshAttempt
from ledger.keys import LeaseKey
from ledger.recorders.base import NewEvent, StreamRow
from ledger.recorders.sqlite import SQLiteLeaseRecorder
from ledger.snapshot import AuthLeaseSnapshot, AuthLeaseTransition
from ledger.stores.base import ANY, Expectation, TokenStore
from ledger.tokens import PersistedTokens

Action = Callable[[], object]


class EveryCall:
    """All calls, however many."""

    def __contains__(self, call: object) -> bool:
        return True


EVERY = EveryCall()


def failing(error: BaseException) -> Action:
    """Raises that error."""

    def fail() -> None:
        raise error

    return fail


def die() -> None:
    """End this process as a crash would: nothing more of it runs."""
    os.kill(os.getpid(), signal.SIGKILL)


class Faults:
    """What happens before and after chosen calls, counted from 1 for each method."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self._plans: list[tuple[str, str, Container[object], Action]] = []
        self._counting = threading.Lock()

    def before(self, method: str, action: Action, calls: Container[object] = EVERY) -> None:
        """Have the action run before those calls; when it raises, the call is not made."""
        self._plans.append(("before", method, calls, action))

    def after(self, method: str, action: Action, calls: Container[object] = EVERY) -> None:
        """Have the action run after those calls; when it raises, the call was made all the same."""
        self._plans.append(("after", method, calls, action))

    def forget(self) -> None:
        """No more faults."""
        self._plans.clear()

    @contextmanager
    def around(self, method: str) -> Iterator[None]:
        """One call of a method."""
        with self._counting:
            self.calls[method] += 1
            call = self.calls[method]
        self._play("before", method, call)
        yield
        self._play("after", method, call)

    def _play(self, when: str, method: str, call: int) -> None:
        for planned_when, planned_method, calls, action in list(self._plans):
            if (planned_when, planned_method) == (when, method) and call in calls:
                action()


class FaultyStore(TokenStore):
    """A token store with faults before and after its methods."""

    def __init__(self, inner: TokenStore, faults: Faults | None = None) -> None:
        self.inner = inner
        self.faults = faults or Faults()

    @property
    def backend_name(self) -> str:
        return self.inner.backend_name

    @property
    def location(self) -> str | None:
        return self.inner.location

    def load(self, key: LeaseKey) -> PersistedTokens | None:
        with self.faults.around("load"):
            return self.inner.load(key)

    def save(self, key: LeaseKey, tokens: PersistedTokens, *, expect: Expectation = ANY) -> None:
        with self.faults.around("save"):
            self.inner.save(key, tokens, expect=expect)

    def clear(self, key: LeaseKey, *, expect: Expectation = ANY) -> None:
        with self.faults.around("clear"):
            self.inner.clear(key, expect=expect)

    def list(self) -> builtins.list[LeaseKey]:
        with self.faults.around("list"):
            return self.inner.list()


class FaultyHandle(AuthLeaseHandle):
    """A lease handle with faults before and after its methods."""

    def __init__(self, inner: AuthLeaseHandle, faults: Faults | None = None) -> None:
        self.inner = inner
        self.faults = faults or Faults()

    def acquire_lease(self, key: LeaseKey, expires_at: int) -> AuthLeaseTransition:
        with self.faults.around("acquire_lease"):
            return self.inner.acquire_lease(key, expires_at)

    def mark_expiring(self, key: LeaseKey) -> None:
        with self.faults.around("mark_expiring"):
            self.inner.mark_expiring(key)

    def begin_refresh(self, key: LeaseKey) -> RefreshAttempt | None:
        with self.faults.around("begin_refresh"):
            return self.inner.begin_refresh(key)

    def complete_refresh(
        self, key: LeaseKey, new_expires_at: int, now: int, attempt: RefreshAttempt | str | None = None
    ) -> AuthLeaseTransition:
        with self.faults.around("complete_refresh"):
            return self.inner.complete_refresh(key, new_expires_at, now, attempt)

    def refresh_failed(self, key: LeaseKey, permanent: bool) -> None:
        with self.faults.around("refresh_failed"):
            self.inner.refresh_failed(key, permanent)

    def mark_reauth_required(self, key: LeaseKey) -> None:
        with self.faults.around("mark_reauth_required"):
            self.inner.mark_reauth_required(key)

    def release_lease(self, key: LeaseKey) -> None:
        with self.faults.around("release_lease"):
            self.inner.release_lease(key)

    def snapshot(self, key: LeaseKey) -> AuthLeaseSnapshot:
        with self.faults.around("snapshot"):
            return self.inner.snapshot(key)

    def restore_auth_lifecycle_snapshot(
        self, key: LeaseKey, snapshot: AuthLeaseSnapshot, expires_at: int | None = None
    ) -> None:
        with self.faults.around("restore"):
            self.inner.restore_auth_lifecycle_snapshot(key, snapshot, expires_at)


class FaultyRecorder(SQLiteLeaseRecorder):
    """A SQLite ledger's log, with faults before and after it appends or is asked for news (``change_token``)."""

    def __init__(self, path: Path, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        super().__init__(path, new_ledger_id=secrets.token_hex(16))

    def append(self, event: NewEvent) -> int:
        with self.faults.around("append"):
            return super().append(event)

    def append_exclusively(self, stream: str, after: int, build: Callable[[Sequence[StreamRow]], NewEvent]) -> int:
        with self.faults.around("append"):
            return super().append_exclusively(stream, after, build)

    def change_token(self) -> int:
        with self.faults.around("change_token"):
            return super().change_token()
