"""Ledgers with something in them, ways around their guards, and processes that ask an audit log."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from ledger.errors import LeaseTransitionError
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.recorders.schema import TRIGGERS
from projections.audit import AuditLog

KEYS = [LeaseKey.parse(text) for text in ("dev:openai", "dev:openai:work", "prod:anthropic")]
ASKING = Path(__file__).with_name("asking.py")


class Clock:
    """Time that passes by itself: a second with each look."""

    def __init__(self) -> None:
        self.now_ms = 1_700_000_000_000

    def __call__(self) -> int:
        self.now_ms += 1_000
        return self.now_ms


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the ledger lies."""
    return tmp_path / "auth.db"


@pytest.fixture
def open_ledger() -> Iterator[Callable[[Path], LeaseLedger]]:
    """Opens ledgers that are closed in the end."""
    opened: list[LeaseLedger] = []

    def open_at(path: Path) -> LeaseLedger:
        ledger = LeaseLedger.open(f"sqlite:///{path}?synchronous=normal", clock=Clock(), actor="agent one")
        opened.append(ledger)
        return ledger

    yield open_at
    for ledger in opened:
        ledger.close()


@pytest.fixture
def ledger(path: Path, open_ledger: Callable[[Path], LeaseLedger]) -> LeaseLedger:
    """An empty ledger in a file."""
    return open_ledger(path)


@pytest.fixture
def live() -> Callable[..., None]:
    """Lets leases live: logins, refreshes, failures, logouts, for so many rounds."""

    def rounds(ledger: LeaseLedger, count: int = 1, keys: list[LeaseKey] = KEYS) -> None:
        for turn in range(count):
            for key in keys:
                ledger.acquire_lease(key, 2_000_000_000 + turn, cause="a person logged in")
                ledger.begin_refresh(key)
                ledger.complete_refresh(key, 2_000_000_100, 1_900_000_000)
                ledger.begin_refresh(key)
                ledger.refresh_failed(key, permanent=False, error="TimeoutError", status=503)
                if turn % 2:
                    ledger.release_lease(key)

    return rounds


@pytest.fixture
def going_around_the_guards(path: Path) -> Callable[[], Any]:
    """A raw connection to the ledger's file, its triggers dropped for as long as it lasts."""

    @contextmanager
    def connection() -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(path, isolation_level=None)) as raw:
            for name in TRIGGERS:
                raw.execute(f"DROP TRIGGER {name}")
            yield raw
            for statement in TRIGGERS.values():
                raw.execute(statement.strip())

    return connection


@pytest.fixture
def contents() -> Callable[[AuditLog], dict[str, list[tuple[Any, ...]]]]:
    """Every row of an audit file as it is, without asking it anything."""

    def read(audit: AuditLog) -> dict[str, list[tuple[Any, ...]]]:
        with audit._file().reading() as db:
            return {
                table: db.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()
                for table in ("events", "leases", "checkpoint")
            }

    return read


@pytest.fixture
def ask() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts processes that do something with the audit log of a ledger; none outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: object, **options: Any) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        process = subprocess.Popen(
            [sys.executable, "-P", str(ASKING), *map(str, words)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        with process, suppress(ValueError):
            process.communicate()


@pytest.fixture
def obey() -> Callable[[LeaseLedger, LeaseKey, str, int], None]:
    """Tries one command on a lease; a refusal changes nothing and is passed over."""

    def run(ledger: LeaseLedger, key: LeaseKey, command: str, number: int) -> None:
        with suppress(LeaseTransitionError):
            match command:
                case "acquire":
                    ledger.acquire_lease(key, number)
                case "complete":
                    ledger.complete_refresh(key, number, 5)
                case "fail":
                    ledger.refresh_failed(key, permanent=False, error="TimeoutError")
                case "refuse":
                    ledger.refresh_failed(key, permanent=True, error="invalid_grant", status=400, retry_after=1.5)
                case "restore":
                    ledger.restore_auth_lifecycle_snapshot(key, ledger.snapshot(KEYS[0]), cause="undo")
                case _:
                    getattr(ledger, command)(key)

    return run
