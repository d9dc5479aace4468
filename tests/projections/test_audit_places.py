"""What may lie where an audit file should: files of earlier versions, other things, and files that others hold."""

import logging
import os
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from ledger.errors import LedgerStorageError
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from projections import audit_file, audit_place
from projections.audit import AuditLog
from projections.audit_file import AuditFileError
from projections.audit_objects import EVIDENCE_FORMS, evidence_form
from projections.audit_schema import SCHEMA_VERSION

MADE_BY_0_1_0 = Path(__file__).with_name("made_by_0_1_0")
OPENAI, WORK = LeaseKey.parse("dev:openai"), LeaseKey.parse("dev:openai:work")

Live = Callable[..., None]
Contents = Callable[[AuditLog], dict[str, list[tuple[Any, ...]]]]


@pytest.fixture
def old_ledger(tmp_path: Path) -> Iterator[LeaseLedger]:
    """The ledger that the audit files of 0.1.0 followed, and that got one event more."""
    path = shutil.copy(MADE_BY_0_1_0 / "auth.db", tmp_path / "old.db")
    with LeaseLedger.open(f"sqlite:///{path}") as ledger:
        yield ledger


@pytest.mark.parametrize(("name", "evidence"), [("auth.audit.db", 0), ("rebuilt.audit.db", 2)])
def test_an_audit_file_of_0_1_0_is_a_witness_and_goes_on(
    name: str, evidence: int, old_ledger: LeaseLedger, tmp_path: Path, contents: Contents
) -> None:
    path = shutil.copy(MADE_BY_0_1_0 / name, tmp_path / name)
    with AuditLog.open(old_ledger, path) as audit, AuditLog.open(old_ledger, tmp_path / "afresh.db") as afresh:
        before = audit.verify()
        assert before.witnesses == ("chain", "audit")
        assert all("an earlier audit file" in finding.detail for finding in before.findings)
        assert bool(before.findings) == bool(evidence)
        assert audit.history(OPENAI) == afresh.history(OPENAI)
        assert audit.attempts() == afresh.attempts()
        assert contents(audit) == contents(afresh)
        assert audit.verify().findings == before.findings
        with audit._file().reading() as db:
            assert len(db.execute("SELECT * FROM set_aside").fetchall()) == evidence


def test_an_audit_file_of_0_1_0_names_a_changed_event(old_ledger: LeaseLedger, tmp_path: Path) -> None:
    path = shutil.copy(MADE_BY_0_1_0 / "auth.audit.db", tmp_path)
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("UPDATE events SET digest = 'x' WHERE position = 4")
        raw.commit()
    (finding,) = AuditLog.open(old_ledger, path).verify().findings
    assert (finding.witness, finding.position) == ("audit", 4)


def test_whoever_changes_the_table_of_events_adds_its_form_and_raises_the_version(ledger: LeaseLedger) -> None:
    audit = AuditLog.open(ledger)
    audit.catch_up()
    with audit._file().reading() as db:
        ((sql,),) = db.execute("SELECT sql FROM sqlite_schema WHERE name = 'events'").fetchall()
    assert evidence_form("events", sql) in EVIDENCE_FORMS
    assert len(EVIDENCE_FORMS) == SCHEMA_VERSION - 2


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def _circle(path: Path) -> None:
    path.symlink_to(path.name)


IN_ITS_PLACE: dict[str, Callable[[Path], object]] = {
    "a folder": lambda path: path.mkdir(),
    "a pipe": _pipe,
    "a socket": _socket,
    "a device": lambda path: path.symlink_to("/dev/full"),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a link to itself": _circle,
    "one byte": lambda path: path.write_bytes(b"x"),
    "a text": lambda path: path.write_text("a diary, not a database " * 99),
}


