"""Real agent processes on one real ledger, with an authorization server that forgives no refresh token spent twice.

Agents are forked from one process that has imported everything and opened nothing, so dozens of them cost little. Each
says which points of its work it has reached, waits at those where a test wants it to, and can be killed, stopped or
interrupted there like any process.
"""

import contextlib
import json
import logging
import os
import secrets
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Literal, TypeVar

import msgspec
from faults import Faults, FaultyStore, die

from ledger.credentials import Credentials
from ledger.effects import Exchange, Guarded, Pause, Procedure, Revoke, Step, guarded
from ledger.events import Holder, LeaseEvent, LeaseRefreshFailed, LeaseRefreshStarted
from ledger.guard import acquire_auth_login_lifecycle_guard
from ledger.holder import is_provably_gone
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.login import login, logout
from ledger.look import FreshRequest
from ledger.marker import tokens_lifecycle_published_generation
from ledger.refresh import fresh_tokens
from ledger.refresh_errors import RefreshError
from ledger.stores import FileTokenStore
from ledger.tokens import PersistedTokens

T = TypeVar("T")

KEY = LeaseKey.parse("dev:openai:work")
CANARY = "canary-7d1f"
"""Part of every secret there is here, and of nothing else."""

HOUR_S = 3600
LONG_S = 60.0
"""Longer than anything takes on a machine that is only busy."""


def eventually(found: Callable[[], T | None], what: str) -> T:
    """Wait for something to be there."""
    give_up = time.monotonic() + LONG_S
    while time.monotonic() < give_up:
        result = found()
        if result is not None:
            return result
        time.sleep(0.005)
    raise AssertionError(f"{what}: not within {LONG_S:g} s")


class Presentation(msgspec.Struct, frozen=True):
    """A refresh token that came to the server, and what came of it: ok, fault, unknown or reuse."""

    refresh_token: str
    outcome: str


