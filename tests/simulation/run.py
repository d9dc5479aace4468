"""One seed: a world drawn from it, its agents driven in virtual time, faults at every effect, then a recovery."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count
from random import Random

from simulation.agents import EPOCH_S, Call, CallKind, Machine, Process, Task
from simulation.authorization_server import age_of
from simulation.plan import Plan, plan_of
from simulation.rules import Cancelled
from simulation.world import Crashed, Trace, World

from ledger.effects import Exchange, Guarded, Pause, Revoke, Step
from ledger.errors import LedgerStorageError
from ledger.guard import GuardTimeout
from ledger.keys import LeaseKey
from ledger.refresh_errors import RefreshError
from ledger.store_errors import TokenIOError

GUARD_TIMEOUT_S = 6.0
LONGEST_CALL_S = 200.0
MOST_EVENTS = 60_000
DEEPEST = 2

_LEDGER_POINTS = frozenset({"append", "appended", "read ledger"})


@dataclass(eq=False, slots=True)
class Worker:
    """A thread of a process, with the calls it still has to make."""

    process: Process
    calls_left: int


class Run(World):
    """A world that moves."""

    def __init__(self, seed: int, trace: Trace | None = None) -> None:
        random = Random(seed)
        plan = plan_of(random)
        super().__init__(
            reuse_revokes=plan.reuse_revokes,
            swaps_atomically=plan.swaps_atomically,
            places=[
                f"store {number}" if plan.stores_tell_place else None
                for number in range(1 if plan.shares_store else plan.machines)
            ],
            trace=trace,
        )
        self.plan: Plan = plan
        self.draw = random.random
        self.random = random
        self.is_calm = False
        self.depth = 0
        self.events = 0
        self.lineages = 0
        self.calls = 0
        self.outages: dict[str, tuple[float, float]] = {}
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._op_fault = plan.crash + plan.interleave
        for number in range(plan.machines):
            offset_s = 0.0 if number == 0 else plan.wall_offset_s * (2 * random.random() - 1)
            store = self.stores[0 if plan.shares_store else number]
            self.machines.append(Machine(f"m{number + 1}", store, offset_s))
        if plan.outage:
            for what in ("ledger", "store"):
                begins_s = random.random() * 3
                self.outages[what] = (begins_s, begins_s + random.random() * 2)

    # Time

    def at(self, time_s: float, action: Callable[[], None]) -> None:
        """Have something happen at a time."""
        heapq.heappush(self._queue, (time_s, next(self._order), action))

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Have something happen in a while."""
        self.at(self.now_s + seconds, action)

    def run_until(self, time_s: float) -> None:
        """Let everything happen that is due until then."""
        queue = self._queue
        while queue and queue[0][0] <= time_s:
            due_s, _, action = heapq.heappop(queue)
            # A step that others came in between of may have run past what was due meanwhile.
            self.now_s = max(self.now_s, due_s)
            action()
            self.events += 1
            if self.rules.broken:
                self.check()
            self.rules.expect(self.events < MOST_EVENTS, "somebody waits for ever")
        if time_s != float("inf"):
            self.now_s = max(self.now_s, time_s)

    # Calls

    def work(self, worker: Worker) -> None:
        """Have a worker make its next call, sooner or later."""
        if worker.calls_left > 0:
            self.after(self.draw() * 0.4, partial(self._next_call, worker))

    def _next_call(self, worker: Worker) -> None:
        process = worker.process
        if not process.alive:
            return
        worker.calls_left -= 1
        key = self.random.choice(self.plan.keys)
        chance = self.draw()
        if chance < 0.1:
            self.log_out(process, key, partial(self.work, worker))
        elif chance < 0.25:
            self.log_in(process, key, partial(self.work, worker))
        else:
            rejects = process.last_tokens is not None and self.draw() < 0.4
            window_s = self.random.choice((0.5, 1.5, 3.0, 40.0))
            leeway_s = self.random.choice((0.0, 0.3, 1.0))
            calls = 2 if self.draw() < 0.15 else 1
            for number in range(calls):
                done = partial(self.work, worker) if number == 0 else _nothing
                self.fresh(process, key, done, window_s=window_s, leeway_s=leeway_s, rejects=rejects)

    def begin(self, call: Call, task: Task, done: Callable[[], None]) -> Task:
        """Have a call under way."""
        self.tell(call.name, f"begins on {call.key} (on {call.process.machine.name})")
        self._resume(task, done)
        return task

    def _call(self, kind: CallKind, process: Process, key: LeaseKey) -> Call:
        self.calls += 1
        call = Call(kind, key, process, self.now_s)
        call.name = f"{process.name}.{kind}{self.calls}"
        return call

    def log_in(self, process: Process, key: LeaseKey, done: Callable[[], None]) -> Task:
        """A person logs in."""
        call = self._call("login", process, key)
        self.lineages += 1
        call.tokens = self.server.log_in(f"L{self.lineages}", self._expiry())
        return self.begin(call, Task(call, process.protocol(call, partial(self.is_gone, process.machine))), done)

    def log_out(self, process: Process, key: LeaseKey, done: Callable[[], None]) -> Task:
        """A person logs out."""
        call = self._call("logout", process, key)
        return self.begin(call, Task(call, process.protocol(call, partial(self.is_gone, process.machine))), done)

    def fresh(
        self,
        process: Process,
        key: LeaseKey,
        done: Callable[[], None],
        *,
        window_s: float,
        leeway_s: float,
        rejects: bool = False,
    ) -> Task:
        """An agent asks for fresh tokens."""
        call = self._call("fresh", process, key)
        protocol = process.protocol(
            call,
            partial(self.is_gone, process.machine),
            window_s=window_s,
            leeway_s=leeway_s,
            rejected=process.last_tokens if rejects else None,
            deadline_s=self.plan.deadline_s,
        )
        return self.begin(call, Task(call, protocol), done)

    def _expiry(self) -> int:
        return EPOCH_S + int(self.now_s) + self.plan.lifetime_s

    # Effects

    def _resume(
        self, task: Task, done: Callable[[], None], outcome: object = None, failure: BaseException | None = None
    ) -> None:
        task.resume(outcome, failure)
        self._go_on(task, done)

    def _go_on(self, task: Task, done: Callable[[], None]) -> None:
        if task.is_done:
            self._ended(task, done)
            return
        effect = task.effect
        turn = partial(self._turn, task, done)
        if isinstance(effect, Pause):
            if not task.guards:
                task.call.waited_for.add(self.rules.lease(task.call.key).now.open)
            # A wait for others may end early, when they commit something, and any wait may take longer than asked.
            shortest = 0.1 if not task.guards else 1.0
            self.after(effect.seconds * (shortest + 2 * self.draw()), turn)
            return
        slow = not self.is_calm and self.draw() < 0.03
        self.after(self.draw() * (0.3 if slow else 0.004), turn)

    def _turn(self, task: Task, done: Callable[[], None]) -> None:
        process = task.process
        if not process.alive:
            return
        if process.awake_at_s > self.now_s:
            self.at(process.awake_at_s, partial(self._turn, task, done))
            return
        if not self.is_calm and self._struck(task, done):
            return
        effect = task.effect
        match effect:
            case Step(call):
                self._step(task, done, call)
            case Pause():
                self._resume(task, done)
            case Exchange(tokens):
                self._send(task, done, age_of(tokens))
            case Guarded(key, part):
                if self.guard_is_free(key):
                    task.guard_since_s = None
                    self.guards[key] = task
                    task.enter(part(), key)
                    self._go_on(task, done)
                else:
                    self._wait_for_guard(task, done, key)
            case Revoke(tokens):
                self._revoke(task, age_of(tokens)[0])
                self._resume(task, done)
            case None:
                raise AssertionError("a task without an effect has no turn")

    def _struck(self, task: Task, done: Callable[[], None]) -> bool:
        plan, process, chance = self.plan, task.process, self.draw()
        if chance < plan.crash:
            self.crash(process)
            return True
        chance -= plan.crash
        if chance < plan.suspend:
            seconds = self.draw() * 3 * plan.deadline_s
            self.tell(process.name, f"is suspended for {seconds:.3f} s")
            process.awake_at_s = self.now_s + seconds
            self.at(process.awake_at_s, partial(self._turn, task, done))
            return True
        chance -= plan.suspend
        if chance < plan.sleep:
            self._sleep(process.machine)
            self.at(process.awake_at_s, partial(self._turn, task, done))
            return True
        chance -= plan.sleep
        if chance < plan.clock_jump:
            process.machine.wall_offset_s += self.random.choice((-3600.0, -2.0, 2.0, 3600.0))
            self.tell(process.machine.name, f"its wall clock is now {process.machine.wall_offset_s:+.3f} s off")
        return False

    def _sleep(self, machine: Machine) -> None:
        seconds = self.draw() * 3 * self.plan.deadline_s
        self.tell(machine.name, f"sleeps for {seconds:.3f} s")
        machine.slept_s += seconds
        for process in self.processes.values():
            if process.machine is machine:
                process.awake_at_s = max(process.awake_at_s, self.now_s + seconds)

    def _step(self, task: Task, done: Callable[[], None], call: Callable[[], object]) -> None:
        outcome, failure = None, None
        before, self.current = self.current, task
        try:
            outcome = call()
        except Crashed:
            return
        except Exception as error:
            failure = error
            self.tell(task.call.name, f"meets {error!r}")
        finally:
            self.current = before
        if task.process.alive:
            self._resume(task, done, outcome, failure)

    def _wait_for_guard(self, task: Task, done: Callable[[], None], key: LeaseKey) -> None:
        if task.guard_since_s is None:
            task.guard_since_s = self.now_s
        waited_s = self.now_s - task.guard_since_s
        if waited_s > GUARD_TIMEOUT_S:
            task.guard_since_s = None
            self._resume(task, done, None, GuardTimeout(key, waited_s, None))
            return
        self.after(0.002 + 0.02 * self.draw(), partial(self._turn, task, done))

    def _revoke(self, task: Task, lineage: str) -> None:
        self.tell(task.call.name, f"has {lineage} revoked")
        self.rules.revoked(task.call, lineage)
        self.server.revoke(lineage)

    def _ended(self, task: Task, done: Callable[[], None]) -> None:
        call, failure = task.call, task.failure
        self.tell(call.name, f"ends: {task.outcome if failure is None else repr(failure)}")
        self.rules.expect(self.now_s - call.started_s < LONGEST_CALL_S, f"{call.name} waited too long")
        self.rules.ended(call, task.outcome, failure, self.now_s)
        if failure is None and call.kind == "fresh":
            task.process.last_tokens = task.outcome
        if failure is None and call.kind == "logout" and task.outcome is not None:
            self._revoke(task, age_of(task.outcome)[0])
        done()

    def crash(self, process: Process) -> None:
        """A process dies; another may take up its work."""
        self.kill(process)
        if self.draw() < 0.7:
            self.after(self.draw() * 0.5, partial(self._restart, process.machine))

    def _restart(self, machine: Machine) -> None:
        if not self.is_calm:
            self.work(Worker(self.start_process(machine), 1))

    # The network

    def _send(self, task: Task, done: Callable[[], None], age: tuple[str, int]) -> None:
        call = task.call
        self.rules.sent(call, age)
        chance = self.draw()
        fate = "answered" if self.is_calm else next(fate for upto, fate in self.plan.fates if chance < upto)
        self.tell(call.name, f"sends {age} ({fate})")
        attempt = call.attempt or ""
        there_s = self.draw() * (1.5 if fate == "slow" else 0.05)
        if fate == "unsent":
            self.after(there_s, partial(self._deliver, task, done, None, ConnectionError("no route")))
        else:
            self.after(there_s, lambda: self._arrive(task, done, age, attempt, fate))

    def _arrive(self, task: Task, done: Callable[[], None], age: tuple[str, int], attempt: str, fate: str) -> None:
        back_s = self.draw() * (1.5 if fate == "slow" else 0.05)
        answer: object = None
        failure: BaseException | None = None
        if fate == "busy":
            failure = RefreshError(False, "temporarily_unavailable", 503, self.random.choice((None, 0.2, 2.0)))
        elif fate == "refused":
            self.server.revoke(age[0])
            self.rules.excuse(age[0], "the server refused it for good")
            failure = RefreshError(True, "invalid_grant", 400)
        else:
            if self.server.is_spent(age):
                self.rules.spent_again(task.call, age, attempt)
            try:
                answer = self.server.refresh(age, self._expiry())
            except RefreshError as error:
                failure = error
            else:
                self.rules.rotated(task.call, age, attempt)
                successor = (age[0], age[1] + 1)
                self.tell("server", f"replaces {age} by {successor} for {task.call.name}")
                if not task.process.alive:
                    self.rules.lost(successor, f"{task.call.name} crashed before the response")
                elif fate in ("lost", "cancelled"):
                    self.rules.lost(successor, f"the response to {task.call.name} never arrived")
        if fate == "lost":
            answer, failure = None, ConnectionError("timed out")
            back_s = self.draw() * 2 * self.plan.deadline_s
        elif fate == "cancelled":
            answer, failure = None, Cancelled()
        self.after(back_s, partial(self._deliver, task, done, answer, failure))

    def _deliver(self, task: Task, done: Callable[[], None], answer: object, failure: BaseException | None) -> None:
        process = task.process
        if not process.alive:
            return
        if process.awake_at_s > self.now_s:
            self.at(process.awake_at_s, partial(self._deliver, task, done, answer, failure))
            return
        self.tell(task.call.name, f"gets {failure!r}" if failure is not None else "gets the response")
        self._resume(task, done, answer, failure)

    # Faults in the middle of a step

    def reach(self, point: str) -> None:
        task = self.current
        if task is None or self.is_calm:
            return
        plan, chance = self.plan, self.draw()
        on_ledger = point in _LEDGER_POINTS
        begins_s, ends_s = self.outages.get("ledger" if on_ledger else "store", (0.0, 0.0))
        fault = plan.ledger_fault if on_ledger else plan.store_fault
        if chance < plan.crash:
            self.tell(task.call.name, f"is at {point}")
            self.crash(task.process)
        elif begins_s <= self.now_s < ends_s or chance < plan.crash + fault:
            what = f"simulated at {point}"
            raise LedgerStorageError(what) if on_ledger else TokenIOError(what)
        elif self.depth < DEEPEST and chance > 1 - plan.interleave:
            self.depth += 1
            self.tell(task.call.name, f"is held up at {point}")
            far = self.draw() < 0.1
            self.current = None
            try:
                self.run_until(self.now_s + self.draw() * (2 * plan.deadline_s if far else 0.02))
            finally:
                self.current = task
                self.depth -= 1
            self.tell(task.call.name, f"goes on from {point}")
        if not task.process.alive:
            raise Crashed


def _nothing() -> None:
    return None