@pytest.mark.parametrize("what", IN_ITS_PLACE)
def test_what_is_no_audit_file_is_refused_in_one_line_and_left_as_it_is(
    what: str, ledger: LeaseLedger, tmp_path: Path, live: Live
) -> None:
    live(ledger)
    path = tmp_path / "there"
    IN_ITS_PLACE[what](path)
    before = os.lstat(path)
    names = {file.name for file in tmp_path.iterdir()}
    questions: tuple[Callable[[AuditLog], object], ...] = (AuditLog.leases, AuditLog.rebuild)
    for question in questions:
        with pytest.raises(AuditFileError, match="audit file") as caught, AuditLog.open(ledger, path) as audit:
            question(audit)
        assert "\n" not in str(caught.value)
    try:
        assert AuditLog.open(ledger, path).verify().findings
    except LedgerStorageError as error:
        assert "\n" not in str(error)
    after = os.lstat(path)
    assert (after.st_ino, after.st_mode, after.st_size) == (before.st_ino, before.st_mode, before.st_size)
    assert {file.name for file in tmp_path.iterdir()} == names


def test_one_file_under_two_names_has_one_lock_and_one_log(ledger: LeaseLedger, tmp_path: Path, live: Live) -> None:
    live(ledger)
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.db"
    AuditLog.open(ledger, tmp_path / "real.db").catch_up()
    link.symlink_to(tmp_path / "real.db")
    with AuditLog.open(ledger, link) as audit:
        live(ledger)
        audit.rebuild()
        assert [file.name for file in link.parent.iterdir()] == ["link.db"]


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277])
def test_the_file_and_what_lies_beside_it_are_its_owners_alone_whatever_the_umask(
    umask: int, tmp_path: Path, live: Live
) -> None:
    with LeaseLedger.open(f"sqlite:///{tmp_path / 'auth.db'}") as ledger:
        live(ledger)
        (tmp_path / "auth.db").chmod(0o600)
        before = os.umask(umask)
        try:
            with AuditLog.open(ledger) as audit:
                audit.catch_up()
                audit.rebuild()
                made = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.glob("auth.audit.db*")}
        finally:
            os.umask(before)
    assert made == dict.fromkeys(
        ("auth.audit.db", "auth.audit.db-wal", "auth.audit.db-shm", "auth.audit.db.lock"), 0o600
    )


def test_a_ledger_shared_with_a_group_shares_its_audit_file_too(ledger: LeaseLedger, path: Path, live: Live) -> None:
    live(ledger)
    path.chmod(0o660)
    with AuditLog.open(ledger) as audit:
        audit.catch_up()
        made = {stat.S_IMODE(file.stat().st_mode) for file in path.parent.glob("auth.audit.db*")}
    assert made == {0o660}


