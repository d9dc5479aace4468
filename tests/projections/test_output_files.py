"""Files that are written whole or not at all, and never in the place of something else."""

import errno
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ledger.guard import acquire_auth_login_lifecycle_guard
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.stores.file import FileTokenStore
from ledger.tokens import PersistedTokens
from projections.audit import AuditLog
from projections.output_files import NoSuchFolder, OutputRefused, output_file

KEY = LeaseKey.parse("dev:openai:work")


def names_in(folder: Path) -> list[str]:
    return sorted(found.name for found in folder.iterdir())


def write(path: Path, data: bytes = b"new", *, overwrite: bool = True) -> None:
    with output_file(path, own_kind=lambda head: head.startswith(b"mine"), overwrite=overwrite) as file:
        file.write(data)


def test_a_new_file_is_for_its_owner_and_nothing_else_is_left(tmp_path: Path) -> None:
    write(tmp_path / "new", overwrite=False)
    assert (tmp_path / "new").read_bytes() == b"new"
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600
    assert names_in(tmp_path) == ["new"]


def test_what_is_recognised_as_ours_is_replaced_and_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"mine, of yesterday")
    (tmp_path / "old").chmod(0o640)
    write(tmp_path / "old", overwrite=False)
    assert (tmp_path / "old").read_bytes() == b"new"
    assert (tmp_path / "old").stat().st_mode & 0o777 == 0o640


def test_what_is_not_ours_is_replaced_by_who_says_so_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("a diary")
    with pytest.raises(OutputRefused, match="is there already"):
        write(tmp_path / "precious", overwrite=False)
    assert (tmp_path / "precious").read_text() == "a diary"
    write(tmp_path / "precious")
    assert (tmp_path / "precious").read_bytes() == b"new"


def _ledger(folder: Path) -> Path:
    with LeaseLedger.open(f"sqlite:///{folder}/auth.db?synchronous=normal") as ledger, AuditLog.open(ledger) as audit:
        ledger.acquire_lease(KEY, 5)
        ledger.fingerprint("secret")
        with acquire_auth_login_lifecycle_guard(KEY, ledger=ledger):
            audit.history(KEY)
    return folder / "auth.db"


def _audit_file(folder: Path) -> Path:
    return _ledger(folder).with_name("auth.audit.db")


def _tokens(folder: Path) -> Path:
    store = FileTokenStore(folder / "tokens")
    store.save(KEY, PersistedTokens.api_key("k"))
    return store.path_of(KEY)


def _damaged_tokens(folder: Path) -> Path:
    moved = folder / "copy.json"
    moved.write_bytes(_tokens(folder).read_bytes()[:60])
    return moved


def _tokens_of_another_tool(folder: Path) -> Path:
    (folder / "auth.json").write_text('{"auth_mode": "api_key", "primary_secret": "k"}')
    return folder / "auth.json"


def _link(folder: Path) -> Path:
    (folder / "target").write_text("precious")
    (folder / "link").symlink_to(folder / "target")
    return folder / "link"


def _dangling_link(folder: Path) -> Path:
    (folder / "link").symlink_to(folder / "nowhere")
    return folder / "link"


def _fifo(folder: Path) -> Path:
    os.mkfifo(folder / "fifo")
    return folder / "fifo"


