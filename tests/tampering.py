"""A small ledger to damage, the ways around its guards, and what everything that reads it answers afterwards."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from ledger.errors import LeaseLedgerError
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.recorders.schema import TRIGGERS
from ledger.verification import Checkpoint, Finding, Verification
from projections.audit import AuditLog

WORK = LeaseKey.parse("dev:openai:work")
HOME = LeaseKey.parse("dev:openai:home")
OTHER = LeaseKey.parse("prod:github")
LEASES = (WORK, HOME, OTHER)
SMALL_PAGE_BYTES = 1_024
SIDE_FILES = ("-wal", "-shm", "-journal")

Change = Callable[[sqlite3.Connection], object]


class Specimen(NamedTuple):
    """An untouched ledger.

    Attributes:
        content: Its file.
        checkpoint: The checkpoint somebody kept of it.
        answers: What it answers.
    """

    content: bytes
    checkpoint: Checkpoint
    answers: "Answers"

    def __repr__(self) -> str:
        return f"<a ledger of {self.checkpoint.position} events>"


class Answers(NamedTuple):
    """Everything a ledger answers about leases."""

    keys: list[str]
    log: list[Any]
    streams: dict[str, list[Any]]
    states: dict[str, Any]


def open_at(path: Path) -> LeaseLedger:
    times, ids = count(1_000), count(1)
    return LeaseLedger.open(
        f"sqlite:///{path}?synchronous=normal",
        clock=lambda: next(times),
        actor="tester",
        new_id=lambda: f"{next(ids):032x}",
    )


def live_through_everything(ledger: LeaseLedger) -> None:
    """Every kind of event, in three streams that take turns; one of them long enough to have stored folds."""
    for key in LEASES:
        ledger.acquire_lease(key, 500, cause="login", correlation_id="run-1")
    for key in (WORK, HOME):
        before = ledger.snapshot(key)
        ledger.mark_expiring(key)
        attempt = ledger.begin_refresh(key, duration_ms=7, fingerprint="hmac:1")
        ledger.complete_refresh(key, 900, 800, attempt)
        attempt = ledger.begin_refresh(key)
        ledger.refresh_failed(key, False, attempt=attempt, error="slow_down", status=503, retry_after=2.5)
        attempt = ledger.begin_refresh(key)
        ledger.refresh_failed(key, True, attempt=attempt, error="invalid_grant", status=400)
        ledger.acquire_lease(key, 1_500)
        ledger.mark_reauth_required(key, reason="expired")
        ledger.restore_auth_lifecycle_snapshot(key, before)
        ledger.release_credential_lifecycle(key)
        ledger.acquire_lease(key, 2_500)
        ledger.release_lease(key, cause="logout " * 140)
    for number in range(10):
        ledger.acquire_lease(WORK, 3_000 + number)
        ledger.mark_expiring(WORK)


def make_specimen(folder: Path, page_bytes: int | None = None) -> Specimen:
    """A ledger with every kind of event, in pages of a size of its own if one is given."""
    path = folder / "specimen.db"
    with open_at(path) as ledger:
        live_through_everything(ledger)
    if page_bytes is not None:
        # Small pages give a small file every kind of page: inner and outer ones of each tree, and overflowing ones.
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")
            connection.execute(f"PRAGMA page_size = {page_bytes}")
            connection.execute("VACUUM")
            connection.execute("PRAGMA journal_mode = WAL")
    with open_at(path) as ledger:
        assert ledger.verify().ok
        checkpoint, answers = ledger.checkpoint(), everything_answered(ledger)
    return Specimen(path.read_bytes(), checkpoint, answers)


def everything_answered(ledger: LeaseLedger) -> Answers:
    return Answers(
        list(map(str, ledger.keys())),
        list(ledger.read_all()),
        {str(key): list(ledger.read(key)) for key in LEASES},
        {str(key): (ledger.state(key), ledger.snapshot(key)) for key in LEASES},
    )


def put(path: Path, content: bytes) -> None:
    """Lay a file down as its own whole, without what a former one left beside it."""
    for suffix in ("", *SIDE_FILES):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    path.write_bytes(content)
    path.with_name(f"{path.stem}.audit{path.suffix}").unlink(missing_ok=True)
    shutil.rmtree(path.with_name(f"{path.name}.locks"), ignore_errors=True)


class Judgement(NamedTuple):
    """What became of a damaged ledger.

    Attributes:
        verification: What verifying it found; ``None`` if it could not be opened.
        answers: All its answers; ``None`` if any could not be given.
    """

    verification: Verification | None
    answers: Answers | None


def judge(path: Path, kept: Checkpoint | None = None) -> Judgement:
    """Open and verify a ledger and ask it everything: whatever it is not asked rightly for is one of its own errors.

    Raises whatever else any of that raises.
    """
    try:
        ledger = open_at(path)
    except LeaseLedgerError:
        return Judgement(None, None)
    with ledger:
        verification = ledger.verify(kept)
        try:
            return Judgement(verification, everything_answered(ledger))
        except LeaseLedgerError:
            return Judgement(verification, None)


def use_in_every_other_way(path: Path) -> None:
    """Whatever else reads or writes a ledger: it works, or raises one of the ledger's own errors."""
    try:
        ledger = open_at(path)
    except LeaseLedgerError:
        return
    with ledger:
        uses = [
            ledger.checkpoint,
            ledger.keys,
            lambda: list(ledger.read_all()),
            lambda: ledger.find(WORK, "0" * 32),
            *(lambda key=key: ledger.state(key) for key in LEASES),
            *(lambda key=key: list(ledger.read(key)) for key in LEASES),
            *(lambda version=version: ledger.state(WORK, version) for version in (1, 33, 40)),
            lambda: ledger.begin_refresh(WORK),
            *(lambda key=key: ledger.acquire_lease(key, 5) for key in LEASES),
            *(lambda key=key: ledger.release_lease(key) for key in LEASES),
        ]
        for use in uses:
            _unless_refused(use)
        with AuditLog.open(ledger) as audit:
            _unless_refused(audit.catch_up)
            _unless_refused(audit.leases)
            audit.verify()


