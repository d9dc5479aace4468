"""Every interleaving and every crash of two agents on one lease, walked depth first.

A world cannot be copied in the middle of a generator, so each path is run again from its beginning by the list of its
choices. A state met before is not walked again: it is told by what all share, and by everything each agent has seen.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from simulation.agents import EPOCH_S, Call, CallKind, Machine, Process, Task
from simulation.authorization_server import age_of
from simulation.world import Crashed, RuleBroken, Trace, World

from ledger.effects import Exchange, Guarded, Pause, Revoke, Step
from ledger.keys import LeaseKey
from ledger.refresh_errors import ReauthRequired, RefreshError
from ledger.stores.base import TokenStore
from ledger.tokens import PersistedTokens

KEY = LeaseKey.parse("dev:openai:work")
DEADLINE_S = 0.2
LIFETIME_S = 1_000_000

_BEFORE = frozenset({"append", "load", "save", "clear"})


class SeenBefore(BaseException):
    """Every way on from here has been walked already."""


class WalkFailed(AssertionError):
    """A path broke a rule; the text is the path."""


@dataclass(slots=True)
class Choices:
    """The choices that lead along one path, and the ways that branch off it."""

    given: Sequence[int]
    seen: set[object]
    taken: list[int] = field(default_factory=list)
    branches: list[list[int]] = field(default_factory=list)

    def choose(self, ways: int, state: Callable[[], object]) -> int:
        """Which way to go on."""
        place = len(self.taken)
        if place < len(self.given):
            way = self.given[place]
        else:
            here = state()
            if here in self.seen:
                raise SeenBefore
            self.seen.add(here)
            self.branches.extend([*self.taken, other] for other in range(1, ways))
            way = 0
        self.taken.append(way)
        return way


class Agent:
    """A process with one call to make, what it has seen so far, and whether the server has yet to answer it."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.task: Task | None = None
        self.saw: int = 0
        self.pauses = 0
        self.answer: tuple[object, BaseException | None] | None = None
        self.is_waiting_for_server = False
        self.is_in_step = False

    def note(self, seen: object) -> None:
        """Remember what was seen: with the same memories a generator is in the same place."""
        self.saw = hash((self.saw, repr(seen)))


