"""What worker processes of the PostgreSQL tests do; here, so that they can be started by name and cheaply."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any

from pgserver import admin

from ledger.credentials import Credentials
from ledger.guard import acquire_auth_login_lifecycle_guard
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.stores import PostgresTokenStore
from ledger.tokens import PersistedTokens

__all__ = ["CONTEXT", "KEY", "TOKEN_KEY", "exchange", "hold_guard", "refresh_often", "run_all", "write_shared_and_own"]

KEY = LeaseKey.parse("dev:openai:work")
TOKEN_KEY = "bGVhc2UtbGVkZ2VyIHRlc3RzJyB0b2tlbiBrZXkgIzE="

CONTEXT: ForkServerContext = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["pgworkers"])


def run_all(target: Callable[..., None], arguments: Sequence[tuple[Any, ...]]) -> None:
    """Run one process for each of the arguments, all at once; every one must end well."""
    start = CONTEXT.Barrier(len(arguments))
    processes: list[ForkServerProcess] = [CONTEXT.Process(target=target, args=(start, *each)) for each in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * len(processes)


def write_shared_and_own(start: Any, url: str, number: int, each: int) -> None:
    """Log in on the lease that all share and on one of its own, in turns."""
    own = LeaseKey.parse(f"dev:own-{number}")
    with LeaseLedger.open(url) as ledger:
        start.wait(60)
        for expires_at in range(each):
            ledger.acquire_lease(KEY, expires_at)
            ledger.acquire_lease(own, expires_at)
            assert ledger.snapshot(own).generation == expires_at + 1


def exchange(url: str, tokens: PersistedTokens) -> PersistedTokens:
    """Spend a refresh token; spending one twice is an error of the database."""
    insert = f"INSERT INTO {url.rpartition('=')[2]}.exchanges VALUES (%s) RETURNING n"
    with admin(url) as connection:
        time.sleep(0.02)
        ((number,),) = connection.execute(insert.encode(), [tokens.refresh_token]).fetchall()
    return PersistedTokens(
        "claude_ai_oauth", f"access-{number}", refresh_token=f"refresh-{number}", expires_at=int(time.time()) + 3600
    )


def refresh_often(start: Any, url: str, rounds: int) -> None:
    """Have the tokens in hand refused by the server, over and over."""
    with LeaseLedger.open(url) as ledger:
        credentials = Credentials(ledger, PostgresTokenStore(url, key=TOKEN_KEY))
        start.wait(60)
        held = None
        for _ in range(rounds):
            fresh = credentials.fresh(KEY, lambda tokens: exchange(url, tokens), rejected=held)
            assert fresh != held
            held = fresh


def hold_guard(held: Any, url: str, actor: str) -> None:
    """Take the guard and die holding it."""
    with LeaseLedger.open(url, actor=actor) as ledger, acquire_auth_login_lifecycle_guard(KEY, ledger=ledger):
        held.set()
        time.sleep(60)
        os.kill(os.getpid(), signal.SIGKILL)
