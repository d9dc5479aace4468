"""What a ledger's files, locks and keys let in: their owner, or the group that the ledger is shared with."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from filelock import FileLock

from ledger import (
    LeaseKey,
    LeaseLedger,
    LedgerStorageError,
    acquire_auth_login_lifecycle_guard,
)
from ledger.copying import backup
from ledger.fingerprint import KEY_ENV, KEY_FILE_ENV, load_fingerprint_key
from ledger.recorders.locks import FileGuardLock
from projections.cli.app import lease_ledger
from projections.exposure import exposures

KEY = LeaseKey.parse("dev:openai:work")

pytestmark = pytest.mark.skipif(os.name != "posix", reason="modes, links and devices of POSIX")
as_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a file to any group"
)


@pytest.fixture(params=[0o022, 0o000, 0o077, 0o277], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def _use(ledger: LeaseLedger) -> None:
    ledger.acquire_lease(KEY, 1)
    ledger.fingerprint("token")
    with acquire_auth_login_lifecycle_guard(KEY, ledger=ledger):
        pass


def _modes(folder: Path) -> dict[str, str]:
    return {path.name: oct(stat.S_IMODE(path.lstat().st_mode)) for path in folder.rglob("*")}


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users reach, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp())
    yield folder
    shutil.rmtree(folder)


@pytest.mark.usefixtures("umask")
def test_everything_that_a_ledger_makes_is_its_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    with LeaseLedger.open(f"sqlite:///{tmp_path}/auth.db") as ledger:
        _use(ledger)
        backup(ledger, tmp_path / "backup.db")
        assert _modes(tmp_path) == {
            "auth.db": "0o600",
            "auth.db-wal": "0o600",
            "auth.db-shm": "0o600",
            "auth.db.create-lock": "0o600",
            "auth.db.fingerprint-key": "0o600",
            "auth.db.locks": "0o700",
            "dev,openai,work.lock": "0o600",
            "backup.db": "0o600",
        }


@pytest.mark.usefixtures("umask")
def test_a_shared_ledger_and_all_beside_it_is_its_groups_too_and_nobody_elses(tmp_path: Path) -> None:
    with LeaseLedger.open(f"sqlite:///{tmp_path}/auth.db?share=group") as ledger:
        ledger.acquire_lease(KEY, 1)
    with LeaseLedger.open(f"sqlite:///{tmp_path}/auth.db") as ledger:
        _use(ledger)
        modes = _modes(tmp_path)
    assert modes.pop("auth.db.locks") == "0o2770"
    assert set(modes.values()) == {"0o660"}


@as_root
def test_files_beside_a_shared_ledger_get_the_group_of_its_file(tmp_path: Path) -> None:
    with LeaseLedger.open(f"sqlite:///{tmp_path}/auth.db?share=group") as ledger:
        ledger.acquire_lease(KEY, 1)
    os.chown(tmp_path / "auth.db", -1, 65_534)
    (tmp_path / "auth.db.create-lock").unlink()
    with LeaseLedger.open(f"sqlite:///{tmp_path}/auth.db") as ledger:
        _use(ledger)
        assert {path.name: path.stat().st_gid for path in tmp_path.rglob("*")} == dict.fromkeys(
            (path.name for path in tmp_path.rglob("*")), 65_534
        )


@as_root
def test_a_member_of_the_group_works_with_a_shared_ledger_and_nobody_else_does(open_folder: Path) -> None:
    os.chown(open_folder, -1, 65_534)
    open_folder.chmod(0o2775)
    url = f"sqlite:///{open_folder}/auth.db"
    with LeaseLedger.open(f"{url}?share=group") as ledger:
        _use(ledger)
        assert _as_somebody(url, group=65_534) == "2"
        assert ledger.acquire_lease(KEY, 3).generation == 3
    assert _as_somebody(url, group=65_534) == "4"
    assert _as_somebody(url, group=65_533) == "LedgerStorageError"
    with LeaseLedger.open(url) as ledger:
        _use(ledger)
        assert ledger.snapshot(KEY).generation == 5


def _as_somebody(url: str, *, group: int) -> str:
    script = """
import os, sys
from ledger import LeaseKey, LeaseLedger, LedgerStorageError, acquire_auth_login_lifecycle_guard
os.setgroups([int(sys.argv[2])]); os.setgid(65532); os.setuid(65532)
key = LeaseKey.parse("dev:openai:work")
try:
    with LeaseLedger.open(sys.argv[1]) as ledger:
        ledger.fingerprint("token")
        with acquire_auth_login_lifecycle_guard(key, ledger=ledger):
            print(ledger.acquire_lease(key, 2).generation, end="")
except LedgerStorageError as error:
    print(type(error).__name__, end="")
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", script, url, str(group)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def test_files_that_are_there_keep_their_mode(tmp_path: Path) -> None:
    with LeaseLedger.open(f"sqlite:///{tmp_path}/auth.db") as ledger:
        _use(ledger)
    for path in tmp_path.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    before = _modes(tmp_path)
    with LeaseLedger.open(f"sqlite:///{tmp_path}/auth.db?share=group") as ledger:
        _use(ledger)
    assert _modes(tmp_path) == before