class PathWorld(World):
    """A world in which nothing happens but what is chosen."""

    def __init__(
        self,
        kinds: tuple[CallKind, CallKind],
        choices: Choices,
        trace: Trace | None,
        *,
        machines: int,
        splits_steps: bool,
        crashes: int,
    ) -> None:
        super().__init__(reuse_revokes=True, swaps_atomically=True, places=["store"], trace=trace)
        self.choices = choices
        self.splits_steps = splits_steps
        self.machines = [Machine(f"m{number + 1}", self.stores[0]) for number in range(machines)]
        self.is_free = False
        self.crashes_left = crashes
        self.lineages = 0
        self.inside: list[Agent] = []
        self._alone(self.start_process(self.machines[0]), "login")
        self.agents = [Agent(self.start_process(self.machines[number % machines])) for number in range(2)]
        for agent, kind in zip(self.agents, kinds, strict=True):
            agent.task = self._task(agent.process, kind, rejects=True)

    # Calls

    def _task(self, process: Process, kind: CallKind, *, rejects: bool = False) -> Task:
        call = Call(kind, KEY, process, self.now_s)
        call.name = f"{process.name}.{kind}"
        if kind == "login":
            self.lineages += 1
            call.tokens = self.server.log_in(f"L{self.lineages}", EPOCH_S + LIFETIME_S)
        stored = self.stores[0].inner.load(KEY) if rejects else None
        protocol = process.protocol(
            call, partial(self.is_gone, process.machine), rejected=stored, deadline_s=DEADLINE_S
        )
        task = Task(call, protocol)
        task.resume()
        return task

    def _alone(self, process: Process, kind: CallKind, *, rejects: bool = False) -> Task:
        agent = Agent(process)
        agent.task = self._task(process, kind, rejects=rejects)
        for _ in range(2000):
            if agent.task.is_done:
                break
            self.now_s += 0.001
            self.act(agent)
            self.check()
        self.rules.expect(agent.task.is_done, f"{agent.task.call.name} waits for ever")
        return agent.task

    # The walk

    def walk(self) -> None:
        """From here to the end of both calls, by the choices."""
        self.is_free = True
        self.rules.has_one_time = False
        while ways := list(self._ways()):
            ways[self.choices.choose(len(ways), self._state)]()
            self.check()
        self.is_free = False
        self.rules.has_one_time = True
        self._recover()

    def _ways(self) -> Iterator[Callable[[], None]]:
        for agent in self.agents:
            if agent.process.alive and agent.task is not None and not agent.task.is_done and not agent.is_in_step:
                if self._can_act(agent):
                    yield partial(self.act, agent)
                if self.crashes_left:
                    yield partial(self._crash, agent)

    def _can_act(self, agent: Agent) -> bool:
        effect = None if agent.task is None else agent.task.effect
        return not isinstance(effect, Guarded) or self.guard_is_free(effect.key)

    def _crash(self, agent: Agent) -> None:
        self.crashes_left -= 1
        self.kill(agent.process)

    def _state(self) -> object:
        stored = self.stores[0].inner.load(KEY)
        rows = tuple(row.body for row in self.log.log(0, 1000))
        guard = self.guards.get(KEY)
        return (
            rows,
            None if stored is None else stored.to_json(),
            tuple(self.server.newest.items()),
            tuple(self.server.dead),
            tuple((age, one.stored, one.in_time, one.excuse) for age, one in self.rules.rotations.items()),
            tuple(round(machine.slept_s, 3) for machine in self.machines),
            None if self.guard_is_free(KEY) or guard is None else guard.call.name,
            self.crashes_left,
            tuple(agent.process.name for agent in self.inside),
            tuple(
                (agent.saw, agent.pauses, agent.process.alive, agent.is_waiting_for_server, repr(agent.answer))
                for agent in self.agents
            ),
        )

    def reach(self, point: str) -> None:
        """In the middle of a step: go on, die, or let the other agent do something first."""
        task = self.current
        # What follows an operation is the same as what comes before the next one.
        if task is None or not self.is_free or point not in _BEFORE:
            return
        agent = next(agent for agent in self.agents if agent.process is task.process)
        agent.note(point)
        way: Callable[[], None] | None = None
        while way is not _go_on and agent.process.alive:
            ways = [_go_on]
            if self.crashes_left:
                ways.append(partial(self._crash, agent))
            if self.inside == [agent] and self.splits_steps:
                ways.extend(self._ways())
            way = ways[self.choices.choose(len(ways), self._state)]
            self.current = None
            way()
            self.current = task
        if not agent.process.alive:
            raise Crashed

    # Effects

    def act(self, agent: Agent) -> None:
        """Perform what an agent is about to do."""
        task = agent.task
        assert task is not None
        match task.effect:
            case Step(call):
                self._step(agent, task, call)
            case Pause():
                seconds = DEADLINE_S / 2
                agent.pauses += 1
                if not self.is_free:
                    self.now_s += seconds
                # Each agent has a clock of its own here, so that any two may run at any speed.
                agent.process.machine.slept_s -= seconds if self.is_free else 0.0
                task.call.paused_s += seconds
                self._resume(agent, task)
            case Exchange(tokens):
                self._exchange(agent, task, tokens)
            case Guarded(key, part):
                self.guards[key] = task
                task.enter(part(), key)
                self._ended(agent, task)
            case Revoke(tokens):
                self._revoke(task, tokens)
                self._resume(agent, task)
            case None:
                raise AssertionError("nothing is to be done")

    def _step(self, agent: Agent, task: Task, call: Callable[[], object]) -> None:
        outcome, failure = None, None
        before, self.current = self.current, task
        agent.is_in_step = True
        self.inside.append(agent)
        try:
            outcome = call()
        except Crashed:
            return
        except (SeenBefore, RuleBroken):
            raise
        except Exception as error:
            failure = error
        finally:
            self.current = before
            agent.is_in_step = False
            self.inside.pop()
        if agent.process.alive:
            self._resume(agent, task, outcome, failure)

    def _exchange(self, agent: Agent, task: Task, tokens: PersistedTokens) -> None:
        age, call = age_of(tokens), task.call
        if not agent.is_waiting_for_server:
            self.rules.sent(call, age)
            self.tell(call.name, f"sends {age}")
            agent.is_waiting_for_server = True
            if self.server.is_spent(age):
                self.rules.spent_again(call, age, call.attempt or "")
            try:
                agent.answer = (self.server.refresh(age, EPOCH_S + LIFETIME_S), None)
                self.rules.rotated(call, age, call.attempt or "")
            except RefreshError as error:
                agent.answer = (None, error)
            return
        assert agent.answer is not None
        answer, agent.answer, agent.is_waiting_for_server = agent.answer, None, False
        self.tell(call.name, "gets the answer")
        self._resume(agent, task, *answer)

    def _resume(self, agent: Agent, task: Task, outcome: object = None, failure: BaseException | None = None) -> None:
        agent.note((outcome, failure))
        task.resume(outcome, failure)
        self._ended(agent, task)

    def _ended(self, agent: Agent, task: Task) -> None:
        if not task.is_done:
            if isinstance(task.effect, Pause):
                task.call.waited_for.add(self.rules.lease(KEY).now.open)
            return
        call = task.call
        self.tell(call.name, f"ends: {task.outcome if task.failure is None else repr(task.failure)}")
        self.rules.ended(call, task.outcome, task.failure, self.now_s)
        if call.kind == "logout" and task.failure is None and task.outcome is not None:
            self._revoke(task, task.outcome)

    def _revoke(self, task: Task, tokens: PersistedTokens) -> None:
        self.rules.revoked(task.call, age_of(tokens)[0])
        self.server.revoke(age_of(tokens)[0])

    # Afterwards

    def _recover(self) -> None:
        for process in self.processes.values():
            if process.alive:
                self.kill(process, "is ended")
        self.now_s += 100.0
        machine = self.machines[-1]
        self._alone(self.start_process(machine), "fresh")
        standing = self.rules.lease(KEY).now
        task = self._alone(self.start_process(machine), "fresh", rejects=True)
        if not standing.live:
            self.rules.expect(isinstance(task.failure, ReauthRequired), "a login came back after its logout")
        elif task.failure is not None and standing.age is not None:
            self.rules.expect(
                bool(self.rules.excuses.get(standing.age[0])),
                f"{standing.age} is lost, unexcused: {task.failure!r}",
            )
        stores: list[TokenStore] = [*self.stores]
        self.rules.settled(KEY, stores)
        self.check()