def _socket(folder: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
    return folder / "socket"


def _folder(folder: Path) -> Path:
    (folder / "inner").mkdir()
    return folder / "inner"


def _lock(folder: Path) -> Path:
    _ledger(folder)
    return folder / "auth.db.create-lock"


def _guard_lock(folder: Path) -> Path:
    _ledger(folder)
    (found,) = (folder / "auth.db.locks").iterdir()
    return found


def _fingerprint_key(folder: Path) -> Path:
    return _ledger(folder).with_name("auth.db.fingerprint-key")


def _unreadable(folder: Path) -> Path:
    (folder / "dark").write_text("?")
    (folder / "dark").chmod(0)
    if os.access(folder / "dark", os.R_OK):
        pytest.skip("nothing is unreadable to this user")
    return folder / "dark"


@pytest.mark.parametrize(
    "make",
    [
        _ledger,
        _audit_file,
        _tokens,
        _damaged_tokens,
        _tokens_of_another_tool,
        _link,
        _dangling_link,
        _fifo,
        _socket,
        _folder,
        _lock,
        _guard_lock,
        _fingerprint_key,
        _unreadable,
    ],
)
def test_what_can_never_be_had_back_is_not_replaced_even_by_who_says_so(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    path = make(tmp_path)
    before = path.lstat(), path.read_bytes() if path.is_file() else None
    with pytest.raises(OutputRefused):
        write(path)
    after = path.lstat(), path.read_bytes() if path.is_file() else None
    assert (after[0].st_ino, after[0].st_mode, after[1]) == (before[0].st_ino, before[0].st_mode, before[1])
    assert not [name for name in names_in(path.parent) if name.startswith(".writing-")]


@pytest.mark.parametrize("device", ["/dev/null", "/dev/full", "/dev/stdout"])
def test_a_device_stays_a_device(device: str) -> None:
    with pytest.raises(OutputRefused):
        write(Path(device))
    assert not Path(device).is_file() or Path(device).is_symlink()


@pytest.mark.parametrize(
    "name", ["auth.db-wal", "auth.db-shm", "auth.db-journal", "auth.audit.db", "auth.db.lock", "tokens/dev,x.json"]
)
def test_no_output_takes_a_name_that_a_ledger_or_a_token_store_would_use(name: str, tmp_path: Path) -> None:
    with LeaseLedger.open(f"sqlite:///{tmp_path}/auth.db"):
        pass
    _tokens(tmp_path)
    assert not (tmp_path / name).exists()
    with pytest.raises(OutputRefused):
        write(tmp_path / name)
    assert not (tmp_path / name).exists()


def test_a_folder_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(NoSuchFolder, match="its folder does not exist"):
        write(tmp_path / "no" / "file")


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, ValueError, SystemExit])
@pytest.mark.parametrize("before", [None, b"mine, of yesterday"])
def test_what_is_interrupted_leaves_nothing_of_itself_and_all_that_was(
    interrupt: type[BaseException], before: bytes | None, tmp_path: Path
) -> None:
    if before is not None:
        (tmp_path / "file").write_bytes(before)
    with pytest.raises(interrupt), output_file(tmp_path / "file", own_kind=lambda _: True) as file:
        file.write(b"half")
        raise interrupt
    assert names_in(tmp_path) == ([] if before is None else ["file"])
    assert before is None or (tmp_path / "file").read_bytes() == before


def test_a_full_disk_is_told_with_the_files_name_and_leaves_nothing(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="file") as caught:
            write(tmp_path / "file", b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(tmp_path / "file"))
    assert names_in(tmp_path) == []


def test_of_two_who_make_one_file_the_second_is_told_and_the_first_ones_stays(tmp_path: Path) -> None:
    with pytest.raises(OutputRefused, match="meanwhile"), output_file(tmp_path / "file") as file:
        file.write(b"slow")
        (tmp_path / "file").write_text("fast")
    assert (tmp_path / "file").read_text() == "fast"
    assert names_in(tmp_path) == ["file"]


def test_what_took_the_place_of_an_old_output_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(OutputRefused, match="meanwhile"), output_file(tmp_path / "file", own_kind=lambda _: True):
        (tmp_path / "file").rename(tmp_path / "moved")
        (tmp_path / "file").write_text("somebody else's")
    assert (tmp_path / "file").read_text() == "somebody else's"


def test_where_there_are_no_hard_links_a_file_is_made_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    write(tmp_path / "file", overwrite=False)
    assert (tmp_path / "file").read_bytes() == b"new"
    assert names_in(tmp_path) == ["file"]


def test_a_killed_writer_leaves_the_old_file_whole(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine, of yesterday")
    code = (
        "import os, pathlib, sys; from projections.output_files import output_file\n"
        "with output_file(sys.argv[1], overwrite=True) as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), 9)"
    )
    root = Path(__file__).parents[2]
    subprocess.run(
        [sys.executable, "-P", "-c", code, str(tmp_path / "file")],
        env={**os.environ, "PYTHONPATH": str(root)},
        check=False,
    )
    assert (tmp_path / "file").read_bytes() == b"mine, of yesterday"
