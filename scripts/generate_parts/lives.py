"""The lives of made-up leases: what is asked of each next, when, and by whom. Drawn from a seed, without a clock.

Each lease has its own pace; the busiest see some hundred times as much as the quietest, as in real fleets. Most
refreshes succeed, some fail and are tried again, few are refused for good or given up and taken over, logins are
undone now and then, and once in some hundred events the writer's clock has gone back.
"""

import heapq
import random
from collections.abc import Iterator
from typing import Final, NamedTuple

from ledger.commands import (
    Acquire,
    BeginRefresh,
    Command,
    CompleteRefresh,
    FailRefresh,
    MarkExpiring,
    MarkReauthRequired,
    Release,
    ReleaseCredentialLifecycle,
    Restore,
)
from ledger.events import AttemptEnd, Holder
from ledger.keys import LeaseKey
from ledger.snapshot import AuthLeasePhase
from ledger.state import EMPTY_STATE, LeaseState

__all__ = ["Ask", "Life", "asks"]

STARTS_MS: Final = 1_767_225_600_000
"""When the past begins: the first day of 2026."""

FIRST_LOGINS_MS: Final = 600_000
PACE_MS: Final = 1_800_000
HOUR_S: Final = 3_600

_REALMS: Final = ("dev", "staging", "prod")
_BINDINGS: Final = ("openai", "anthropic", "github", "gitlab", "jira")
_FAILURES: Final = ((None, 503, 30.0), ("TimeoutError", None, None), ("temporarily_unavailable", 503, None))
_CAUSES: Final = ("token about to expire", "asked for by the scheduler", "the server answered 401")


class Agent(NamedTuple):
    """One process that acts on leases."""

    actor: str
    holder: Holder


class Life:
    """One lease while it is lived."""

    __slots__ = ("agents", "before_login", "key", "pace_ms", "state", "stream")

    def __init__(self, key: LeaseKey, pace_ms: float, agents: list[Agent]) -> None:
        self.key = key
        self.stream = str(key)
        self.pace_ms = pace_ms
        self.agents = agents
        self.state: LeaseState = EMPTY_STATE
        self.before_login: LeaseState | None = None


class Ask(NamedTuple):
    """What is asked of a lease, when by the writer's clock (epoch milliseconds), by whom and why."""

    life: Life
    command: Command
    at_ms: int
    actor: str
    cause: str | None
    correlation_id: str | None


def asks(chance: random.Random, leases: int) -> Iterator[Ask]:
    """What is asked, without end. Whoever decides sets the ``state`` of the life before asking for the next."""
    agents = [_agent(chance, number) for number in range(24)]
    due: list[tuple[float, int, Life]] = []
    for number in range(leases):
        realm, binding = _REALMS[number % len(_REALMS)], _BINDINGS[number % len(_BINDINGS)]
        key = LeaseKey(realm, binding, f"user-{number:05}")
        life = Life(key, PACE_MS / chance.lognormvariate(0, 1.2), chance.sample(agents, chance.randint(1, 3)))
        due.append((STARTS_MS + chance.random() * FIRST_LOGINS_MS, number, life))
    heapq.heapify(due)
    while True:
        now_ms, number, life = due[0]
        yield _ask(chance, life, int(now_ms))
        heapq.heapreplace(due, (now_ms + _pause_ms(chance, life), number, life))


def _agent(chance: random.Random, number: int) -> Agent:
    host, pid = f"build-{number % 6}", chance.randrange(1_000, 60_000)
    boot, instance = f"{chance.getrandbits(128):032x}", f"{chance.getrandbits(128):032x}"
    return Agent(f"agent-{number}@{host} pid {pid}", Holder(host, boot, pid, str(chance.randrange(10**6)), instance))


def _pause_ms(chance: random.Random, life: Life) -> float:
    """How long until the next event, from how the last one left the lease."""
    state = life.state
    if life.before_login is not None or state.phase is AuthLeasePhase.REFRESHING:
        return 100 + chance.expovariate(1 / 800)
    if state.last_failure is not None and state.phase is AuthLeasePhase.EXPIRING:
        return chance.uniform(1_000, 60_000)
    if state.phase is AuthLeasePhase.EXPIRING:
        return chance.expovariate(1 / 5_000)
    return chance.expovariate(1 / life.pace_ms)


def _ask(chance: random.Random, life: Life, now_ms: int) -> Ask:
    agent = chance.choice(life.agents)
    command = _command(chance, life, agent, now_ms // 1000)
    back_ms = chance.randrange(1_000, 3_600_000) if chance.random() < 0.003 else 0
    dice = chance.random()
    cause = chance.choice(_CAUSES) if dice < 0.2 else None
    filed = f"run-{now_ms // 86_400_000}-{chance.randrange(500)}" if dice > 0.9 else None
    return Ask(life, command, now_ms - back_ms, agent.actor, cause, filed)


def _command(chance: random.Random, life: Life, agent: Agent, now_s: int) -> Command:
    state = life.state
    undone, life.before_login = life.before_login, None
    if undone is not None:
        return _undo(undone, state.version)
    dice = chance.random()
    match state.phase:
        case AuthLeasePhase.VALID if dice < 0.76:
            return _begin(chance, agent)
        case AuthLeasePhase.VALID if dice < 0.92:
            return MarkExpiring()
        case AuthLeasePhase.VALID if dice < 0.95:
            return Release()
        case AuthLeasePhase.VALID if dice < 0.96:
            return ReleaseCredentialLifecycle()
        case AuthLeasePhase.VALID if dice < 0.97:
            return MarkReauthRequired("the account was locked")
        case AuthLeasePhase.EXPIRING if dice < 0.96:
            return _begin(chance, agent)
        case AuthLeasePhase.EXPIRING if dice < 0.98:
            return Release()
        case AuthLeasePhase.REFRESHING:
            return _end(chance, state, agent, now_s)
        case AuthLeasePhase.REAUTH_REQUIRED if dice < 0.1:
            return Release()
        case _:
            if chance.random() < 0.04:
                life.before_login = state
            return _login(chance, now_s)


def _login(chance: random.Random, now_s: int) -> Acquire:
    never = chance.random() < 0.05
    return Acquire(None if never else now_s + chance.choice((1, 1, 1, 8, 24)) * HOUR_S)


def _undo(before: LeaseState, version: int) -> Restore:
    return Restore(
        before.phase,
        before.expires_at,
        before.credential_present,
        before.generation,
        before.published_at,
        before.published_by,
        before.attempt,
        version - 1,
        version,
    )


def _begin(chance: random.Random, agent: Agent) -> BeginRefresh:
    return BeginRefresh(60_000, agent.holder, f"{chance.getrandbits(256):064x}")


def _end(chance: random.Random, state: LeaseState, agent: Agent, now_s: int) -> Command:
    attempt = state.attempt.id if state.attempt else None
    instance, dice = agent.holder.instance, chance.random()
    if dice < 0.90:
        return CompleteRefresh(now_s + HOUR_S, now_s, instance, attempt, recovered=dice < 0.01)
    if dice < 0.96:
        error, status, retry_after = chance.choice(_FAILURES)
        ended = AttemptEnd.UNANSWERED if status is None else AttemptEnd.ANSWERED
        return FailRefresh(False, instance, attempt, error, status, retry_after, ended=ended)
    if dice < 0.975:
        return FailRefresh(True, instance, attempt, "invalid_grant", 400, ended=AttemptEnd.ANSWERED)
    if dice < 0.99:
        return FailRefresh(False, instance, attempt, abandoned=True, ended=AttemptEnd.ABANDONED)
    return Release() if dice < 0.995 else _login(chance, now_s)