def test_sharing_is_asked_for_by_its_word(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="share is 'none' or 'group', not 'world'"):
        LeaseLedger.open(f"sqlite:///{tmp_path}/auth.db?share=world")
    assert list(tmp_path.iterdir()) == []


def test_doctor_names_each_file_that_is_open_and_to_whom(tmp_path: Path) -> None:
    with LeaseLedger.open(f"sqlite:///{tmp_path}/auth.db") as ledger:
        _use(ledger)
        (tmp_path / "auth.audit.db").touch()
        opened = {"auth.db": 0o644, "auth.db-shm": 0o666, "auth.db.fingerprint-key": 0o640, "auth.audit.db": 0o604}
        for name, mode in opened.items():
            (tmp_path / name).chmod(mode)
        found = {Path(exposure.path).name: exposure for exposure in exposures(ledger.recorder)}
        (tmp_path / "tokens").mkdir(mode=0o700)
        options = ["--db", f"{tmp_path}/auth.db", "--store", f"{tmp_path}/tokens"]
        result = CliRunner().invoke(lease_ledger, [*options, "doctor"])
    assert {name: (each.everybody, each.writable, each.intended) for name, each in found.items()} == {
        "auth.db": (True, False, False),
        "auth.db-shm": (True, True, False),
        "auth.db.fingerprint-key": (False, False, False),
        "auth.audit.db": (True, False, False),
    }
    assert "every user of this machine may read and write it" in result.output


def test_doctor_takes_what_is_shared_with_a_group_as_intended(tmp_path: Path) -> None:
    (tmp_path / "tokens").mkdir(mode=0o700)
    with LeaseLedger.open(f"sqlite:///{tmp_path}/auth.db?share=group") as ledger:
        assert [exposure.intended for exposure in exposures(ledger.recorder)] == [True] * 4
    options = ["--db", f"{tmp_path}/auth.db", "--store", f"{tmp_path}/tokens"]
    assert CliRunner().invoke(lease_ledger, [*options, "doctor"], standalone_mode=False).return_value == 0


# Lock notes


def test_a_note_follows_no_link_that_was_put_in_the_place_of_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim, path = tmp_path / "victim", tmp_path / "locks" / "a.lock"
    victim.write_text("precious")
    take = FileLock.acquire

    def take_and_swap(lock: FileLock, *, blocking: bool) -> object:
        taken = take(lock, blocking=blocking)
        path.unlink()
        path.symlink_to(victim)
        return taken

    lock = FileGuardLock(path)
    with monkeypatch.context() as patched:
        patched.setattr(FileLock, "acquire", take_and_swap)
        assert lock.try_acquire("one")
    assert (lock.held_by(), victim.read_text()) == (None, "precious")
    lock.release()
    with pytest.raises(LedgerStorageError, match="lock"):
        lock.try_acquire("one")
    assert victim.read_text() == "precious"


def test_a_note_tells_who_holds_the_lock_however_long_it_is(tmp_path: Path) -> None:
    lock = FileGuardLock(tmp_path / "locks" / "a.lock")
    assert lock.try_acquire("x" * 5000)
    assert lock.held_by() == "x" * 1024
    lock.release()
    assert lock.try_acquire("brief")
    assert lock.held_by() == "brief"
    lock.release()


# The key of fingerprints


def _unusable(words: str, beside: Path | None = None) -> None:
    with pytest.raises(LedgerStorageError, match=words) as refused:
        load_fingerprint_key(beside)
    assert str(refused.value).isprintable()


def _next_descriptor() -> int:
    descriptor = os.dup(0)
    os.close(descriptor)
    return descriptor


@pytest.mark.parametrize("name", ["/dev/zero", "/"])
def test_a_key_file_that_is_no_file_is_one_error_and_is_closed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(KEY_FILE_ENV, name)
    before = _next_descriptor()
    _unusable("no regular file")
    assert _next_descriptor() == before


def test_a_key_file_that_nobody_writes_to_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "key")
    _unusable("no regular file", tmp_path / "key")


@pytest.mark.parametrize(
    ("content", "words"), [(b"short", "at least 16 bytes"), (b"", "16 bytes"), (b"x" * 70_000, "long")]
)
def test_a_key_that_is_too_short_or_no_key_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, words: str
) -> None:
    (tmp_path / "key").write_bytes(content)
    _unusable(words, tmp_path / "key")
    monkeypatch.setenv(KEY_FILE_ENV, str(tmp_path / "key"))
    _unusable(words)


def test_a_short_key_in_the_environment_is_one_error_that_does_not_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, "hunter2")
    with pytest.raises(LedgerStorageError, match=rf"{KEY_ENV}.*at least 16 bytes") as refused:
        load_fingerprint_key(None)
    assert "hunter2" not in str(refused.value)


def test_a_key_of_any_bytes_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, os.fsdecode(b"\xff" * 32))
    assert load_fingerprint_key(None) == b"\xff" * 32