class AuthorizationServer:
    """Rotates refresh tokens, refuses one spent before and then revokes its whole login. Lives in one SQLite file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._transaction() as database:
            database.execute("CREATE TABLE IF NOT EXISTS tokens (refresh TEXT PRIMARY KEY, login TEXT, state TEXT)")
            database.execute("CREATE TABLE IF NOT EXISTS presented (refresh TEXT, outcome TEXT)")
            database.execute("CREATE TABLE IF NOT EXISTS faults (error TEXT)")
            database.execute("CREATE TABLE IF NOT EXISTS revoked (refresh TEXT)")
            database.execute("CREATE TABLE IF NOT EXISTS lifetime (seconds INTEGER)")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        database = sqlite3.connect(self.path, timeout=LONG_S, isolation_level=None)
        try:
            database.execute("PRAGMA synchronous = OFF")
            database.execute("BEGIN IMMEDIATE")
            yield database
            database.execute("COMMIT")
        finally:
            database.close()

    def tokens_will_live(self, seconds: int) -> None:
        """How long access tokens live from now on."""
        with self._transaction() as database:
            database.execute("DELETE FROM lifetime")
            database.execute("INSERT INTO lifetime VALUES (?)", (seconds,))

    def will_fail(self, *errors: RefreshError) -> None:
        """The next refreshes fail like this, one after the other, without spending anything."""
        with self._transaction() as database:
            for error in errors:
                database.execute("INSERT INTO faults VALUES (?)", (json.dumps(error.args),))

    def log_in(self, *, lives: int | None = None) -> PersistedTokens:
        """The tokens of a new login."""
        with self._transaction() as database:
            return self._issue(database, secrets.token_hex(4), lives)

    def refresh(self, tokens: PersistedTokens) -> PersistedTokens:
        """Spend a refresh token."""
        spent = tokens.refresh_token
        with self._transaction() as database:
            fault = database.execute("SELECT rowid, error FROM faults ORDER BY rowid").fetchone()
            known = database.execute("SELECT login, state FROM tokens WHERE refresh = ?", (spent,)).fetchone()
            error: RefreshError | None = None
            answer: PersistedTokens | None = None
            if fault is not None:
                outcome = "fault"
                database.execute("DELETE FROM faults WHERE rowid = ?", (fault[0],))
                error = RefreshError(*json.loads(fault[1]))
            elif known is None or known[1] == "revoked":
                outcome, error = "unknown", RefreshError(True, "invalid_grant", 400)
            elif known[1] == "spent":
                outcome, error = "reuse", RefreshError(True, "invalid_grant", 400)
                database.execute("UPDATE tokens SET state = 'revoked' WHERE login = ?", (known[0],))
            else:
                outcome, answer = "ok", self._issue(database, known[0], None)
                database.execute("UPDATE tokens SET state = 'spent' WHERE refresh = ?", (spent,))
            database.execute("INSERT INTO presented VALUES (?, ?)", (spent, outcome))
        if answer is None:
            assert error is not None
            raise error
        return answer

    def revoke(self, tokens: PersistedTokens) -> None:
        """Take a refresh token back."""
        with self._transaction() as database:
            database.execute("INSERT INTO revoked VALUES (?)", (tokens.refresh_token,))
            database.execute("UPDATE tokens SET state = 'revoked' WHERE refresh = ?", (tokens.refresh_token,))

    def _issue(self, database: sqlite3.Connection, login_id: str, lives: int | None) -> PersistedTokens:
        if lives is None:
            stated: tuple[int] = database.execute("SELECT seconds FROM lifetime").fetchone() or (HOUR_S,)
            lives = stated[0]
        name = f"{login_id}-{secrets.token_hex(6)}"
        database.execute("INSERT INTO tokens VALUES (?, ?, 'live')", (f"{CANARY}-refresh-{name}", login_id))
        return PersistedTokens(
            "claude_ai_oauth",
            primary_secret=f"{CANARY}-access-{name}",
            refresh_token=f"{CANARY}-refresh-{name}",
            expires_at=int(time.time()) + lives,
        )

    def presentations(self) -> list[Presentation]:
        """Every refresh token presented so far, in order."""
        with self._transaction() as database:
            return [Presentation(*row) for row in database.execute("SELECT * FROM presented ORDER BY rowid")]

    def outcomes(self) -> list[str]:
        """What came of every refresh so far, in order."""
        return [presentation.outcome for presentation in self.presentations()]

    def revoked(self) -> list[str]:
        """Every refresh token taken back so far."""
        with self._transaction() as database:
            return [refresh for (refresh,) in database.execute("SELECT refresh FROM revoked ORDER BY rowid")]

    def holds_alive(self, tokens: PersistedTokens) -> bool:
        """Whether the refresh token could be spent."""
        with self._transaction() as database:
            row = database.execute("SELECT state FROM tokens WHERE refresh = ?", (tokens.refresh_token,)).fetchone()
        return row is not None and bool(row[0] == "live")


class World:
    """Everything agents share, in one folder: ledger, tokens, server, and what they said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger_path = folder / "ledger" / "auth.db"
        self.agents_log = folder / "agents.log"
        self.said = folder / "said"
        self.ledger_path.parent.mkdir(exist_ok=True)
        self.said.mkdir(exist_ok=True)
        self.store = FileTokenStore(folder / "tokens")
        self.server = AuthorizationServer(folder / "server.db")

    def open_ledger(self, clock: Callable[[], int] | None = None, actor: str | None = None) -> LeaseLedger:
        """The ledger, as another process would open it."""
        # A kill is no power loss, so nothing here needs every commit on the disk.
        return LeaseLedger.open(f"sqlite:///{self.ledger_path}?synchronous=normal", clock=clock, actor=actor)

    @contextlib.contextmanager
    def credentials(
        self, *, clock: Callable[[], int] | None = None, actor: str | None = None, **options: Any
    ) -> Iterator[Credentials]:
        """Credentials on a ledger object of their own."""
        with self.open_ledger(clock, actor) as ledger:
            yield Credentials(ledger, options.pop("store", self.store), **options)

    def log_in(self, *, lives: int = HOUR_S) -> PersistedTokens:
        """A login through ``Credentials``; returns the tokens as stored."""
        with self.credentials() as credentials:
            credentials.login(KEY, self.server.log_in(lives=lives))
        return self.stored()

    def stored(self) -> PersistedTokens:
        """The tokens stored now."""
        tokens = self.store.load(KEY)
        assert tokens is not None
        return tokens

    def stored_generation(self) -> int:
        """The generation the stored tokens are marked with; 0 for none."""
        tokens = self.store.load(KEY)
        return 0 if tokens is None else tokens_lifecycle_published_generation(tokens) or 0

    def events(self) -> list[LeaseEvent]:
        """The lease's history."""
        with self.open_ledger() as ledger:
            return [recorded.event for recorded in ledger.read(KEY)]

    def tags(self) -> list[str]:
        """The lease's history by its tags, without ``lease.``."""
        return [event.tag.removeprefix("lease.") for event in self.events()]

    def check(self) -> None:
        """What must hold whatever happened."""
        with self.open_ledger() as ledger:
            verification = ledger.verify()
            assert verification.ok, verification.findings
            self._check_no_token_was_spent_twice(ledger)
        self.check_no_secret_leaked()

    def _check_no_token_was_spent_twice(self, ledger: LeaseLedger) -> None:
        """A refresh token goes to the server again only after its attempt is on record as failed or abandoned."""
        attempts: Counter[str] = Counter()
        open_attempt: str | None = None
        for recorded in ledger.read(KEY):
            event = recorded.event
            if isinstance(event, LeaseRefreshStarted) and event.fingerprint is not None:
                assert open_attempt != event.fingerprint, "begun again without an end on record"
                attempts[event.fingerprint] += 1
                open_attempt = event.fingerprint
            elif isinstance(event, LeaseRefreshFailed):
                open_attempt = None
        presented = Counter(presentation.refresh_token for presentation in self.server.presentations())
        for refresh_token, times in presented.items():
            assert times <= attempts[ledger.fingerprint(refresh_token)]

    def check_no_secret_leaked(self) -> None:
        """No secret in the ledger's files, in lock files or in anything an agent logged."""
        files = [path for path in self.ledger_path.parent.rglob("*") if path.is_file()]
        files += (self.folder / "tokens").glob(".locks/*")
        files += [self.agents_log] if self.agents_log.exists() else []
        assert files
        for path in files:
            assert CANARY.encode() not in path.read_bytes(), path


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What one agent does.

    Attributes:
        folder: The world it lives in.
        name: Its own name.
        action: Log in with new tokens, have fresh ones, log out, or hold the guard until let go.
        waits_at: The points of its work at which it waits to be let go.
        turns: How often it asks for fresh tokens; from the second time on it says the last were rejected.
        rejecting: Whether it says so from the first time on, about the tokens then stored.
        window: As for ``fresh``.
        leeway: As for ``fresh``.
        deadline: Seconds its refreshes may take.
        dies_at: The edge of an effect at which it kills itself: 2n before, 2n + 1 after the nth of its protocol.
        forks: Whether the action is done by a child of the agent, which inherits the agent's open ledger.
    """

    folder: str
    name: str
    action: Literal["login", "fresh", "logout", "hold"] = "fresh"
    waits_at: tuple[str, ...] = ()
    turns: int = 1
    rejecting: bool = False
    window: float = 60
    leeway: float = 10
    deadline: float = LONG_S
    dies_at: int | None = None
    forks: bool = False


class Outcome(msgspec.Struct, frozen=True):
    """How an agent's work ended.

    Attributes:
        returned: The access tokens it got, one for each turn.
        raised: Class name of the error that ended it instead.
        text: All that was said about the error: its text and its traceback.
        fields: Attributes of the error that JSON can carry.
    """

    returned: list[str | None] = []
    raised: str | None = None
    text: str = ""
    fields: dict[str, Any] = {}


# The agent's side


class Points:
    """Where an agent is in its work, told to a file; waits there for another when it is meant to."""

    def __init__(self, job: Job) -> None:
        self._path = Path(job.folder, "said", job.name)
        self._waits_at = job.waits_at

    def say(self, point: str, detail: Any = None) -> None:
        """Tell, and go on."""
        line = msgspec.json.encode({"point": point, "detail": detail}) + b"\n"
        with self._path.open("ab", buffering=0) as file:
            file.write(line)

    def reach(self, point: str) -> None:
        """Tell, and wait to be let go if that was asked for."""
        self.say(point)
        if point in self._waits_at:
            gate = self._path.with_name(f"{self._path.name}.{point}.go")
            eventually(lambda: gate.exists() or None, f"let go at {point}")


class SelfKillingDriver:
    """Performs a protocol like the library's driver, and kills its process at one edge of one effect.

    Counts the effects of guarded parts too, and says how many edges there were when it comes to the end.
    """

    def __init__(self, ledger: LeaseLedger, server: AuthorizationServer, dies_at: int) -> None:
        self._ledger = ledger
        self._server = server
        self._dies_at = dies_at
        self.edges = 0

    def run(self, protocol: Procedure[Any]) -> Any:
        """The protocol's outcome, if it lives to see it."""
        outcome: Any = None
        failure: BaseException | None = None
        while True:
            try:
                effect = protocol.send(outcome) if failure is None else protocol.throw(failure)
            except StopIteration as stop:
                return stop.value
            outcome = failure = None
            self._edge()
            try:
                match effect:
                    case Step(call):
                        outcome = call()
                    case Pause(seconds):
                        time.sleep(seconds)
                    case Exchange(tokens):
                        outcome = self._server.refresh(tokens)
                    case Revoke(tokens):
                        self._server.revoke(tokens)
                    case Guarded(key, part):
                        with acquire_auth_login_lifecycle_guard(key, ledger=self._ledger):
                            outcome = self.run(part())
            except BaseException as error:  # the protocol decides
                failure = error
            self._edge()

    def _edge(self) -> None:
        if self.edges == self._dies_at:
            die()
        self.edges += 1


