"""The ledger: commands that each become one event or a refusal, and questions that the events answer."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Final, Self

from ledger.arguments import (
    attempt_end,
    check_code,
    check_seconds,
    check_snapshot,
    check_text,
    check_u64,
    expiry_from_argument,
)
from ledger.codec import EventCodec
from ledger.commands import (
    Acquire,
    BeginRefresh,
    CompleteRefresh,
    FailRefresh,
    MarkExpiring,
    MarkReauthRequired,
    Publication,
    Release,
    ReleaseCredentialLifecycle,
)
from ledger.decide import next_publication_at_ms
from ledger.events import AttemptEnd, LeaseAcquired, LeaseRefreshed
from ledger.execution import CommandExecutor
from ledger.fingerprint import Fingerprinter, load_fingerprint_key
from ledger.handle import AuthLeaseHandle, RefreshAttempt
from ledger.heads import StreamHeads
from ledger.holder import describe_actor, this_process
from ledger.keys import LeaseKey
from ledger.opening import open_recorder
from ledger.reading import RecordedEvent, find_event, lease_of, read_log, read_stream
from ledger.recorders.base import LeaseRecorder
from ledger.restoring import restore_command
from ledger.snapshot import MAX_U64, AuthLeaseSnapshot, AuthLeaseTransition
from ledger.state import LeaseState
from ledger.threads import uninterrupted
from ledger.verification import Checkpoint, Verification, take_checkpoint, verify_log

__all__ = ["LeaseLedger"]

DEFAULT_REFRESH_DURATION_MS: Final = 60_000

_KEYS_AT_ONCE: Final = 1_000


def _system_clock_ms() -> int:
    return time.time_ns() // 1_000_000


def _random_id() -> str:
    return os.urandom(16).hex()


class LeaseLedger(AuthLeaseHandle):
    """A durable ledger of auth leases. Open one with :meth:`open`; share it between threads.

    Every accepted command is one event, acknowledged only when it is stored; every refusal raises and records
    nothing. Nothing is ever changed or removed.

    Attributes:
        ledger_id: Random id of this ledger.
        recorder: The event log beneath, which the storage library's own tools can read too.
        actor: Who this ledger object's events name.
    """

    def __init__(
        self,
        recorder: LeaseRecorder,
        *,
        clock: Callable[[], int] | None = None,
        actor: str | None = None,
        new_id: Callable[[], str] | None = None,
        codec: EventCodec | None = None,
    ) -> None:
        self.recorder = recorder
        self.ledger_id: str = recorder.ledger_id
        self.clock: Callable[[], int] = clock or _system_clock_ms
        self.actor: str = check_text("actor", actor) or describe_actor()
        self._new_id = new_id or _random_id
        self._instance = os.urandom(8).hex()
        self._codec = codec or EventCodec()
        self._heads = StreamHeads(recorder, self._codec)
        self._executor = CommandExecutor(recorder, self._codec, self._heads, self.clock, self._new_id, self.actor)
        self._fingerprinter: Fingerprinter | None = None

    @classmethod
    def open(
        cls,
        url: str,
        *,
        clock: Callable[[], int] | None = None,
        actor: str | None = None,
        new_id: Callable[[], str] | None = None,
    ) -> Self:
        """Open a ledger, creating it when it does not exist. Many processes may do so at once.

        Args:
            url: ``sqlite:///relative.db`` or ``sqlite:////absolute.db``, optionally with ``?synchronous=normal``
                (an acknowledged event then survives the process but perhaps not a power loss) and ``share=group`` (a
                new file is made for the group of its folder too, 0660, and so is all beside it; else for its owner
                alone);
                ``postgresql://user@host/database`` for many machines, optionally with ``?schema=name`` and
                ``create=no`` (leave making the tables to ``lease-ledger init``); ``memory://`` for tests.
            clock: Returns epoch milliseconds; the system clock by default. The ledger reads time from nothing else.
            actor: Who acts, as one short text; user, host and process by default.
            new_id: Returns a new event id, at least 96 random bits; from the operating system by default.

        Raises:
            ValueError: The URL names no storage known here, or ``actor`` is too long or no text that can be stored.
            LedgerStorageError: The storage cannot be opened.
            NotALedger: It holds something else, a ledger damaged so that it does not say whose it is, or one that needs
                a newer version.
        """
        # Before anything is opened, or made, that nobody would close.
        actor = check_text("actor", actor)
        return cls(open_recorder(url, _random_id()), clock=clock, actor=actor, new_id=new_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<LeaseLedger {self.ledger_id} as {self.actor!r}>"

    def close(self) -> None:
        """Give up the connections. What was acknowledged is stored already."""
        self.recorder.close()

    def acquire_lease(
        self,
        key: LeaseKey,
        expires_at: int,
        *,
        publication: Publication | None = None,
        attempt: str | None = None,
        store: str | None = None,
        cause: str | None = None,
        correlation_id: str | None = None,
    ) -> AuthLeaseTransition:
        """Publish a credential from a login. Overrides whatever the lease was, an open refresh included.

        Args:
            key: The lease.
            expires_at: Epoch seconds; ``NEVER_EXPIRES`` for never. Not compared with any clock.
            publication: The publication to record, when tokens were marked with it before; from
                :meth:`plan_publication`.
            attempt: The superseded attempt whose late response this is.
            store: Digest of the place the tokens are about to be saved in.
            cause: Why, for the history. Never put a secret here.
            correlation_id: What to file the event under.

        Raises:
            ValueError: ``expires_at`` is no integer from 0 to 2^64-1.
            LeaseTransitionError: A given ``publication`` is not the next one any more.
            LedgerStorageError: The event could not be stored.
        """
        command = Acquire(
            expiry_from_argument(expires_at), publication, check_text("attempt", attempt), check_code("store", store)
        )
        return self._publish(key, command, publication, cause, correlation_id)

    def mark_expiring(self, key: LeaseKey, *, cause: str | None = None, correlation_id: str | None = None) -> None:
        """Say that a valid credential is about to expire.

        Raises:
            LeaseTransitionError: The lease is not valid, or there is none.
            LedgerStorageError: The event could not be stored.
        """
        self._executor.execute(key, MarkExpiring(), cause=cause, correlation_id=correlation_id)

    def begin_refresh(
        self,
        key: LeaseKey,
        *,
        duration_ms: int = DEFAULT_REFRESH_DURATION_MS,
        fingerprint: str | None = None,
        at_version: int | None = None,
        cause: str | None = None,
        correlation_id: str | None = None,
    ) -> RefreshAttempt:
        """Win the right to refresh: of all processes that ask, exactly one gets it. No lock is held afterwards.

        Args:
            key: The lease.
            duration_ms: How long the attempt may take before others may take it over.
            fingerprint: Keyed fingerprint (:meth:`fingerprint`) of the refresh token about to be spent.
            at_version: The stream version the caller decided on; refused when anything came after it, so that
                nobody refreshes what somebody else just did.
            cause: Why, for the history.
            correlation_id: What to file the event under.

        An interrupted call closes the attempt it may have begun.

        Raises:
            LeaseTransitionError: Another attempt is open, only a person can go on, or there is no lease.
            LedgerStorageError: The event could not be stored.
        """
        command = BeginRefresh(
            check_u64("duration_ms", duration_ms),
            this_process(self._instance),
            check_code("fingerprint", fingerprint),
            at_version,
        )
        attempt = self._new_id()
        try:
            event, state = self._executor.execute(
                key, command, event_id=attempt, cause=cause, correlation_id=correlation_id
            )
            return RefreshAttempt(event.id, key, state.version, event.at, duration_ms)
        except Exception:
            raise
        except BaseException:
            # Whoever was interrupted has no attempt in hand to close it with.
            with contextlib.suppress(Exception):
                uninterrupted(lambda: self._close_interrupted(key, attempt))
            raise

    def _close_interrupted(self, key: LeaseKey, attempt: str) -> None:
        state = self.state(key)
        if state.attempt is not None and state.attempt.id == attempt:
            self.refresh_failed(key, False, attempt=attempt, ended=AttemptEnd.INTERRUPTED, at_version=state.version)

    def complete_refresh(
        self,
        key: LeaseKey,
        new_expires_at: int,
        now: int,
        attempt: RefreshAttempt | str | None = None,
        *,
        publication: Publication | None = None,
        recovered: bool = False,
        cause: str | None = None,
        correlation_id: str | None = None,
    ) -> AuthLeaseTransition:
        """Publish what a refresh brought. Only the open attempt may.

        Args:
            key: The lease.
            new_expires_at: Epoch seconds; ``NEVER_EXPIRES`` for never.
            now: When the refresh succeeded, epoch seconds.
            attempt: The attempt, or its id; ``None`` for the one this ledger object has open itself.
            publication: The publication the saved tokens were marked with; from :meth:`plan_publication`.
            recovered: Whether this finishes what a crash left, from the stored tokens' marker.
            cause: Why, for the history.
            correlation_id: What to file the event under.

        Raises:
            ValueError: A time is no integer from 0 to 2^64-1.
            LeaseTransitionError: The attempt is not open any more (somebody took over, logged in or logged out).
            LedgerStorageError: The event could not be stored.
        """
        command = CompleteRefresh(
            expiry_from_argument(new_expires_at, "new_expires_at"),
            check_u64("now", now),
            self._instance,
            _attempt_id(attempt),
            publication,
            recovered,
        )
        return self._publish(key, command, publication, cause, correlation_id)

    def refresh_failed(
        self,
        key: LeaseKey,
        permanent: bool,
        *,
        attempt: RefreshAttempt | str | None = None,
        error: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
        abandoned: bool = False,
        at_version: int | None = None,
        ended: AttemptEnd | str | None = None,
        cause: str | None = None,
        correlation_id: str | None = None,
    ) -> None:
        """Close an attempt without a credential. Permanent: only a person can go on; else it may be tried again.

        Args:
            key: The lease.
            permanent: Whether the server refused for good.
            attempt: The attempt, or its id; ``None`` for the one this ledger object has open itself.
            error: OAuth error code, or an exception's class name; never an exception's text.
            status: HTTP status.
            retry_after: Seconds the server asked to wait.
            abandoned: Whether somebody other than the holder closes it, to take over.
            at_version: The stream version the caller decided on; refused when anything came after it.
            ended: How it ended, as far as the caller knows: ``not_sent`` (no request left; the refresh token is
                unspent), ``unanswered`` (sent or maybe sent, outcome unknown), ``answered`` (the server refuses),
                ``unusable`` (the answer holds no tokens to publish), ``other_account`` (it holds another account's),
                ``not_saved`` (new tokens exist, in the caller's hands only), ``interrupted`` (an interrupt or a
                cancellation ended it before anything was sent), ``abandoned`` (somebody other than its holder
                closes it; goes with ``abandoned=True``, each implying the other). ``None``: not said.
            cause: Why, for the history.
            correlation_id: What to file the event under.

        Raises:
            ValueError: ``error`` looks like free text, a number is out of range, or ``ended`` is no value of
                :class:`AttemptEnd` or contradicts ``abandoned``.
            LeaseTransitionError: The attempt is not open any more.
            LedgerStorageError: The event could not be stored.
        """
        how_it_ended = attempt_end(ended, abandoned)
        command = FailRefresh(
            bool(permanent),
            self._instance,
            _attempt_id(attempt),
            check_code("error", error),
            None if status is None else check_u64("status", status),
            check_seconds("retry_after", retry_after),
            how_it_ended is AttemptEnd.ABANDONED,
            at_version,
            how_it_ended,
        )
        self._executor.execute(key, command, cause=cause, correlation_id=correlation_id)

    def mark_reauth_required(
        self,
        key: LeaseKey,
        *,
        reason: str | None = None,
        cause: str | None = None,
        correlation_id: str | None = None,
    ) -> None:
        """Say that only a person can go on. ``reason`` is read by people; never put a secret there.

        Raises:
            LeaseTransitionError: That is so already, or there is no lease.
            LedgerStorageError: The event could not be stored.
        """
        command = MarkReauthRequired(check_text("reason", reason))
        self._executor.execute(key, command, cause=cause, correlation_id=correlation_id)

    def release_lease(self, key: LeaseKey, *, cause: str | None = None, correlation_id: str | None = None) -> None:
        """Give the lease up. Accepted also when there is none: logging out twice is not an error.

        Raises:
            LedgerStorageError: The event could not be stored.
        """
        self._executor.execute(key, Release(), cause=cause, correlation_id=correlation_id)

    def release_credential_lifecycle(
        self, key: LeaseKey, *, cause: str | None = None, correlation_id: str | None = None
    ) -> None:
        """Give the credential up, as a step of a login that could not be finished.

        Raises:
            LedgerStorageError: The event could not be stored.
        """
        self._executor.execute(key, ReleaseCredentialLifecycle(), cause=cause, correlation_id=correlation_id)

    def restore_auth_lifecycle_snapshot(
        self,
        key: LeaseKey,
        snapshot: AuthLeaseSnapshot,
        expires_at: int | None = None,
        *,
        compensates: int | None = None,
        cause: str | None = None,
        correlation_id: str | None = None,
    ) -> None:
        """Put an earlier state back in force, as one recorded event. The generation never goes down.

        A snapshot that this ledger took brings back the event that had published it and the attempt that was open.

        Args:
            key: The lease.
            snapshot: The state to bring back; one without a live credential clears the lease.
            expires_at: Epoch seconds (``NEVER_EXPIRES``: never); ``None`` takes the snapshot's own expiry.
            compensates: Stream version of the event this undoes; ``snapshot.undoes`` by default. Refused when
                anything came after that event.
            cause: Why, for the history.
            correlation_id: What to file the event under.

        Raises:
            ValueError: A number is no integer from 0 to 2^64-1.
            LeaseTransitionError: Something came after the event to undo; the newer state wins.
            LedgerStorageError: The event could not be stored.
        """
        check_snapshot(snapshot)
        chosen = snapshot.expires_at if expires_at is None else expires_at
        expiry = None if chosen is None else expiry_from_argument(chosen)
        undone = snapshot.undoes if compensates is None else compensates
        command = restore_command(self._heads, self.recorder, self._codec, key, snapshot, expiry, undone)
        self._executor.execute(key, command, cause=cause, correlation_id=correlation_id)

    def snapshot(self, key: LeaseKey) -> AuthLeaseSnapshot:
        """The lease as it is now, other processes' events included.

        Raises:
            CorruptHistory: The lease's events contradict each other.
            UnknownEventTag: A newer version wrote one of them.
            LedgerStorageError: The storage could not be read.
        """
        return self._heads.current(key).snapshot()

    def state(self, key: LeaseKey, version: int | None = None) -> LeaseState:
        """All that the lease's events say, open attempt and latest failure included; raises as :meth:`snapshot`.

        Args:
            key: The lease.
            version: As of this stream version; ``None`` for now.
        """
        return self._heads.current(key).state if version is None else self._heads.state_at(key, version)

    def read(self, key: LeaseKey, after: int = 0) -> Iterator[RecordedEvent]:
        """The events of one lease with a version greater than ``after``, in order; raises as :meth:`snapshot`."""
        return read_stream(self.recorder, self._codec, key, after)

    def read_all(self, after: int = 0, *, skip_unknown: bool = False) -> Iterator[RecordedEvent]:
        """The events of all leases with a position greater than ``after``, in order; raises as :meth:`snapshot`.

        Args:
            after: The last position already read.
            skip_unknown: Leave out events that a newer version wrote instead of raising.
        """
        return read_log(self.recorder, self._codec, after, skip_unknown=skip_unknown)

    def find(self, key: LeaseKey, event_id: str) -> RecordedEvent | None:
        """The event with that id in the lease's stream, looked for from the newest back."""
        return find_event(self.recorder, self._codec, key, event_id)

    def keys(self) -> Sequence[LeaseKey]:
        """Every key that ever had an event, sorted by its text.

        Raises:
            CorruptHistory: A stream of events is no lease's.
            LedgerStorageError: The storage could not be read.
        """
        return [lease_of(stream) for stream in self.recorder.streams()]

    def each_key(self) -> Iterator[LeaseKey]:
        """The same one after another, for ledgers of more keys than one wants to hold; raises as :meth:`snapshot`.

        A key that gets its first event meanwhile may be among them or not.
        """
        last = ""
        while page := self.recorder.streams_after(last, _KEYS_AT_ONCE):
            yield from map(LeaseKey.parse, page)
            last = page[-1]

    def verify(self, against: Checkpoint | None = None) -> Verification:
        """Check everything from scratch: order, chain, readability, legality, stored folds, schema, pages, indexes.

        What cannot be read is a finding, and the check goes on behind it.

        Args:
            against: A checkpoint kept elsewhere. It also covers the last event of every stream, which nothing in
                the ledger itself can.

        Raises:
            LedgerStorageError: The storage cannot be reached at all.
        """
        return verify_log(self.recorder, self._codec, against)

    def checkpoint(self) -> Checkpoint:
        """A witness of everything recorded so far; keep it where the ledger's writers cannot reach it.

        Raises:
            CorruptHistory: An event is stored as no event is; :meth:`verify` shows the extent.
            LedgerStorageError: The storage could not be read.
        """
        return take_checkpoint(self.recorder)

    def plan_publication(self, key: LeaseKey) -> Publication:
        """Choose the next publication's event id, generation and time, so that tokens can be marked with them first."""
        state = self._heads.current(key).state
        return Publication(
            self._new_id(), min(state.generation + 1, MAX_U64), next_publication_at_ms(state, self.clock())
        )

    def owns(self, state: LeaseState) -> bool:
        """Whether the open attempt of ``state`` was begun by this ledger object."""
        return state.attempt is not None and state.attempt.holder.instance == self._instance

    def fingerprint(self, secret: str) -> str:
        """The keyed fingerprint of a secret.

        The key comes from the environment (``LEASE_LEDGER_FINGERPRINT_KEY``, or ``..._FILE``), else from a 0600 file
        beside the ledger, made on first use.

        Raises:
            LedgerStorageError: The key cannot be read or made.
        """
        if self._fingerprinter is None:
            key_file = self.recorder.sidecar("fingerprint-key")
            self._fingerprinter = Fingerprinter(load_fingerprint_key(key_file, self.recorder.access))
        return self._fingerprinter.fingerprint(secret)

    def _publish(
        self,
        key: LeaseKey,
        command: Acquire | CompleteRefresh,
        publication: Publication | None,
        cause: str | None,
        correlation_id: str | None,
    ) -> AuthLeaseTransition:
        event_id = None if publication is None else publication.event_id
        event, state = self._executor.execute(
            key, command, event_id=event_id, cause=cause, correlation_id=correlation_id
        )
        assert isinstance(event, LeaseAcquired | LeaseRefreshed)
        return AuthLeaseTransition(event.generation, event.published_at, event.id, event.attempt, state.version)


def _attempt_id(attempt: RefreshAttempt | str | None) -> str | None:
    return check_text("attempt", attempt.id if isinstance(attempt, RefreshAttempt) else attempt)