def _go_on() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Walked:
    """How far a walk went."""

    states: int
    ends: int


def walk(kinds: tuple[CallKind, CallKind], *, machines: int, splits_steps: bool, crashes: int = 1) -> Walked:
    """Walk every path of two calls.

    Args:
        kinds: What the two agents call.
        machines: Whether one can prove the other dead (1) or not (2).
        splits_steps: Whether one may also act between two operations inside a step of the other; crashes always may.
        crashes: How many of the two may crash.

    Raises:
        WalkFailed: A path broke a rule.
    """
    seen: set[object] = set()
    ends = 0
    paths: list[list[int]] = [[]]
    while paths:
        choices = Choices(paths.pop(), seen)
        try:
            PathWorld(kinds, choices, None, machines=machines, splits_steps=splits_steps, crashes=crashes).walk()
            ends += 1
        except SeenBefore:
            pass
        except RuleBroken as broken:
            raise WalkFailed(_told(kinds, choices.taken, machines, splits_steps, crashes)) from broken
        paths.extend(choices.branches)
    return Walked(len(seen), ends)


def _told(kinds: tuple[CallKind, CallKind], taken: list[int], machines: int, splits_steps: bool, crashes: int) -> str:
    trace = Trace([])
    try:
        PathWorld(
            kinds, Choices(taken, set()), trace, machines=machines, splits_steps=splits_steps, crashes=crashes
        ).walk()
    except RuleBroken as broken:
        trace.lines.append(str(broken))
    return "\n".join(trace.lines)