def _perform(job: Job, world: World, points: Points, ledger: LeaseLedger) -> list[str | None]:
    if job.dies_at is not None:
        return _perform_and_die(job, world, points, ledger, job.dies_at)

    def refresh(tokens: PersistedTokens) -> PersistedTokens:
        points.reach("sending")
        answer = world.server.refresh(tokens)
        points.reach("answered")
        return answer

    def is_gone(holder: Holder) -> bool:
        points.reach("watching")
        return is_provably_gone(holder)

    store = FaultyStore(world.store, Faults())
    # The second time it reads the tokens of a plain refresh, it is about to send them.
    store.faults.before("load", lambda: points.reach("checked"), calls=(2,))
    store.faults.before("save", lambda: points.reach("saving"))
    store.faults.after("save", lambda: points.reach("saved"))
    credentials = Credentials(ledger, store, refresh_deadline=job.deadline, revoke=world.server.revoke, is_gone=is_gone)
    points.reach("calling")
    match job.action:
        case "login":
            tokens = world.server.log_in()
            credentials.login(KEY, tokens)
            return [tokens.primary_secret]
        case "logout":
            credentials.logout(KEY)
            return []
        case "hold":
            with acquire_auth_login_lifecycle_guard(KEY, ledger=ledger):
                points.reach("holding")
            return []
        case "fresh":
            returned: list[str | None] = []
            last = world.store.load(KEY) if job.rejecting else None
            for _ in range(job.turns):
                last = credentials.fresh(KEY, refresh, window=job.window, leeway=job.leeway, rejected=last)
                returned.append(last.primary_secret)
            return returned


