"""A ledger, a store and a server that rotates, and what must hold of them whatever was struck."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from ledger import (
    AuthLeasePhase,
    Credentials,
    FileTokenStore,
    LeaseKey,
    LeaseLedger,
    LeaseLedgerError,
    PersistedTokens,
    acquire_auth_login_lifecycle_guard,
)

HOUR_S: Final = 3600
SOON_S: Final = 2.0
"""How soon something that is free can be had on a slow machine."""


class Server:
    """Gives new tokens for the live refresh token of a key, once; the one before is dead from then on."""

    def __init__(self) -> None:
        self.live: dict[LeaseKey, str] = {}
        self.spent: dict[LeaseKey, list[str]] = {}
        self._issued = 0

    def _issue(self, key: LeaseKey, lives_s: int) -> PersistedTokens:
        self._issued += 1
        self.live[key] = f"refresh-{self._issued}"
        return PersistedTokens(
            "external_tokens",
            primary_secret=f"access-{self._issued}",
            refresh_token=self.live[key],
            expires_at=int(time.time()) + lives_s,
        )

    def log_in(self, key: LeaseKey, lives_s: int = HOUR_S) -> PersistedTokens:
        """A person's new login."""
        return self._issue(key, lives_s)

    def refresh(self, key: LeaseKey, tokens: PersistedTokens) -> PersistedTokens:
        """The exchange."""
        assert tokens.refresh_token == self.live[key], "a dead refresh token was sent"
        self.spent.setdefault(key, []).append(self.live[key])
        return self._issue(key, HOUR_S)


class World:
    """Everything that one run of the harness works on; keys are never used twice."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"sqlite:///{folder}/auth.db?synchronous=normal"
        self.ledger = LeaseLedger.open(self.url, actor="interrupted")
        self.store = FileTokenStore(folder / "tokens")
        self.credentials = Credentials(self.ledger, self.store, refresh_deadline=30)
        self.server = Server()
        self.acknowledged: dict[LeaseKey, int] = {}
        self._keys = 0

    def new_key(self) -> LeaseKey:
        self._keys += 1
        return LeaseKey("point", f"n{self._keys}")

    def refresh(self, key: LeaseKey) -> Callable[[PersistedTokens], PersistedTokens]:
        return lambda tokens: self.server.refresh(key, tokens)

    def acknowledge(self, key: LeaseKey, version: int) -> None:
        """Remember that the ledger said it had recorded so many events of a key."""
        self.acknowledged[key] = max(version, self.acknowledged.get(key, 0))

    @contextmanager
    def guard_held_for(self, key: LeaseKey, seconds: float) -> Iterator[None]:
        """Somebody else holds the key's guard at the beginning of the block, for a moment."""
        holding = threading.Event()

        def hold() -> None:
            with acquire_auth_login_lifecycle_guard(key, ledger=self.ledger):
                holding.set()
                time.sleep(seconds)

        thread = threading.Thread(target=hold)
        thread.start()
        holding.wait()
        try:
            yield
        finally:
            thread.join()

    def problems(self, key: LeaseKey) -> list[str]:
        """What is wrong after a strike during something done with a key; nothing, when all is well."""
        patient_until_s = time.monotonic() + SOON_S
        # What was left behind comes to its end by itself.
        while (found := list(self._lease_problems(key))) and time.monotonic() < patient_until_s:
            time.sleep(0.01)
        return [*found, *self._lock_problems(key)]

    def _lease_problems(self, key: LeaseKey) -> Iterator[str]:
        state, stored = self.ledger.state(key), self.store.load(key)
        if state.attempt is not None or state.phase is AuthLeasePhase.REFRESHING:
            yield "an attempt stays open that nobody holds"
        live = self.server.live.get(key)
        if live is not None and self.server.spent.get(key) and (stored is None or stored.refresh_token != live):
            yield f"the server's answer is lost: it gave {live}, stored is {stored and stored.refresh_token}"
        if (stored is not None) != state.credential_present:
            yield f"the lease says credential {state.credential_present}, stored is {stored and stored.refresh_token}"

    def _lock_problems(self, key: LeaseKey) -> Iterator[str]:
        try:
            with acquire_auth_login_lifecycle_guard(key, ledger=self.ledger, timeout_s=SOON_S):
                pass
        except LeaseLedgerError as error:
            yield f"the guard is not free: {error}"
        with closing(sqlite3.connect(self.folder / "auth.db", timeout=SOON_S, isolation_level=None)) as other:
            try:
                other.execute("BEGIN IMMEDIATE")
                other.execute("ROLLBACK")
            except sqlite3.OperationalError as error:
                yield f"a transaction was left open: {error}"
                return
            bystander = LeaseKey("by", "stander")
            version = self.ledger.acquire_lease(bystander, 1).version
            assert version is not None
            self.acknowledge(bystander, version)
            query = "SELECT max(originator_version) FROM stored_events WHERE originator_id = ?"
            if other.execute(query, [str(bystander)]).fetchone() != (version,):
                yield "an acknowledged event is not committed"

    def problems_after_reopening(self) -> list[str]:
        """What is missing once everything was closed and opened again."""
        self.ledger.close()
        with LeaseLedger.open(self.url) as ledger:
            missing = [
                f"{key} was acknowledged up to {version}, and ends at {ledger.state(key).version}"
                for key, version in self.acknowledged.items()
                if ledger.state(key).version < version
            ]
            findings = [f"{finding.witness}: {finding.detail}" for finding in ledger.verify().findings]
        return missing + findings