@contextmanager
def _written_by_somebody(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("BEGIN IMMEDIATE")
        yield


@contextmanager
def _had_exclusively(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("PRAGMA locking_mode = EXCLUSIVE")
        raw.execute("BEGIN EXCLUSIVE")
        raw.execute("COMMIT")
        yield


@contextmanager
def _being_rebuilt(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("UPDATE checkpoint SET last_digest = 'x'")
    with FileLock(f"{path}.lock", preserve_lock_file=True):
        yield


@contextmanager
def _lock_is_another_users(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("UPDATE checkpoint SET last_digest = 'x'")
    Path(f"{path}.lock").unlink()
    Path(f"{path}.lock").mkdir()
    yield


HELD = [_written_by_somebody, _had_exclusively, _being_rebuilt, _lock_is_another_users]


@pytest.mark.parametrize("held", HELD)
def test_a_file_that_others_hold_stops_no_question_and_that_is_said(
    held: Callable[[Path], Any],
    ledger: LeaseLedger,
    path: Path,
    live: Live,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(audit_place, "BUSY_TIMEOUT_S", 0.2)
    monkeypatch.setattr(audit_file, "TURN_TIMEOUT_S", 0.2)
    live(ledger)
    with AuditLog.open(ledger) as audit:
        audit.catch_up()
    live(ledger)
    file = path.with_name("auth.audit.db")
    with held(file), AuditLog.open(ledger) as audit, caplog.at_level(logging.WARNING):
        assert [entry.version for entry in audit.history(WORK)] == list(range(1, len(audit.history(WORK)) + 1))
        assert len(audit.history(WORK)) == ledger.snapshot(WORK).version
    (said,) = caplog.messages
    assert "answering from a temporary copy" in said
    assert str(file) in said


def test_a_removed_file_is_made_anew_by_the_next_question_though_it_was_open(
    ledger: LeaseLedger, path: Path, live: Live
) -> None:
    live(ledger)
    with AuditLog.open(ledger) as audit:
        audit.catch_up()
        for file in path.parent.glob("auth.audit.db*"):
            file.unlink()
        live(ledger)
        assert len(audit.history(WORK)) == ledger.snapshot(WORK).version
        with closing(sqlite3.connect(path.with_name("auth.audit.db"))) as raw:
            assert raw.execute("SELECT position FROM checkpoint").fetchall() == [(ledger.recorder.last_position(),)]


def test_a_removed_write_ahead_log_is_noticed_by_the_next_question(ledger: LeaseLedger, path: Path, live: Live) -> None:
    live(ledger)
    with AuditLog.open(ledger) as audit:
        audit.catch_up()
        for suffix in ("-wal", "-shm"):
            path.with_name(f"auth.audit.db{suffix}").unlink()
        live(ledger)
        assert len(audit.history(WORK)) == ledger.snapshot(WORK).version
        with AuditLog.open(ledger) as other:
            assert other.history(WORK) == audit.history(WORK)
            assert other.verify().ok


UNUSABLE = {
    "no row": "DELETE FROM checkpoint",
    "no ledger": "UPDATE checkpoint SET ledger_id = x'00'",
    "no position": "UPDATE checkpoint SET position = 'far'",
    "a state that is none": "UPDATE leases SET state = '{'",
    "another state": "UPDATE leases SET state = json_set(state, '$.version', 99)",
    "a state that forbids what came": """UPDATE leases SET state = '{"version":5}'""",
    "rows too many": "UPDATE checkpoint SET position = position - 1",
}


@pytest.mark.parametrize("what", UNUSABLE)
def test_rows_that_cannot_be_gone_on_from_are_made_anew_and_the_ledger_is_not_accused(
    what: str, ledger: LeaseLedger, live: Live, contents: Contents, tmp_path: Path
) -> None:
    live(ledger)
    with (
        AuditLog.open(ledger, tmp_path / "changed.db") as audit,
        AuditLog.open(ledger, tmp_path / "afresh.db") as afresh,
    ):
        audit.catch_up()
        audit._file().db.execute(UNUSABLE[what])
        live(ledger)
        assert audit.history(WORK) == afresh.history(WORK)
        assert contents(audit) == contents(afresh)


def test_a_row_that_holds_what_it_never_does_is_one_clear_error(ledger: LeaseLedger, live: Live) -> None:
    live(ledger)
    audit = AuditLog.open(ledger)
    audit.catch_up()
    for column, value in (("phase", "'asleep'"), ("generation", "'many'"), ("cause", "CAST(x'ff' AS TEXT)")):
        db = audit._file().db
        db.execute(f"UPDATE events SET {column} = {value}")
        with pytest.raises(LedgerStorageError, match="lease-ledger rebuild"):
            audit.history(WORK)
        audit.rebuild()
        assert audit.history(WORK)


def test_an_interrupted_process_ends_at_once_though_it_was_rebuilding(
    ledger: LeaseLedger, path: Path, live: Live
) -> None:
    live(ledger, 20)
    program = (
        "import os, signal, sys\n"
        "from ledger.lease_ledger import LeaseLedger\n"
        "from projections.audit import AuditLog\n"
        "audit = AuditLog.open(LeaseLedger.open(sys.argv[1]))\n"
        "try:\n"
        "    audit.rebuild(lambda done, total: os.kill(os.getpid(), signal.SIGINT))\n"
        "except KeyboardInterrupt:\n"
        "    print(len(audit.leases()))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, f"sqlite:///{path}"],
        env=environment,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"3\n", b"")