def _perform_and_die(job: Job, world: World, points: Points, ledger: LeaseLedger, dies_at: int) -> list[str | None]:
    new = world.server.log_in()
    protocols: dict[str, Callable[[], Procedure[Any]]] = {
        "login": lambda: guarded(KEY, lambda: login(ledger, world.store, KEY, new, None, None)),
        "fresh": lambda: fresh_tokens(
            ledger,
            world.store,
            FreshRequest(KEY, job.window, job.leeway, None, job.deadline),
            monotonic=time.monotonic,
        ),
        "logout": lambda: guarded(KEY, lambda: logout(ledger, world.store, KEY)),
    }
    driver = SelfKillingDriver(ledger, world.server, dies_at)
    driver.run(protocols[job.action]())
    points.say("lived", driver.edges)
    return []


def _work(job: Job) -> None:
    world = World(Path(job.folder))
    points = Points(job)
    log = world.agents_log.open("ab", buffering=0)
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr, force=True)
    try:
        with world.open_ledger(actor=job.name) as ledger:
            if job.forks:
                ledger.state(KEY)
                if child := os.fork():
                    os.waitpid(child, 0)
                    os._exit(0)
                with world.open_ledger(actor=f"child of {job.name}") as own:
                    outcome = Outcome(_perform(job, world, points, own))
            else:
                outcome = Outcome(_perform(job, world, points, ledger))
    except BaseException as error:  # told to the test
        said = "".join(traceback.format_exception(error)) + repr(error) + str(error)
        fields = {name: value for name, value in vars(error).items() if isinstance(value, str | int | float)}
        outcome = Outcome([], type(error).__name__, said, fields)
    points.say("ended", outcome)


