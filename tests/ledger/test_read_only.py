"""A ledger that this process may not write: read as it lies, or beside who writes, and every command refused."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from ledger import Credentials, FileTokenStore, LeaseKey, LeaseLedger, LedgerStorageError, PersistedTokens
from ledger.copying import backup
from ledger.recorders import sqlite_opening
from ledger.recorders.sqlite import SQLiteLeaseRecorder
from ledger.recorders.sqlite_opening import Reach
from projections.audit import AuditLog
from projections.cli.app import lease_ledger

KEY = LeaseKey.parse("dev:openai:work")

as_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can mount a disk or become another user"
)


def _open(path: Path) -> LeaseLedger:
    return LeaseLedger.open(f"sqlite:///{path}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "ledger"
    folder.mkdir()
    with _open(folder / "auth.db") as ledger:
        ledger.acquire_lease(KEY, 1)
    return folder / "auth.db"


@pytest.fixture
def denied(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], LeaseLedger]:
    """Opens a ledger as somebody who may write nothing."""

    def open_denied(path: Path) -> LeaseLedger:
        with monkeypatch.context() as patched:
            patched.setattr(sqlite_opening, "_may", lambda path, what: not what & os.W_OK)
            return _open(path)

    return open_denied


def _reach(ledger: LeaseLedger) -> Reach:
    assert isinstance(ledger.recorder, SQLiteLeaseRecorder)
    return ledger.recorder.reach


def _refuses_all_commands(ledger: LeaseLedger, folder: Path) -> None:
    credentials = Credentials(ledger, FileTokenStore(folder / "tokens"))
    commands: list[Callable[[], object]] = [
        lambda: ledger.acquire_lease(KEY, 2),
        lambda: ledger.release_lease(KEY),
        lambda: ledger.begin_refresh(KEY),
        lambda: credentials.login(KEY, PersistedTokens.api_key("secret")),
    ]
    for command in commands:
        with pytest.raises(LedgerStorageError) as refused:
            command()
        assert str(refused.value).isprintable()


def test_a_closed_ledger_is_read_as_it_lies_and_nothing_is_made_beside_it(
    path: Path, tmp_path: Path, denied: Callable[[Path], LeaseLedger]
) -> None:
    before = sorted(path.parent.iterdir())
    with denied(path) as ledger:
        assert (ledger.recorder.read_only, _reach(ledger)) == (True, Reach.UNCHANGING)
        assert ledger.snapshot(KEY).generation == 1
        assert len(ledger.recorder.select_notifications(start=None, limit=10)) == 1
        assert ledger.verify().ok
        assert backup(ledger, tmp_path / "backup.db").position == 1
        with pytest.raises(LedgerStorageError, match=r"open for reading only.*nothing was recorded"):
            ledger.acquire_lease(KEY, 2)
        assert sorted(path.parent.iterdir()) == before


def test_who_reads_a_ledger_as_it_lies_notices_when_somebody_begins_to_write(
    path: Path, denied: Callable[[Path], LeaseLedger]
) -> None:
    with denied(path) as reading:
        assert reading.snapshot(KEY).generation == 1
        with _open(path) as writing:
            writing.acquire_lease(KEY, 2)
            with pytest.raises(LedgerStorageError, match=r"somebody began to write it.*open it again"):
                reading.recorder.last_position()
        with pytest.raises(LedgerStorageError, match="somebody began to write it"):
            reading.verify()
    with denied(path) as reading:
        assert reading.snapshot(KEY).generation == 2


def test_who_may_only_read_sees_what_others_write_meanwhile(path: Path, denied: Callable[[Path], LeaseLedger]) -> None:
    with _open(path) as writing:
        writing.acquire_lease(KEY, 2)
        with denied(path) as reading:
            assert (reading.recorder.read_only, _reach(reading)) == (True, Reach.READ)
            assert reading.snapshot(KEY).generation == 2
            writing.acquire_lease(KEY, 3)
            assert reading.snapshot(KEY).generation == 3
            with pytest.raises(LedgerStorageError, match="open for reading only"):
                reading.acquire_lease(KEY, 4)


def test_a_log_that_cannot_be_read_without_writing_beside_it_says_the_way_on(
    path: Path, tmp_path: Path, denied: Callable[[Path], LeaseLedger]
) -> None:
    with _open(path) as writing:
        writing.acquire_lease(KEY, 2)
        left = tmp_path / "left.db"
        for ending in ("", "-wal"):
            shutil.copy(f"{path}{ending}", f"{left}{ending}")
    with pytest.raises(
        LedgerStorageError, match=r"not closed in good order.*copy it and left.db-wal to another folder"
    ):
        denied(left)
    with _open(left) as ledger:
        assert ledger.snapshot(KEY).generation == 2


def test_a_new_ledger_cannot_be_made_where_nothing_may_be_written(
    tmp_path: Path, denied: Callable[[Path], LeaseLedger]
) -> None:
    (tmp_path / "auth.db").touch()
    with pytest.raises(LedgerStorageError):
        denied(tmp_path / "auth.db")
    assert (tmp_path / "auth.db").stat().st_size == 0


# Real disks and users


@pytest.fixture
def read_only_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "none", folder], capture_output=True, check=False).returncode:
        pytest.skip("this machine mounts nothing")
    try:
        with _open(folder / "auth.db") as ledger:
            ledger.acquire_lease(KEY, 1)
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@as_root
def test_a_ledger_on_a_read_only_disk_is_read_and_says_so(read_only_disk: Path, tmp_path: Path) -> None:
    with _open(read_only_disk / "auth.db") as ledger, AuditLog.open(ledger) as audit:
        assert ledger.recorder.read_only
        assert ledger.snapshot(KEY).generation == 1
        assert [entry.version for entry in audit.history(KEY)] == [1]
        assert audit.verify().ok
        _refuses_all_commands(ledger, tmp_path)


@as_root
def test_the_command_line_reads_a_ledger_on_a_read_only_disk_with_a_note(read_only_disk: Path, tmp_path: Path) -> None:
    options = ["--db", str(read_only_disk / "auth.db"), "--store", str(tmp_path / "tokens")]
    for command in (["status"], ["history", str(KEY)], ["leases"], ["verify"], ["export"]):
        result = CliRunner().invoke(lease_ledger, [*options[:2], *command], standalone_mode=False)
        assert result.return_value == 0, result.output
        assert "note: the ledger is open for reading only" in result.stderr
    result = CliRunner().invoke(lease_ledger, [*options, "login", str(KEY)], input=b"{}", standalone_mode=False)
    assert result.return_value in (2, 3)
    given = b'{"auth_mode":"api_key","primary_secret":"k"}'
    result = CliRunner().invoke(lease_ledger, [*options, "login", str(KEY)], input=given, standalone_mode=False)
    assert result.return_value == 3
    assert "Traceback" not in result.stderr


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users reach, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@as_root
def test_another_user_reads_a_closed_ledger_that_is_open_to_all(open_folder: Path) -> None:
    path = open_folder / "auth.db"
    with _open(path) as ledger:
        ledger.acquire_lease(KEY, 1)
    path.chmod(0o644)
    script = """
import os, sys
from ledger import LeaseKey, LeaseLedger, LedgerStorageError
os.setgroups([]); os.setgid(65534); os.setuid(65534)
with LeaseLedger.open(f"sqlite:///{sys.argv[1]}") as ledger:
    print(ledger.snapshot(LeaseKey.parse("dev:openai:work")).generation, ledger.verify().ok)
    try:
        ledger.acquire_lease(LeaseKey.parse("dev:openai:work"), 2)
    except LedgerStorageError as error:
        print("permission" in str(error))
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", script, str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "1 True\nTrue\n"
