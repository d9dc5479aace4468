"""Run the campaign and print its table."""

import argparse
import contextlib
import mmap
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from oauth_server.client import OAuthClient
from oauth_server.running import running_server
from rich.console import Console
from rich.table import Table

from kill_parts.invariants import Outcome, broken_invariants, outcome_of
from kill_parts.worker import HTTP_TIMEOUT_S, KEYS, Moment, Task, credentials_of, work

SHORTEST_LIFE_S = 0.02
LONGEST_LIFE_S = 0.12


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--ledger", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--agents", type=int, default=6)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    return parser.parse_args()


@contextlib.contextmanager
def _ledger_url(kind: str, folder: Path) -> Iterator[str]:
    if kind == "sqlite":
        yield f"sqlite:///{folder}/auth.db"
        return
    from pgserver import fresh_schema, server_url  # noqa: PLC0415  # needs the development group's server

    yield fresh_schema(server_url())


def _spawn(task: Task) -> int:
    child = os.fork()
    if child:
        return child
    try:
        work(task)
    finally:
        os._exit(1)


class _Campaign:
    def __init__(self, url: str, folder: Path, client: OAuthClient, agents: int, seed: int) -> None:
        self.moments = mmap.mmap(-1, agents + 1)
        self.choices = random.Random(seed)
        self.killed: Counter[str] = Counter()
        self.task = Task(url, folder / "tokens", client, self.moments, agents, seed)
        self.agents: dict[int, int] = {}
        self.born = 0
        for slot in range(agents):
            self._bear(slot)

    def _bear(self, slot: int) -> None:
        self.born += 1
        self.moments[slot] = Moment.IDLE
        self.agents[slot] = _spawn(self.task._replace(slot=slot, seed=self.choices.randrange(2**32)))

    def kill_one(self) -> None:
        """Kill an agent chosen by chance, and let another take its place."""
        slot = self.choices.randrange(len(self.agents))
        os.kill(self.agents[slot], signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(self.agents[slot], 0)[1])
        if code != -signal.SIGKILL:
            raise RuntimeError(f"an agent ended by itself with exit code {code}; its error is on stderr")
        self.killed[Moment(self.moments[slot]).name] += 1
        self._bear(slot)

    def end(self) -> None:
        """Kill all that still live."""
        for child in self.agents.values():
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        self.agents.clear()


def _recovered(campaign: _Campaign) -> tuple[Outcome, list[str]]:
    credentials = credentials_of(campaign.task, "recovery")
    with credentials.ledger as ledger:
        for key in KEYS:
            credentials.recover(key)
        return outcome_of(ledger), list(broken_invariants(credentials, KEYS))


def _print(campaign: _Campaign, outcome: Outcome, server: dict[str, object], took_s: float) -> None:
    table = Table("what", "count", title=f"{campaign.killed.total()} kills in {took_s:.0f} s")
    for moment in Moment:
        table.add_row(f"killed while {moment.name.lower()}", str(campaign.killed[moment.name]))
    for name, count in outcome._asdict().items():
        table.add_row(f"on record: {name.replace('_', ' ')}", str(count))
    for name, count in server.items():
        if isinstance(count, int | dict) and name != "logins":
            table.add_row(f"server: {name}", str(count))
    Console(width=100).print(table)


def main() -> int:
    """Run it; 0 if every invariant held."""
    arguments = _arguments()
    folder = Path(tempfile.mkdtemp(prefix="lease-ledger-kills-"))
    print(f"seed {arguments.seed}, {arguments.ledger} ledger, files in {folder}", flush=True)
    started = time.monotonic()
    with _ledger_url(arguments.ledger, folder) as url, running_server(access_token_seconds=60) as server:
        campaign = _Campaign(url, folder, OAuthClient(server, timeout=HTTP_TIMEOUT_S), arguments.agents, arguments.seed)
        try:
            for number in range(1, arguments.kills + 1):
                time.sleep(campaign.choices.uniform(SHORTEST_LIFE_S, LONGEST_LIFE_S))
                campaign.kill_one()
                if number % 100 == 0:
                    print(f"  {number} kills", flush=True)
        finally:
            campaign.end()
        with OAuthClient(server) as client:
            counts = client.stats()
        outcome, broken = _recovered(campaign)
    _print(campaign, outcome, counts, time.monotonic() - started)
    for promise in broken:
        print(f"BROKEN {promise}")
    print(f"{len(broken)} invariants broken")
    if not broken:
        shutil.rmtree(folder)
    return 1 if broken else 0


sys.exit(main())
