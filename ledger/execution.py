"""The way of a command: load, decide, append, again if somebody else was first.

Optimistic first: a command is decided on the head known here and appended at its version. When somebody else was
first, it is decided again from fresh state; the last try decides inside the write transaction, so contention never
becomes an error. A refusal is final only when it was decided on fresh state.
"""

from collections.abc import Callable, Sequence
from typing import Final

from ledger.arguments import check_body, check_text
from ledger.chain import event_digest
from ledger.codec import EventCodec
from ledger.commands import Command
from ledger.decide import Stamp, decide
from ledger.errors import LeaseTransitionError, LedgerStorageError
from ledger.events import LeaseEvent
from ledger.heads import Head, StreamHeads, decode_row
from ledger.keys import LeaseKey
from ledger.recorders.base import IntegrityError, LeaseRecorder, NewEvent, StreamRow
from ledger.state import LeaseState, evolve

__all__ = ["OPTIMISTIC_TRIES", "CommandExecutor"]

OPTIMISTIC_TRIES: Final = 4


class CommandExecutor:
    """Executes commands on one log. Safe to share between threads.

    Args:
        recorder: The log.
        codec: Encodes the events.
        heads: The streams as known here.
        clock: Returns epoch milliseconds.
        new_id: Returns a new event id.
        actor: Who the events name.
    """

    def __init__(
        self,
        recorder: LeaseRecorder,
        codec: EventCodec,
        heads: StreamHeads,
        clock: Callable[[], int],
        new_id: Callable[[], str],
        actor: str,
    ) -> None:
        self._recorder = recorder
        self._codec = codec
        self._heads = heads
        self._clock = clock
        self._new_id = new_id
        self._actor = actor

    def execute(
        self,
        key: LeaseKey,
        command: Command,
        *,
        event_id: str | None = None,
        cause: str | None = None,
        correlation_id: str | None = None,
    ) -> tuple[LeaseEvent, LeaseState]:
        """Decide on a command and append its event.

        Args:
            key: The lease.
            command: What is asked.
            event_id: Id of the event to come, when one was chosen before; a new one by default.
            cause: Why, for the history.
            correlation_id: What to file the event under.

        Returns:
            The event, and the lease's state after it.

        Raises:
            ValueError: A text is too long, cannot be encoded, or holds a NUL.
            LeaseTransitionError: Refused, on fresh state. Nothing was recorded.
            LedgerStorageError: The event could not be stored.
        """
        stamp: Stamp = {
            "id": check_text("event id", event_id) or self._new_id(),
            "at": self._clock(),
            "actor": self._actor,
            "prev": "",
            "cause": check_text("cause", cause),
            "correlation_id": check_text("correlation_id", correlation_id),
        }
        head = self._heads.known(key)
        for _ in range(OPTIMISTIC_TRIES):
            try:
                event, state, new, digest = self._decided(key, head, command, stamp)
            except LeaseTransitionError:
                fresh = self._heads.current(key)
                if fresh.state.version == head.state.version:
                    raise
                head = fresh
                continue
            try:
                self._recorder.append(new)
            except IntegrityError:
                head = self._heads.load(key)
                mine = self._already_recorded(key, new)
                if mine is not None:
                    return mine
                continue
            self._heads.advance(key, head, state, digest)
            return event, state
        return self._execute_exclusively(key, command, stamp)

    def _execute_exclusively(self, key: LeaseKey, command: Command, stamp: Stamp) -> tuple[LeaseEvent, LeaseState]:
        base = self._heads.load(key)
        decided: list[tuple[LeaseEvent, LeaseState, NewEvent, str]] = []

        def build(rows: Sequence[StreamRow]) -> NewEvent:
            decided.append(self._decided(key, self._heads.extend(str(key), base, rows), command, stamp))
            return decided[-1][2]

        try:
            self._recorder.append_exclusively(str(key), base.state.version, build)
        except IntegrityError as error:
            raise LedgerStorageError(
                f"the storage refuses the next event of {key} though nobody else could write ({error}); "
                "run 'lease-ledger verify'"
            ) from error
        event, state, _, digest = decided[-1]
        self._heads.advance(key, base, state, digest)
        return event, state

    def _decided(
        self, key: LeaseKey, head: Head, command: Command, stamp: Stamp
    ) -> tuple[LeaseEvent, LeaseState, NewEvent, str]:
        stream = str(key)
        stamp["prev"] = head.digest
        event = decide(key, head.state, command, stamp)
        state = evolve(head.state, event, stream)
        body = check_body(self._codec.encode(event))
        digest = event_digest(self._recorder.ledger_id, stream, state.version, event.tag, body)
        new = NewEvent(stream, state.version, event.tag, body, self._heads.fold_due(state, digest))
        return event, state, new, digest

    def _already_recorded(self, key: LeaseKey, new: NewEvent) -> tuple[LeaseEvent, LeaseState] | None:
        # A connection lost at commit leaves open whether the event was stored; its random id tells it from a rival's.
        rows = self._recorder.rows(new.stream, new.version - 1, new.version)
        if not rows or rows[0].body != new.body:
            return None
        return decode_row(self._codec, new.stream, rows[0]), self._heads.state_at(key, new.version)