def _main() -> None:
    """Fork an agent for every job that comes in, and reap those that ended when asked."""
    while line := sys.stdin.readline():
        order = json.loads(line)
        if "reap" in order:
            pid, status = os.waitpid(order["reap"], os.WNOHANG)
            answer = None if pid == 0 else os.waitstatus_to_exitcode(status)
        else:
            answer = os.fork()
            if answer == 0:
                try:
                    _work(msgspec.convert(order, Job))
                finally:
                    os._exit(0)
        sys.stdout.write(f"{json.dumps(answer)}\n")
        sys.stdout.flush()


# The test's side


class Agent:
    """A process at work for a test."""

    def __init__(self, crew: "Crew", job: Job) -> None:
        self._crew = crew
        self.job = job
        self._path = Path(job.folder, "said", job.name)
        self.pid = crew.order(msgspec.to_builtins(job))
        self._status: int | None = None

    def said(self, point: str) -> list[Any]:
        """What was told at a point, once for each time it was reached."""
        if not self._path.exists():
            return []
        whole_lines = self._path.read_bytes().rpartition(b"\n")[0].splitlines()
        lines = [json.loads(line) for line in whole_lines]
        return [line["detail"] for line in lines if line["point"] == point]

    def wait_until(self, point: str) -> "Agent":
        """Wait until it has reached a point."""

        def reached() -> bool | None:
            ended = self.said("ended")
            assert not ended or self.said(point), f"{self.job.name} never reached {point}: {ended}"
            return bool(self.said(point)) or None

        eventually(reached, f"{self.job.name} reaches {point}")
        return self

    def let_go(self, point: str) -> "Agent":
        """Have it go on from a point where it waits, or will."""
        self._path.with_name(f"{self._path.name}.{point}.go").touch()
        return self

    def signal(self, number: signal.Signals) -> "Agent":
        """Send it a signal."""
        os.kill(self.pid, number)
        return self

    def kill(self) -> "Agent":
        """Kill it, and wait until it is no more."""
        self.signal(signal.SIGKILL)
        assert self.exit_status() == -signal.SIGKILL
        return self

    def exit_status(self) -> int:
        """Wait for its end and reap it."""
        if self._status is None:
            self._status = eventually(lambda: self._crew.order({"reap": self.pid}), f"{self.job.name} ends")
        return self._status

    def outcome(self) -> Outcome:
        """Wait for the end of its work."""

        def told_at_the_end() -> list[Any] | None:
            if self._status is None:
                self._status = self._crew.order({"reap": self.pid})
            told = self.said("ended")
            assert told or self._status is None, f"{self.job.name} died: {self._status}"
            return told or None

        (told,) = eventually(told_at_the_end, f"{self.job.name} ends")
        outcome = msgspec.convert(told, Outcome)
        assert CANARY not in outcome.text, "an error told a secret"
        return outcome


class Crew:
    """Starts agents, and lets none of them outlive the test."""

    def __init__(self, stdin: IO[str], stdout: IO[str]) -> None:
        self._stdin = stdin
        self._stdout = stdout
        self._one_at_a_time = threading.Lock()
        self._agents: list[Agent] = []

    def order(self, order: Any) -> Any:
        """One line to the process that forks, and its answer."""
        with self._one_at_a_time:
            self._stdin.write(f"{json.dumps(order)}\n")
            self._stdin.flush()
            return json.loads(self._stdout.readline())

    def start(self, world: World, name: str = "agent", **job: Any) -> Agent:
        """Start an agent in a world. Two of one name are numbered."""
        number = sum(agent.job.folder == str(world.folder) for agent in self._agents)
        agent = Agent(self, Job(folder=str(world.folder), name=f"{name}-{number}", **job))
        self._agents.append(agent)
        return agent

    def end_all(self) -> None:
        """Kill whoever still lives."""
        for agent in self._agents:
            if agent._status is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(agent.pid, signal.SIGKILL)
                agent.exit_status()
        self._agents.clear()


@contextlib.contextmanager
def running_crew() -> Iterator[Crew]:
    """A process to fork agents from, for as long as the block lasts."""
    here = Path(__file__).parent
    process = subprocess.Popen(
        [sys.executable, "-m", "agents"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(here), str(here.parent)))},
    )
    assert process.stdin is not None and process.stdout is not None
    crew = Crew(process.stdin, process.stdout)
    try:
        yield crew
        crew.end_all()
    finally:
        process.stdin.close()
        process.wait(LONG_S)
        process.stdout.close()


if __name__ == "__main__":
    _main()