def _unless_refused(use: Any) -> None:
    with suppress(LeaseLedgerError):
        use()


@contextmanager
def around_the_guards(path: Path) -> Iterator[sqlite3.Connection]:
    """A raw connection without guard triggers and constraints; both stand there again afterwards, to the letter."""
    with closing(_connect(path)) as connection:
        schema = dict(connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'table'").fetchall())
        for trigger in TRIGGERS:
            connection.execute(f"DROP TRIGGER {trigger}")
        connection.execute(
            "UPDATE sqlite_schema SET sql = replace(sql, ' NOT NULL', '') WHERE name IN ('ledger_meta', 'stored_folds')"
        )
    with closing(_connect(path)) as connection:
        yield connection
    with closing(_connect(path)) as connection:
        for name, sql in schema.items():
            connection.execute("UPDATE sqlite_schema SET sql = ? WHERE type = 'table' AND name = ?", (sql, name))
        for statement in TRIGGERS.values():
            connection.execute(statement.strip())


@contextmanager
def raw_connection(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that may change everything, the schema's own table included, and undoes nothing afterwards."""
    with closing(_connect(path)) as connection:
        yield connection


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("PRAGMA synchronous = OFF")
    return connection


def is_changed(specimen: Specimen, path: Path, change: Change) -> bool:
    """Change a fresh copy of the file; whether it is another afterwards, for not every value can be stored."""
    put(path, specimen.content)
    with around_the_guards(path) as connection:
        before = _dump(connection)
        change(connection)
        return _dump(connection) != before


def _dump(connection: sqlite3.Connection) -> list[Any]:
    queries = (
        "SELECT rowid, quote(originator_id), quote(originator_version), quote(topic), quote(state), typeof(topic) "
        "FROM stored_events",
        "SELECT quote(stream), quote(version), quote(fold), quote(digest), quote(state) FROM stored_folds",
        "SELECT quote(ledger_id), quote(format), quote(lowest_reader) FROM ledger_meta",
    )
    connection.text_factory = bytes
    try:
        return [connection.execute(query).fetchall() for query in queries]
    finally:
        connection.text_factory = str


def findings_of(path: Path, specimen: Specimen | None = None) -> tuple[Finding, ...]:
    """What verifying finds, against the checkpoint kept of the specimen if one is given."""
    with open_at(path) as ledger:
        return ledger.verify(specimen.checkpoint if specimen else None).findings


def set_to(table: str, column: str, new: "NewValue", where: str) -> Change:
    stored = "CAST(? AS TEXT)" if new.as_text else "?"
    changed = f"UPDATE OR IGNORE {table} SET {column} = {stored} WHERE {where}"
    return lambda connection: connection.execute(changed, (new.value,))


class NewValue(NamedTuple):
    value: object
    as_text: bool = False


def other_values(value: object) -> list[NewValue]:
    """Values of every kind that a column could hold instead."""
    found: list[object] = [None, 7, -7, 2.5, 2**62, "", "text", b"\x00\xff"]
    if isinstance(value, int):
        found += [value + 1, value - 1, str(value) + " ", float(value) + 0.5, value + 2**32]
    if isinstance(value, str):
        found += [value[:-1], value + " ", value.swapcase(), value.encode() + b"\xff"]
    return [*(NewValue(other) for other in found if other != value), NewValue(b"\xff\xfe", as_text=True)]
