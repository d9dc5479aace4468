"""What all agents share, and the rules that watch it: what the random and the exhaustive runs have in common."""

from collections.abc import Sequence
from dataclasses import dataclass

from simulation.agents import CODEC, Machine, Process, Task
from simulation.authorization_server import AuthorizationServer, age_of
from simulation.ports import SharedLog, SharedStore, fields_of
from simulation.rules import Rules

from ledger.events import Holder
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.recorders.base import NewEvent
from ledger.stores.base import TokenStore
from ledger.tokens import PersistedTokens


class RuleBroken(AssertionError):
    """A run has done what may not be; the first argument says what."""


class Crashed(BaseException):
    """Raised in the middle of a step of a process that is no more."""


@dataclass(frozen=True, slots=True)
class Trace:
    """What happened, one line each, for people; kept only when asked for."""

    lines: list[str]

    def add(self, now_s: float, who: str, what: str) -> None:
        """One more line."""
        self.lines.append(f"{now_s:9.3f}  {who:<14} {what}")


class World:
    """Ledger, stores, server, guards, processes and rules, at one moment."""

    def __init__(
        self, *, reuse_revokes: bool, swaps_atomically: bool, places: Sequence[str | None], trace: Trace | None
    ) -> None:
        self.now_s = 0.0
        self.trace = trace
        self.server = AuthorizationServer(reuse_revokes=reuse_revokes)
        self.rules = Rules(self.server, has_one_store=len(places) == 1)
        self.log = SharedLog("ledger", self)
        self.stores = [SharedStore(self, swaps_atomically=swaps_atomically, place=place) for place in places]
        self.machines: list[Machine] = []
        self.processes: dict[str, Process] = {}
        self.guards: dict[LeaseKey, Task] = {}
        self.current: Task | None = None
        self._observer = LeaseLedger(self.log, clock=lambda: 0, actor="observer", codec=CODEC)

    def now(self) -> float:
        """Virtual time, in seconds."""
        return self.now_s

    def tell(self, who: str, what: str) -> None:
        """A line of the trace."""
        if self.trace is not None:
            self.trace.add(self.now_s, who, what)

    def start_process(self, machine: Machine) -> Process:
        """A new process on a machine."""
        process = Process(f"p{len(self.processes) + 1}", machine, self.log, self.now)
        self.processes[process.name] = process
        return process

    def kill(self, process: Process, why: str = "crashes") -> None:
        """A process vanishes; guards die with their holder."""
        self.tell(process.name, why)
        process.alive = False
        self.rules.crashed(process)
        for task in process.tasks:
            task.drop()
        process.tasks.clear()

    def is_gone(self, here: Machine, holder: Holder) -> bool:
        """Whether a process on this machine can prove that the holder runs no more."""
        process = self.processes[holder.instance]
        return process.machine is here and not process.alive

    def guard_is_free(self, key: LeaseKey) -> bool:
        """Whether nobody holds the login guard."""
        holder = self.guards.get(key)
        return holder is None or key not in holder.guards

    def log_observer(self) -> LeaseLedger:
        """A ledger object of nobody's, to look with."""
        return self._observer

    def use_log(self, log: SharedLog) -> None:
        """Go on with another log, such as an older copy."""
        self.log = log
        self._observer = LeaseLedger(log, clock=lambda: 0, actor="observer", codec=CODEC)

    def check(self) -> None:
        """Stop at the first broken rule."""
        if self.rules.broken:
            self.tell("rules", f"BROKEN: {self.rules.broken[0]}")
            raise RuleBroken(self.rules.broken[0])

    # What the shared things tell

    def reach(self, point: str) -> None:
        """A place to fail; here nothing does."""

    def saw_ledger(self) -> None:
        if self.current is not None:
            call = self.current.call
            call.saw_version = self.rules.lease(call.key).version

    def appended(self, event: NewEvent) -> None:
        task = self.current
        assert task is not None
        fields = fields_of(event.body)
        if self.trace is not None:
            shown = {name: value for name, value in fields.items() if name not in _NOT_SHOWN}
            self.tell(task.call.name, f"records {event.stream} {event.version} {event.tag} {shown}")
        self.rules.appended(event.stream, event.version, event.tag, fields, task.call, self.now_s)
        self._compare(event.stream)

    def _compare(self, stream: str) -> None:
        current, self.current = self.current, None
        state = self._observer.state(LeaseKey.parse(stream))
        self.current = current
        now = self.rules.lease(stream).now
        shown = (state.credential_present, state.published_by, None if state.attempt is None else state.attempt.id)
        self.rules.expect(shown == (now.live, now.event, now.open), f"the ledger shows {shown}, its events say {now}")
        self.rules.expect(
            now.event in self.rules.lease(stream).published if now.live else state.phase is None,
            f"the ledger shows {state.phase} without a credential that it published",
        )

    def saved(self, store: TokenStore, key: LeaseKey, before: PersistedTokens | None, after: PersistedTokens) -> None:
        task = self.current
        assert task is not None
        if self.trace is not None:
            self.tell(task.call.name, f"has saved {age_of(after)} over {None if before is None else age_of(before)}")
        self.rules.saved(store, key, before, after, task.call)

    def cleared(self, store: TokenStore, key: LeaseKey, before: PersistedTokens | None) -> None:
        task = self.current
        assert task is not None
        if self.trace is not None:
            self.tell(task.call.name, f"has cleared {None if before is None else age_of(before)}")
        self.rules.cleared(store, key, before, task.call)


_NOT_SHOWN = frozenset({"at", "actor", "prev", "holder", "fingerprint", "id", "published_at", "refreshed_at"})
