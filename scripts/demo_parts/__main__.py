"""Run both halves and compare: what ``scripts/demo`` does once everything is installed."""

import io
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

import click
from oauth_server.client import OAuthClient
from oauth_server.running import ServerNotStarted, running_server
from rich.console import Console

from demo_parts import naive, through_ledger
from demo_parts.checks import checks, events_of, generations_by_refresh
from demo_parts.crew import AgentFailed, Crew
from demo_parts.kills import victims
from demo_parts.plan import Half, Moment, Plan
from demo_parts.results import Result, side_by_side
from ledger import LeaseEvent

ACCESS_TOKEN_SECONDS = 2
INTERRUPTED = 130
PROJECT = Path(__file__).resolve().parents[2]

console = Console(highlight=False)


@click.command(help="Eight agents share one login: each for itself, then through the ledger.")
@click.option("--seconds", type=click.FloatRange(4, 600), default=20, show_default=True, help="Per half.")
@click.option("--agents", type=click.IntRange(2, 32), default=8, show_default=True, help="Agent processes.")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=PROJECT / "demo-output",
    show_default="demo-output in the project's folder",
    help="Where each run keeps its ledger and tokens.",
)
def main(seconds: float, agents: int, output: Path) -> None:
    """Exit with 0 only if the ledger kept its promise."""
    signal.signal(signal.SIGTERM, _stop)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Lines are shown as they come, also through a pipe, and in order with those of the commands run here.
        sys.stdout.reconfigure(line_buffering=True)
    folder = _new_folder(output.resolve())
    try:
        kept = _demonstrate(folder, agents, seconds)
    except (AgentFailed, ServerNotStarted) as error:
        console.print(str(error), style="red", markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("Interrupted; all agents and the server have ended.")
        sys.exit(INTERRUPTED)
    sys.exit(0 if kept else 1)


def _demonstrate(folder: Path, agents: int, seconds: float) -> bool:
    """Both halves, then the evidence; returns whether the promise was kept."""
    console.print(
        f"{agents} agents share one login for {seconds:g} seconds. "
        f"Access tokens live {ACCESS_TOKEN_SECONDS} seconds; a refresh token may be spent once.\n",
        soft_wrap=True,
    )
    console.print("[bold]Without the ledger[/]: each agent refreshes for itself from a shared file")
    without, _ = _run_half("naive", folder / "without-ledger", agents, seconds)
    console.print("\n[bold]With the ledger[/]: the same agents, through Credentials.fresh")
    home = folder / "with-ledger"
    with_ledger, killed = _run_half("ledger", home, agents, seconds)

    console.print()
    console.print(side_by_side(without, with_ledger))
    url = through_ledger.database_url(home)
    console.print("\n[bold]The history of the lease[/]")
    shown = _lease_ledger(home, "history", str(through_ledger.KEY)) == 0
    console.print("\n[bold]Verification[/]")
    verified = _lease_ledger(home, "verify") == 0
    events = events_of(url, through_ledger.KEY)
    kept = _tell_checks(with_ledger, events, killed, verified=shown and verified)
    _tell_next_commands(home)
    return kept


def _run_half(half: Half, folder: Path, agents: int, seconds: float) -> tuple[Result, dict[Moment, str]]:
    """One half, with a server of its own; returns what came of it, and who was killed when."""
    folder.mkdir(parents=True)
    with running_server(access_token_seconds=ACCESS_TOKEN_SECONDS) as server, OAuthClient(server) as client:
        with Crew(agents, folder) as crew:
            # Tokens live so briefly that the login waits until every agent is ready to use them.
            first_login = naive.first_login if half == "naive" else through_ledger.first_login
            first_login(client, folder)
            plan = Plan.starting_at(time.time(), half=half, server=server, folder=folder, seconds=seconds)
            crew.run(plan, _progress(plan, client), _say)
        stats = client.stats()
    generations = None
    if half == "ledger":
        url = through_ledger.database_url(folder)
        generations = generations_by_refresh(events_of(url, through_ledger.KEY))
    result = Result.from_stats(stats, generations)
    _say(f"ended: {result.in_short()}")
    return result, victims(plan)


def _progress(plan: Plan, client: OAuthClient) -> Callable[[], None]:
    """A function that, called often, prints a line at each quarter of the time."""
    quarter = (plan.stop_at - plan.begin_at) / 4
    due = [plan.begin_at + quarter * count for count in (1, 2, 3)]

    def look() -> None:
        if due and time.time() >= due[0]:
            elapsed = due.pop(0) - plan.begin_at
            _say(f"{elapsed:4.0f} s: {Result.from_stats(client.stats()).in_short()}")

    return look


def _say(sentence: str) -> None:
    console.print(f"  {sentence}", markup=False, soft_wrap=True)


def _lease_ledger(home: Path, *arguments: str) -> int:
    """Run the command line on the ledger of this run, as a reader would; returns its exit code."""
    command = [str(_program()), "--db", through_ledger.database_url(home), *arguments]
    console.print(f"$ {_shown(home, *arguments)}", style="dim", markup=False, soft_wrap=True)
    return subprocess.run(command, check=False).returncode


def _program() -> Path:
    return Path(sys.executable).with_name("lease-ledger")


def _shown(home: Path, *arguments: str) -> str:
    """The same command as a person in this folder would type it."""
    url = f"sqlite:///{_nearest(home / 'auth.db')}"
    return shlex.join([_nearest(_program()), "--db", url, *arguments])


def _nearest(path: Path) -> str:
    """The path from here, if it lies below."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _tell_checks(result: Result, events: Sequence[LeaseEvent], killed: dict[Moment, str], *, verified: bool) -> bool:
    console.print("\n[bold]The promise[/]")
    outcome = [(check.sentence, check.holds) for check in checks(result, events, killed)]
    outcome.append(("the ledger shows its history and verifies", verified))
    for sentence, holds in outcome:
        console.print("  [green]ok[/]    " if holds else "  [red]BROKEN[/]", end=" ")
        console.print(sentence, markup=False)
    return all(holds for _, holds in outcome)


def _tell_next_commands(home: Path) -> None:
    key = str(through_ledger.KEY)
    tokens = _nearest(through_ledger.token_folder(home))
    console.print(f"\nThe ledger lies in {_nearest(home / 'auth.db')}. Try next:", soft_wrap=True)
    for arguments in (
        ["leases"],
        ["--store", tokens, "status", key],
        ["--store", tokens, "stale"],
        ["explain", key],
        ["replay", key],
        ["report", _nearest(home / "report.html")],
        ["history", key, "--json"],
        ["checkpoint"],
    ):
        console.print(f"  {_shown(home, *arguments)}", markup=False, soft_wrap=True)
    query = "select version, tag, actor, body from lease_events"
    console.print(f"  sqlite3 {_nearest(home / 'auth.db')} {shlex.quote(query)}", markup=False, soft_wrap=True)


def _new_folder(output: Path) -> Path:
    """A folder of its own for this run, so that an earlier one can still be read."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for suffix in ("", *(f"-{count}" for count in range(2, 100))):
        folder = output / f"{stamp}{suffix}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise click.ClickException(f"{output} is full of runs of this very second")


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main(prog_name="scripts/demo")
