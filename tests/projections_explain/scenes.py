"""A small world to have incidents in: real ledgers, real stores, and a server that forgives no token spent twice."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from agents import AuthorizationServer
from faults import FaultyStore

from ledger.credentials import Credentials
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.stores import FileTokenStore
from ledger.stores.base import TokenStore
from ledger.tokens import PersistedTokens
from projections.audit import AuditLog
from projections.explain import Verdict

KEY = LeaseKey.parse("dev:openai:work")
HOUR_S = 3600


class Scene:
    """Everything an incident needs, in one folder. Time is the real time, moved on or back as the incident says.

    Attributes:
        server: Where logins come from.
        tokens: The store that all share.
        moved_ms: How far the clock is from the real one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = AuthorizationServer(folder / "server.db")
        self.tokens = FileTokenStore(folder / "tokens")
        self.moved_ms = 0
        self._opened: list[LeaseLedger] = []

    def clock_ms(self) -> int:
        """What the clock shows."""
        return time.time_ns() // 1_000_000 + self.moved_ms

    def ledger(self, actor: str, name: str = "auth.db") -> LeaseLedger:
        """A ledger object as another process would open it."""
        url = f"sqlite:///{self.folder / name}?synchronous=normal"
        ledger = LeaseLedger.open(url, clock=self.clock_ms, actor=actor)
        self._opened.append(ledger)
        return ledger

    def agent(self, name: str, store: TokenStore | None = None, ledger: str = "auth.db", **options: Any) -> Credentials:
        """An agent with a ledger object of its own."""
        return Credentials(self.ledger(name, ledger), self.tokens if store is None else store, **options)

    def faulty_store(self) -> FaultyStore:
        """The shared store, with room for faults."""
        return FaultyStore(self.tokens)

    def log_in(self, actor: str = "person", *, lives: int = 30) -> PersistedTokens:
        """A login whose tokens are due for a refresh at once."""
        tokens = self.server.log_in(lives=lives)
        self.agent(actor).login(KEY, tokens)
        return tokens

    def in_a_process_that_dies(self, work: Callable[[], object]) -> None:
        """Do something in a process of its own, which has to be killed by it."""
        child = os.fork()
        if child == 0:
            try:
                work()
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL

    def explain(self, store: TokenStore | None = None, ledger: str = "auth.db", **options: Any) -> Verdict:
        """The verdict of somebody who comes afterwards."""
        with AuditLog.open(self.ledger("auditor", ledger)) as audit:
            return audit.explain(KEY, store=store, **options)

    def close(self) -> None:
        """Close every ledger object."""
        for ledger in self._opened:
            ledger.close()


def unbounded(tokens: PersistedTokens) -> PersistedTokens:
    """The same tokens without an expiry."""
    return msgspec.structs.replace(tokens, expires_at=None)


def never(_: PersistedTokens) -> PersistedTokens:
    """A refresh function that is not to be called."""
    raise AssertionError("spent a refresh token")
