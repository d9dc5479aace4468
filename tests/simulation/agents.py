"""Machines, the processes on them, and the calls they make: a protocol with the guards it holds and where it is."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from ledger.codec import EventCodec
from ledger.effects import Effect, Procedure, guarded
from ledger.events import Holder
from ledger.fingerprint import Fingerprinter
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.login import login, logout
from ledger.look import FreshRequest
from ledger.recorders.memory import MemoryLeaseRecorder
from ledger.refresh import fresh_tokens
from ledger.stores.base import TokenStore
from ledger.tokens import PersistedTokens

FINGERPRINTS = Fingerprinter(b"the same key in every process")

CODEC = EventCodec()
"""Takes longer to make than a process lives here, and keeps nothing."""

EPOCH_S = 1_000_000_000

CallKind = Literal["login", "fresh", "logout"]


@dataclass(eq=False, slots=True)
class Machine:
    """A computer: its wall clock, its monotonic clock, and the token store that its processes use."""

    name: str
    store: TokenStore
    wall_offset_s: float = 0.0
    slept_s: float = 0.0

    def wall_ms(self, now_s: float) -> int:
        """What its wall clock shows, however wrong."""
        return round((EPOCH_S + now_s + self.wall_offset_s) * 1000)

    def monotonic_s(self, now_s: float) -> float:
        """Seconds on a clock that nobody sets, and that stands still while the machine sleeps."""
        return now_s - self.slept_s


@dataclass(eq=False, slots=True)
class Call:
    """One call of ``Credentials``, as the rules see it.

    Attributes:
        attempt: The attempt it has begun last, by its id.
        saw_version: The stream version when it last read the ledger.
        sent: How often it sent a refresh token to the server.
        paused_s: How long it has paused, on its own clock.
        waited_for: The attempts it has waited for.
    """

    kind: CallKind
    key: LeaseKey
    process: "Process"
    started_s: float
    tokens: PersistedTokens | None = None
    name: str = ""
    attempt: str | None = None
    saw_version: int = 0
    sent: int = 0
    paused_s: float = 0.0
    waited_for: set[str | None] = field(default_factory=set)


class Process:
    """A process with a ledger object of its own."""

    def __init__(self, name: str, machine: Machine, log: MemoryLeaseRecorder, now: Callable[[], float]) -> None:
        self.name = name
        self.machine = machine
        self.now = now
        self.alive = True
        self.awake_at_s = 0.0
        self.ids = 0
        self.tasks: list[Task] = []
        self.last_tokens: PersistedTokens | None = None
        self.ledger = LeaseLedger(
            log,
            clock=lambda: machine.wall_ms(self.now()),
            actor=f"{name} on {machine.name}",
            new_id=self._new_id,
            codec=CODEC,
        )
        # The ledger draws these at random; here a seed decides everything.
        self.ledger._instance = name
        self.ledger._fingerprinter = FINGERPRINTS

    def _new_id(self) -> str:
        self.ids += 1
        return f"{self.name}#{self.ids}"

    def monotonic(self) -> float:
        """The machine's monotonic clock."""
        return self.machine.monotonic_s(self.now())

    def protocol(
        self,
        call: Call,
        is_gone: Callable[[Holder], bool],
        *,
        window_s: float = 0.0,
        leeway_s: float = 0.0,
        rejected: PersistedTokens | None = None,
        deadline_s: float = 1.0,
    ) -> Procedure[Any]:
        """The production protocol behind a call."""
        store = self.machine.store
        match call.kind:
            case "login":
                tokens = call.tokens
                assert tokens is not None
                return guarded(call.key, lambda: login(self.ledger, store, call.key, tokens, None, None))
            case "logout":
                return guarded(call.key, lambda: logout(self.ledger, store, call.key))
            case "fresh":
                request = FreshRequest(call.key, window_s, leeway_s, rejected, deadline_s)
                return fresh_tokens(self.ledger, store, request, monotonic=self.monotonic, is_gone=is_gone)


class Task:
    """A call being performed: its generators, one inside the other, and the effect that is due."""

    __slots__ = ("_stack", "call", "effect", "failure", "guard_since_s", "guards", "outcome", "process")

    def __init__(self, call: Call, protocol: Procedure[Any]) -> None:
        self.call = call
        self.process = call.process
        self._stack: list[tuple[Procedure[Any], LeaseKey | None]] = [(protocol, None)]
        self.guards: list[LeaseKey] = []
        self.effect: Effect | None = None
        self.outcome: Any = None
        self.failure: BaseException | None = None
        self.guard_since_s: float | None = None
        self.process.tasks.append(self)

    @property
    def is_done(self) -> bool:
        """Whether the call has come to its end."""
        return not self._stack

    def enter(self, part: Procedure[Any], key: LeaseKey) -> None:
        """Go on with a guarded part."""
        self._stack.append((part, key))
        self.guards.append(key)
        self.resume()

    def resume(self, outcome: Any = None, failure: BaseException | None = None) -> None:
        """Hand the outcome of the due effect in and get the next one, or the call's end."""
        self.effect = None
        while self._stack:
            generator, key = self._stack[-1]
            try:
                self.effect = generator.send(outcome) if failure is None else generator.throw(failure)
                return
            except StopIteration as stop:
                outcome, failure = stop.value, None
            except BaseException as error:  # the caller of the part decides
                outcome, failure = None, error
            self._stack.pop()
            if key is not None:
                self.guards.remove(key)
        self.outcome, self.failure = outcome, failure
        self.process.tasks.remove(self)

    def drop(self) -> None:
        """Vanish, as a call does whose process is killed."""
        self._stack.clear()
        self.guards.clear()
        self.effect = None
