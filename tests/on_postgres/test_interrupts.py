"""Interrupted anywhere, a ledger in PostgreSQL leaves no slot, session, transaction or lock behind; nothing is lost."""

import contextlib
import itertools
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, ModuleType

import psycopg
import pytest
from interrupts.opcodes import Strike
from pgserver import PgServer, admin, server_of_its_own, with_options

from ledger.guard import acquire_auth_login_lifecycle_guard
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.recorders import postgres_connections, postgres_guard
from ledger.recorders.base import NewEvent
from ledger.recorders.postgres import PostgresLeaseRecorder
from ledger.stores import PostgresTokenStore
from ledger.stores.encryption import new_token_key
from ledger.tokens import PersistedTokens

# What is raised in a destructor comes out nowhere.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

POINTS = 60
"""At how many opcodes, evenly spread, each use is struck."""

SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name <> '' AND pid <> pg_backend_pid()"
IN_TRANSACTION = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
ADVISORY = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"


@dataclass
class World:
    """A ledger and a token store in one schema, and what the ledger acknowledged."""

    url: str
    sql: psycopg.Connection[tuple[object, ...]]
    key: str = field(default_factory=new_token_key)
    acknowledged: list[str] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.ledger = LeaseLedger.open(self.url)
        self.store = PostgresTokenStore(self.url, key=self.key)
        self.bystander = LeaseLedger.open(self.url)

    @property
    def recorder(self) -> PostgresLeaseRecorder:
        assert isinstance(self.ledger.recorder, PostgresLeaseRecorder)
        return self.ledger.recorder

    def new_key(self) -> LeaseKey:
        return LeaseKey("point", f"n{next(self.numbers)}")

    def close(self) -> None:
        self.ledger.close()
        self.bystander.close()
        self.store.close()

    def problems(self) -> Iterator[str]:
        for name, connections in (("ledger", self.recorder._connections), ("store", self.store._connections)):
            if connections._free._value != connections.address.connections:
                yield f"{name}: {connections._free._value} of {connections.address.connections} slots are free"
        for name, query in (("transactions are open", IN_TRANSACTION), ("advisory locks are held", ADVISORY)):
            deadline = time.monotonic() + 2
            while (found := self.sql.execute(query.encode()).fetchone()) != (0,):
                if time.monotonic() > deadline:
                    yield f"{found and found[0]} {name}"
                    break
        if self.bystander.acquire_lease(LeaseKey("by", "stander"), 1).version is None:
            yield "the next command fails"
        if self.ledger.acquire_lease(self.new_key(), 1).version != 1:
            yield "the next command of the interrupted ledger fails"


def _append(world: World, key: LeaseKey) -> None:
    world.acknowledged.append(world.ledger.acquire_lease(key, 1).event_id or "")


def _append_exclusively(world: World, key: LeaseKey) -> None:
    world.ledger.recorder.append_exclusively(
        str(key), 0, lambda _: NewEvent(str(key), 1, "t", b'{"id":"%d"}' % id(key))
    )


def _guard(world: World, key: LeaseKey) -> None:
    with acquire_auth_login_lifecycle_guard(key, ledger=world.ledger):
        _append(world, key)


def _lock(world: World, key: LeaseKey) -> None:
    lock = world.recorder.guard_lock(str(key))
    lock.held_by()
    taken = False
    try:
        taken = lock.try_acquire("me")
    finally:
        if taken:
            lock.release()


def _read(world: World, key: LeaseKey) -> None:
    world.ledger.snapshot(key)
    list(world.ledger.read_all())
    world.recorder.max_notification_id()


def _wait(world: World, _: LeaseKey) -> None:
    world.recorder.wait_for_change(world.recorder.change_token(), 0.002)


def _store(world: World, key: LeaseKey) -> None:
    world.store.save(key, PersistedTokens.api_key("a"))
    world.store.load(key)
    world.store.clear(key)


def _open(world: World, _: LeaseKey) -> None:
    with LeaseLedger.open(world.url) as another:
        another.recorder.defects()


USES: dict[str, Callable[[World, LeaseKey], None]] = {
    "append": _append,
    "append exclusively": _append_exclusively,
    "guard": _guard,
    "read": _read,
    "wait": _wait,
    "store": _store,
    "open": _open,
}


@pytest.fixture(scope="module")
def server() -> Iterator[PgServer]:
    with server_of_its_own(durable=False) as started:
        yield started


@pytest.fixture
def world(server: PgServer, tmp_path: Path) -> Iterator[World]:
    with admin(server.url) as sql:
        made = World(with_options(server.url, schema=f"t_{random.getrandbits(40):x}", application_name="struck"), sql)
        yield made
        made.close()


def _struck(world: World, use: Callable[[World, LeaseKey], None], at: int) -> Strike:
    strike = Strike(at, lambda: signal.raise_signal(signal.SIGINT), is_signal=True)
    with contextlib.suppress(KeyboardInterrupt), strike:
        use(world, world.new_key())
    return strike


def _strike_everywhere(world: World, use: Callable[[World, LeaseKey], None], points: int) -> list[str]:
    _struck(world, use, 0)
    opcodes = _struck(world, use, 0).opcodes
    assert opcodes > 100
    broken: list[str] = []
    for at in range(1, opcodes + 1, max(1, opcodes // points)):
        strike = _struck(world, use, at)
        broken += [f"struck at {strike.where}: {problem}" for problem in world.problems()]
        if len(broken) > 3:
            break
    return broken


@pytest.mark.parametrize("use", USES)
def test_an_interrupt_at_any_opcode_leaves_nothing_behind(world: World, use: str) -> None:
    assert _strike_everywhere(world, USES[use], POINTS) == []
    recorded = {recorded.event.id for recorded in world.ledger.read_all(skip_unknown=True)}
    assert set(world.acknowledged) <= recorded
    world.close()
    deadline = time.monotonic() + 10
    while world.sql.execute(SESSIONS).fetchone() != (0,) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert world.sql.execute(SESSIONS.replace("count(*)", "application_name")).fetchall() == []


class Alarm(Exception):
    """What a signal handler of somebody's raises."""


def test_signals_at_random_moments_of_many_appends_leave_nothing_behind(world: World) -> None:
    def alarmed(_: int, __: FrameType | None) -> None:
        raise Alarm

    before = signal.signal(signal.SIGALRM, alarmed)
    chance = random.Random(7)
    alarms = 0
    try:
        for number in range(400):
            try:
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.000_02, 0.001_5))
                (_append if number % 4 else _guard)(world, world.new_key())
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Alarm:
                alarms += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert alarms > 10
    assert list(world.problems()) == []
    recorded = {recorded.event.id for recorded in world.ledger.read_all()}
    assert set(world.acknowledged) <= recorded
    assert world.ledger.verify().ok


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize(("use", "module"), [("append", postgres_connections), ("lock", postgres_guard)])
def test_without_its_shield_something_would_stay_behind(
    world: World, monkeypatch: pytest.MonkeyPatch, use: str, module: ModuleType
) -> None:
    monkeypatch.setattr(postgres_connections, "uninterrupted", lambda call: call())
    monkeypatch.setattr(module, "uninterrupted", lambda call: call())
    assert _strike_everywhere(world, _lock if use == "lock" else USES[use], 1_000) != []
