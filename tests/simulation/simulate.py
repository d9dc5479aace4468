"""A seed from its beginning to its end: work under faults, then everybody restarted, and every login proven alive."""

from dataclasses import dataclass

from simulation.agents import Process, Task
from simulation.authorization_server import age_of
from simulation.run import Run, Worker
from simulation.world import RuleBroken, Trace

from ledger.keys import LeaseKey
from ledger.refresh_errors import ReauthRequired, RefreshError, TokensElsewhere
from ledger.tokens import PersistedTokens

LONG_S = 7300.0
"""Longer than any clock is wrong in a plan, and than anybody waits."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a seed came to, for those who count."""

    events: int
    recorded: int
    sent: int
    excuses: int


class SeedFailed(AssertionError):
    """A seed broke a rule; the text says which, and how to see it again."""


def simulate(seed: int, *, trace: bool = False) -> Outcome:
    """Run one seed.

    Raises:
        SeedFailed: A rule was broken.
    """
    told = Trace([]) if trace else None
    run = Run(seed, told)
    try:
        _work(run)
        _recover(run)
    except Exception as error:
        text = f"seed {seed}: {error}\nreplay it: scripts/simulate --seed {seed} --trace"
        if told is not None:
            text = "\n".join((f"{run.plan}", *told.lines, text))
        raise SeedFailed(text) from (None if isinstance(error, RuleBroken) else error)
    if told is not None:
        print("\n".join((f"{run.plan}", *told.lines)))
    sends = sum(len(attempts) for attempts in run.rules.sent_by.values())
    return Outcome(run.events, run.log.last_position(), sends, len(run.rules.excuses))


def _work(run: Run) -> None:
    plan, random = run.plan, run.random
    for key in plan.keys:
        machine = random.choice(run.machines)
        run.log_in(run.start_process(machine), key, lambda: None)
    run.run_until(0.3 * random.random())
    for _ in range(plan.processes):
        process = run.start_process(random.choice(run.machines))
        for _ in range(random.choice((1, 1, 2))):
            run.work(Worker(process, plan.calls))
    if plan.restores_older_copy:
        _restore_older_copy(run)
    run.run_until(4 + 2 * random.random())
    run.is_calm = True
    if plan.kills_all_at_the_end:
        kill_all(run)
    run.run_until(float("inf"))


def kill_all(run: Run) -> None:
    """Nobody goes on."""
    for process in run.processes.values():
        if process.alive:
            run.kill(process, "is ended")


def _restore_older_copy(run: Run) -> None:
    run.run_until(run.now_s + run.random.random() * 2)
    older, leases = run.log.copy(), {key: lease.copy() for key, lease in run.rules.leases.items()}
    run.run_until(run.now_s + run.random.random() * 2)
    kill_all(run)
    run.tell("operator", f"puts back a copy of the ledger with {older.last_position()} events")
    run.use_log(older)
    run.rules.go_back(leases)
    for machine in run.machines:
        run.work(Worker(run.start_process(machine), run.plan.calls))


def _recover(run: Run) -> None:
    """Everybody starts anew, nothing fails any more, and each key is used on every machine."""
    kill_all(run)
    run.now_s += LONG_S
    run.tell("operator", "restarts everybody; from here on nothing fails")
    for machine in run.machines:
        run.start_process(machine)
    latest = list(run.processes.values())[-len(run.machines) :]
    for key in run.plan.keys:
        for process in latest:
            process.last_tokens = None
            _use(run, process, key)
        for process in latest:
            process.last_tokens = None
            _prove(run, process, key)
        run.rules.settled(key, [machine.store for machine in run.machines])
    run.rules.expect(not run.guards or all(run.guard_is_free(key) for key in run.plan.keys), "a guard is held for ever")
    verification = run.log_observer().verify()
    run.rules.expect(verification.ok, f"the chain does not verify: {verification.findings}")
    run.check()


def _use(run: Run, process: Process, key: LeaseKey, *, rejects: bool = False) -> Task:
    """One call of fresh, to its end, tried again when the server wants to be left alone for a while."""
    tries = 0
    while True:
        task = run.fresh(process, key, lambda: None, window_s=0.5, leeway_s=0.0, rejects=rejects)
        run.run_until(float("inf"))
        run.check()
        assert task.is_done
        failure, tries = task.failure, tries + 1
        if not isinstance(failure, RefreshError) or failure.permanent:
            return task
        run.now_s += 2.0 + (failure.retry_after or 0.0)
        if tries == 4:
            return task


def _prove(run: Run, process: Process, key: LeaseKey) -> None:
    """Spend the refresh token: a login is alive only if it can be refreshed."""
    store, lease = process.machine.store, run.rules.lease(key)
    stored: PersistedTokens | None = store.inner.load(key)  # type: ignore[attr-defined]
    standing = lease.now
    task = _use(run, process, key)
    if task.failure is None:
        process.last_tokens = task.outcome
        task = _use(run, process, key, rejects=True)
    outcome = "is refreshed" if task.failure is None else repr(task.failure)
    run.tell("operator", f"finds that {key} {outcome} on {process.machine.name}")
    if not standing.live:
        run.rules.expect(isinstance(task.failure, ReauthRequired), f"a login came back after its logout: {outcome}")
        return
    assert standing.age is not None
    if task.failure is None:
        run.rules.expect(age_of(task.outcome)[0] == standing.age[0], "another login was refreshed than is in force")
        return
    is_here = stored is not None and age_of(stored) == standing.age and run.server.is_live(standing.age)
    run.rules.expect(standing.dead_end or not is_here, f"{key} is here and alive, but: {outcome}")
    if not run.plan.shares_store and isinstance(task.failure, TokensElsewhere):
        elsewhere = any(machine.store.inner.load(key) for machine in run.machines if machine.store is not store)  # type: ignore[attr-defined]
        if elsewhere:
            return
    run.rules.expect(
        bool(run.rules.excuses.get(standing.age[0])) or run.rules.is_older_copy,
        f"the login {standing.age[0]} of {key} is lost, and nothing excuses it: {outcome}",
    )
