"""A ledger with every kind of row in its audit file, for those who change the file and see whether it shows."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from projections.audit import AuditLog

OPENAI, WORK, OTHER = (LeaseKey.parse(text) for text in ("dev:openai", "dev:openai:work", "prod:anthropic"))


class Scene(NamedTuple):
    """A ledger with every kind of row, and a file with an audit of it that keeps evidence too."""

    ledger: LeaseLedger
    path: Path
    audit_path: Path


def _live(ledger: LeaseLedger) -> None:
    for cause in (None, "because"):
        ledger.acquire_lease(OPENAI, 2_000_000_000, cause=cause)
        ledger.mark_expiring(OPENAI, cause=cause)
        attempt = ledger.begin_refresh(OPENAI, cause=cause)
        ledger.complete_refresh(OPENAI, 2**63, 1_900_000_000, attempt, recovered=bool(cause), cause=cause)
        ledger.begin_refresh(OPENAI, cause=cause)
        ledger.refresh_failed(OPENAI, False, error="TimeoutError", status=503, retry_after=1.5, cause=cause)
        ledger.mark_reauth_required(OPENAI, reason="revoked", cause=cause)
        ledger.acquire_lease(OPENAI, 2_000_000_000, cause=cause)
        ledger.begin_refresh(OPENAI, cause=cause)
        ledger.refresh_failed(OPENAI, True, error="invalid_grant", status=400, cause=cause)
        captured = ledger.snapshot(OPENAI)
        ledger.release_credential_lifecycle(OPENAI, cause=cause)
        ledger.release_lease(OPENAI, cause=cause)
        ledger.restore_auth_lifecycle_snapshot(OPENAI, captured, cause=cause)
    ledger.acquire_lease(WORK, 2**64 - 1, correlation_id="ticket 7")
    ledger.begin_refresh(WORK)
    ledger.acquire_lease(OTHER, 5)


@contextmanager
def _around_the_guards(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        triggers = raw.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            raw.execute(f"DROP TRIGGER {name}")
        yield raw
        for _, statement in triggers:
            raw.execute(statement)


@contextmanager
def audited_scene(folder: Path) -> Iterator[Scene]:
    """Make one in a folder. One event of it was changed for a while, which the audit file keeps as evidence."""
    path = folder / "auth.db"
    clock = iter(range(1_700_000_000_000, 1_800_000_000_000, 1_000))
    with LeaseLedger.open(f"sqlite:///{path}?synchronous=normal", clock=lambda: next(clock), actor="ada") as ledger:
        _live(ledger)
        last = ledger.recorder.last_position()
        with AuditLog.open(ledger) as audit:
            with _around_the_guards(path) as raw:
                ((true,),) = raw.execute("SELECT state FROM stored_events WHERE rowid = ?", (last,)).fetchall()
                change = "UPDATE stored_events SET state = ? WHERE rowid = ?"
                raw.execute(change, (true.replace('"ada"', '"eve"'), last))
                audit.catch_up()
                raw.execute(change, (true, last))
            audit.catch_up()
            audit.rebuild()
        yield Scene(ledger, path, path.with_name("auth.audit.db"))
