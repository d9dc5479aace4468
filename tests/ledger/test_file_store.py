"""The file store against real files, real processes, real kills and real full disks."""

import errno
import json
import logging
import os
import random
import re
import shutil
import signal
import stat
import string
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import example, given
from hypothesis import strategies as st

from ledger.keys import LeaseKey
from ledger.store_errors import (
    TokenIOError,
    TokenPermissionDenied,
    TokensChanged,
    TokenSerializationError,
    TokenStoreError,
    TokenStoreUnavailable,
)
from ledger.stores import FileTokenStore
from ledger.stores.filenames import TOKEN_FILE_NAME_MAX, is_shortened, key_of_file_name, token_file_name
from ledger.tokens import PersistedTokens

KEY = LeaseKey("dev", "openai", "work")
LONG_KEY = LeaseKey("x" * 300, "y")
CANARY = "canary-9c41e7-secret"
OLD = PersistedTokens.api_key(f"old {CANARY}")
NEW = PersistedTokens.api_key(f"new {CANARY}")

posix = pytest.mark.skipif(os.name != "posix", reason="modes, links and signals of POSIX")
as_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user or mount a disk"
)

PRELUDE = """
import os, sys
from ledger.keys import LeaseKey
from ledger.stores import FileTokenStore
from ledger.store_errors import *
from ledger.tokens import PersistedTokens
KEY = LeaseKey("dev", "openai", "work")
store = FileTokenStore(sys.argv[1])
"""


def start(script: str, root: Path, *, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*before, sys.executable, "-c", PRELUDE + script, str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )


def run(script: str, root: Path, *, before: tuple[str, ...] = ()) -> str:
    process = start(script, root, before=before)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def left_overs(root: Path, kind: str) -> list[Path]:
    return [path for path in root.iterdir() if path.name.startswith(kind)]


@pytest.fixture
def store(tmp_path: Path) -> FileTokenStore:
    return FileTokenStore(tmp_path / "tokens")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users reach, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


# File names


def test_a_file_name_reads_like_its_key() -> None:
    assert token_file_name(KEY) == "dev,openai,work.json"
    assert token_file_name(LeaseKey("Dev", "api.openai.com")) == "+dev,api.openai.com.json"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("..:..", "+..,...json"),
        (".:a", "+.,a.json"),
        ("con:nul", "con,nul.json"),
        ("con.eu:a", "con+.eu,a.json"),
        ("com1.x:a", "com1+.x,a.json"),
        ("CON.eu:a", "+c+o+n.eu,a.json"),
        ("a:b.", "a,b..json"),
        ("-rf:x", "-rf,x.json"),
    ],
)
def test_awkward_keys_get_harmless_names(text: str, name: str) -> None:
    assert token_file_name(LeaseKey.parse(text)) == name


def test_a_long_name_is_cut_and_told_apart_by_a_hash() -> None:
    names = {token_file_name(LeaseKey("x" * length, "y")) for length in range(100, 400)}
    assert len(names) == 300
    assert max(len(name) for name in names) == TOKEN_FILE_NAME_MAX
    assert re.fullmatch(r"x{50}~[0-9a-f]{64}\.json", token_file_name(LONG_KEY))


parts = st.one_of(
    st.text(string.ascii_letters + string.digits + "-_.", min_size=1, max_size=12),
    st.text("aA.-", min_size=1, max_size=4),
    st.sampled_from(["con", "CON", "nul.x", "com1.", "lpt9.a", "..", ".", "a" * 50, "A" * 60, "tmp", ".tmp-"]),
)
keys = st.builds(LeaseKey, parts, parts, st.none() | parts)


@given(keys, keys)
@example(LONG_KEY, LeaseKey("x" * 299 + "X", "y"))
def test_two_keys_never_share_a_file_even_where_case_is_ignored(one: LeaseKey, other: LeaseKey) -> None:
    same = token_file_name(one).casefold() == token_file_name(other).casefold()
    assert same == (one == other)


@given(keys)
@example(LONG_KEY)
def test_every_file_name_is_legal_everywhere_and_leads_back_to_its_key(key: LeaseKey) -> None:
    name = token_file_name(key)
    assert re.fullmatch(r"[a-z0-9+_-][a-z0-9+_.,~-]*\.json", name)
    assert len(name) <= TOKEN_FILE_NAME_MAX
    assert name.split(".")[0] not in {"con", "prn", "aux", "nul", "com1", "lpt9"}
    assert is_shortened(name) == ("~" in name)
    assert key_of_file_name(name) == (None if "~" in name else key)
    for other in (f".tmp-0123456789abcdef-{name}", f"{name}.lock", f"copy of {name}"):
        assert not is_shortened(other)
        assert key_of_file_name(other) is None


@given(st.text(string.ascii_letters + "+.,~-_", max_size=12).map(lambda stem: stem + ".json"))
def test_a_foreign_file_name_is_taken_for_no_key_but_the_one_that_is_written_so(name: str) -> None:
    key = key_of_file_name(name)
    assert key is None or token_file_name(key) == name


# What is on the disk


def test_a_stored_file_can_be_read_by_a_person_and_names_its_key(store: FileTokenStore) -> None:
    store.save(KEY, PersistedTokens("api_key", "sk", metadata={"big": 2**70, "float": 1.0}))
    text = store.path_of(KEY).read_text()
    assert text.startswith('{\n  "lease_key": "dev:openai:work",\n  "auth_mode": "api_key",\n')
    assert json.loads(text)["metadata"] == {"big": 2**70, "float": 1.0}


@posix
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_files_are_0600_in_0700_folders_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    root = tmp_path / "not" / "there" / "yet"
    before = os.umask(umask)
    try:
        store = FileTokenStore(root)
        store.save(KEY, OLD)
        store.path_of(KEY).write_bytes(b"damaged")
        store.save(KEY, NEW)
    finally:
        os.umask(before)
    for folder in (tmp_path / "not", tmp_path / "not" / "there", root, root / ".locks"):
        assert mode(folder) == 0o700, folder
    files = [path for path in root.rglob("*") if path.is_file()]
    assert len(files) == 3
    assert {mode(path) for path in files} == {0o600}


@posix
def test_a_folder_that_others_may_write_to_is_refused_for_saving_but_not_for_clearing(tmp_path: Path) -> None:
    store = FileTokenStore(tmp_path / "tokens")
    store.save(KEY, OLD)
    store.root.chmod(0o770)
    with pytest.raises(TokenPermissionDenied, match="chmod 700"):
        store.save(KEY, NEW)
    assert store.load(KEY) == OLD
    store.clear(KEY)
    assert store.load(KEY) is None


@posix
def test_a_folder_that_others_may_read_keeps_its_mode(tmp_path: Path) -> None:
    root = tmp_path / "shared"
    root.mkdir()
    root.chmod(0o755)
    FileTokenStore(root).save(KEY, OLD)
    assert mode(root) == 0o755
    assert mode(FileTokenStore(root).path_of(KEY)) == 0o600


@posix
def test_a_file_open_to_others_is_closed_and_a_warning_given(
    store: FileTokenStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.save(KEY, OLD)
    store.path_of(KEY).chmod(0o644)
    with caplog.at_level(logging.WARNING):
        assert store.load(KEY) == OLD
    assert mode(store.path_of(KEY)) == 0o600
    assert str(store.path_of(KEY)) in caplog.text
    assert CANARY not in caplog.text
    caplog.clear()
    assert store.load(KEY) == OLD
    assert caplog.text == ""


@posix
def test_a_write_is_synced_before_and_after_the_rename(store: FileTokenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.save(KEY, OLD)
    seen: list[str] = []
    real_sync, real_replace = os.fsync, os.replace

    def sync(fd: int) -> None:
        opened = os.fstat(fd)
        seen.append("sync folder" if stat.S_ISDIR(opened.st_mode) else f"sync {opened.st_size} bytes")
        real_sync(fd)

    def replace(source: str, target: str) -> None:
        seen.append("rename")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    store.save(KEY, NEW)
    size = store.path_of(KEY).stat().st_size
    assert seen == [f"sync {size} bytes", "rename", "sync folder"]
    seen.clear()
    store.clear(KEY)
    assert seen == ["sync folder"]


def test_the_store_stays_where_it_was_when_the_working_directory_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = FileTokenStore("tokens")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    store.save(KEY, OLD)
    assert (tmp_path / "tokens" / "dev,openai,work.json").exists()


def test_loading_listing_and_clearing_create_nothing(store: FileTokenStore) -> None:
    assert store.load(KEY) is None
    assert store.list() == []
    assert not store.holds(KEY)
    store.clear(KEY)
    with pytest.raises(TokensChanged):
        store.clear(KEY, expect="e1")
    assert not store.root.exists()


def test_files_that_are_not_tokens_are_not_listed(store: FileTokenStore) -> None:
    store.save(KEY, OLD)
    store.save(LONG_KEY, OLD)
    for name in ("README.json", "notes.txt", "Dev,openai.json", ".tmp-ab-dev,other.json", "a,b,c,d.json", "a,b"):
        (store.root / name).write_text("{}")
    (store.root / f"{'z' * 50}~{'0' * 64}.json").write_text('{"lease_key": "z:z"}')
    (store.root / f"{'z' * 50}~{'1' * 64}.json").write_text('{"lease_key": "::"}')
    assert store.list() == [KEY, LONG_KEY]


def test_a_damaged_file_is_still_listed_under_its_key(store: FileTokenStore) -> None:
    for key in (KEY, LONG_KEY):
        store.save(key, OLD)
        path = store.path_of(key)
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(TokenSerializationError):
            store.load(key)
    assert store.list() == [KEY, LONG_KEY]


# Damage


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b'{"auth_mode": "no such"}', b"[]", b"null"])
def test_unreadable_bytes_are_an_error_and_stay_where_they_are(store: FileTokenStore, damage: bytes) -> None:
    store.save(KEY, OLD)
    store.path_of(KEY).write_bytes(damage)
    with pytest.raises(TokenSerializationError, match=re.escape(str(store.path_of(KEY)))):
        store.load(KEY)
    for expect in (None, "e1", OLD):
        with pytest.raises(TokensChanged) as refused:
            store.save(KEY, NEW, expect=expect)
        assert isinstance(refused.value.__cause__, TokenSerializationError)
        with pytest.raises(TokensChanged):
            store.clear(KEY, expect=expect)
    assert store.path_of(KEY).read_bytes() == damage


def test_a_save_over_unreadable_bytes_keeps_them_aside(store: FileTokenStore) -> None:
    neighbour = LeaseKey("a-dev", "openai", "work")
    for key in (KEY, neighbour):
        store.save(key, OLD)
        store.path_of(key).write_bytes(f"damaged {key} {CANARY}".encode())
        store.save(key, NEW)
        assert store.load(key) == NEW
    kept = left_overs(store.root, ".corrupt-")
    assert sorted(path.read_bytes() for path in kept) == [
        f"damaged {key} {CANARY}".encode() for key in (neighbour, KEY)
    ]
    assert sorted(re.sub(r"\d{8}T\d{6}Z\.[0-9a-f]{8}", "WHEN", path.name) for path in kept) == [
        f".corrupt-WHEN-{token_file_name(key)}" for key in (neighbour, KEY)
    ]
    assert store.list() == [neighbour, KEY]
    store.clear(KEY)
    assert [path.read_bytes() for path in left_overs(store.root, ".corrupt-")] == [
        f"damaged {neighbour} {CANARY}".encode()
    ]


def test_a_clear_destroys_unreadable_bytes(store: FileTokenStore) -> None:
    store.save(KEY, OLD)
    store.path_of(KEY).write_bytes(CANARY.encode())
    store.clear(KEY)
    assert store.load(KEY) is None
    assert not any(CANARY.encode() in path.read_bytes() for path in store.root.rglob("*") if path.is_file())


@posix
def test_a_symbolic_link_is_neither_followed_nor_overwritten(store: FileTokenStore, tmp_path: Path) -> None:
    store.save(KEY, OLD)
    outside = tmp_path / "outside.json"
    shutil.move(store.path_of(KEY), outside)
    store.path_of(KEY).symlink_to(outside)
    attempts: tuple[Callable[[], object], ...] = (lambda: store.load(KEY), lambda: store.save(KEY, NEW))
    for attempt in attempts:
        with pytest.raises(TokenPermissionDenied, match="symbolic link"):
            attempt()
    store.clear(KEY)
    assert not store.path_of(KEY).is_symlink()
    assert outside.exists()


@posix
def test_a_pipe_in_the_place_of_a_file_is_an_error_and_no_wait(store: FileTokenStore) -> None:
    store.save(LONG_KEY, OLD)
    os.mkfifo(store.path_of(KEY))
    with pytest.raises(TokenIOError, match="not a regular file"):
        store.load(KEY)


def test_a_folder_in_the_place_of_a_file_is_an_io_error_and_leaves_nothing_behind(store: FileTokenStore) -> None:
    store.path_of(KEY).mkdir(parents=True)
    store.root.chmod(0o700)
    attempts: tuple[Callable[[], object], ...] = (
        lambda: store.load(KEY),
        lambda: store.save(KEY, NEW),
        lambda: store.clear(KEY),
    )
    for attempt in attempts:
        with pytest.raises(TokenStoreError):
            attempt()
    assert left_overs(store.root, ".tmp-") == []
    assert store.path_of(KEY).is_dir()


def test_a_file_in_the_place_of_the_folder_is_an_io_error(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("")
    store = FileTokenStore(tmp_path / "tokens")
    attempts: tuple[Callable[[], object], ...] = (
        lambda: store.load(KEY),
        lambda: store.save(KEY, NEW),
        lambda: store.clear(KEY),
        store.list,
    )
    for attempt in attempts:
        with pytest.raises(TokenIOError):
            attempt()


# Other users


@posix
def test_a_folder_that_may_not_be_entered_is_permission_denied_and_never_an_empty_store(
    open_folder: Path,
) -> None:
    root = open_folder / "tokens"
    FileTokenStore(root).save(KEY, OLD)
    out = run(
        """
os.chmod(sys.argv[1], 0)
if os.geteuid() == 0:
    os.setuid(65534)
for attempt in (lambda: store.load(KEY), lambda: store.save(KEY, PersistedTokens.api_key("x")),
                lambda: store.clear(KEY), store.list, lambda: store.holds(KEY)):
    try:
        attempt()
    except TokenPermissionDenied as error:
        print(error)
""",
        root,
    )
    root.chmod(0o700)
    assert len(out.splitlines()) == 5
    assert out.startswith(f"permission denied: cannot read {root}/dev,openai,work.json: Permission denied\n")
    assert FileTokenStore(root).load(KEY) == OLD


@posix
@as_root
def test_a_file_that_another_user_left_open_is_refused(open_folder: Path) -> None:
    FileTokenStore(open_folder).save(KEY, OLD)
    FileTokenStore(open_folder).path_of(KEY).chmod(0o644)
    out = run(
        """
os.setuid(65534)
try:
    store.load(KEY)
except TokenPermissionDenied as error:
    print(error)
""",
        open_folder,
    )
    assert "open to other users" in out and "chmod 600" in out
    assert mode(FileTokenStore(open_folder).path_of(KEY)) == 0o644


# Full disks and failing ones


@posix
def test_a_file_that_cannot_grow_leaves_the_old_tokens_and_no_temporary_file(store: FileTokenStore) -> None:
    store.save(KEY, OLD)
    out = run(
        """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
try:
    store.save(KEY, PersistedTokens.api_key("x" * 10_000))
except TokenIOError as error:
    print(error)
""",
        store.root,
    )
    assert out == f"io error: cannot write {store.path_of(KEY)}: File too large\n"
    assert store.load(KEY) == OLD
    assert left_overs(store.root, ".tmp-") == []


@posix
@as_root
def test_a_full_disk_leaves_the_old_tokens_and_frees_what_it_took(tmp_path: Path) -> None:
    isolated = ("unshare", "--mount")
    mount = f"mount -t tmpfs -o size=64k,mode=700 tmpfs {tmp_path}"
    if subprocess.run([*isolated, "sh", "-c", mount], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine does not let root mount a small disk")
    out = run(
        """
import errno
store.save(KEY, PersistedTokens.api_key("old"))
filler = os.open(os.path.join(sys.argv[1], "filler"), os.O_WRONLY | os.O_CREAT)
try:
    while True:
        os.write(filler, bytes(4096))
except OSError as error:
    assert error.errno == errno.ENOSPC
os.close(filler)
for _ in range(3):
    try:
        store.save(KEY, PersistedTokens.api_key("new" * 5000))
    except TokenIOError as error:
        print(error.detail.rpartition(": ")[2], store.load(KEY).primary_secret, store.list() == [KEY])
os.unlink(os.path.join(sys.argv[1], "filler"))
store.save(KEY, PersistedTokens.api_key("new"))
print(store.load(KEY).primary_secret, sorted(os.listdir(sys.argv[1])))
""",
        tmp_path,
        before=(*isolated, "sh", "-c", f'{mount} && exec "$@"', "sh"),
    )
    assert out.splitlines() == [
        *["No space left on device old True"] * 3,
        "new ['.locks', 'dev,openai,work.json']",
    ]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_fails_leaves_the_old_tokens_and_no_temporary_file(
    store: FileTokenStore, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    store.save(KEY, OLD)

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(TokenIOError, match="Input/output error"):
            store.save(KEY, NEW)
    assert store.load(KEY) == OLD
    assert left_overs(store.root, ".tmp-") == []


# Other processes


def test_a_lock_that_stays_held_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    store = FileTokenStore(tmp_path, lock_timeout=0.05)
    store.save(KEY, OLD)
    lock = tmp_path / ".locks" / "dev,openai,work.json.lock"
    with FileLock(lock):
        attempts: tuple[Callable[[], object], ...] = (lambda: store.save(KEY, NEW), lambda: store.clear(KEY))
        for attempt in attempts:
            with pytest.raises(TokenStoreUnavailable, match=re.escape(str(lock))):
                attempt()
        assert store.load(KEY) == OLD
        store.save(LONG_KEY, NEW)
    store.save(KEY, NEW)
    assert lock.read_bytes() == b""


def test_no_update_of_many_processes_is_lost(tmp_path: Path) -> None:
    FileTokenStore(tmp_path).save(KEY, PersistedTokens.api_key("0"))
    counters = [
        start(
            """
for _ in range(100):
    while True:
        now = store.load(KEY)
        try:
            store.save(KEY, PersistedTokens.api_key(str(int(now.primary_secret) + 1)), expect=now)
            break
        except TokensChanged:
            pass
""",
            tmp_path,
        )
        for _ in range(3)
    ]
    for counter in counters:
        _, err = counter.communicate(timeout=60)
        assert counter.returncode == 0, err
    assert FileTokenStore(tmp_path).load(KEY) == PersistedTokens.api_key("300")


SAVE_FOR_EVER = """
size = 0
print("saving", flush=True)
while True:
    size = 200_000 - size
    store.save(KEY, PersistedTokens("api_key", primary_secret="s" * size, metadata=size))
"""


def test_a_reader_never_sees_a_part_of_what_a_process_saves(tmp_path: Path) -> None:
    store = FileTokenStore(tmp_path)
    writer = start(SAVE_FOR_EVER, tmp_path)
    try:
        assert writer.stdout is not None and writer.stdout.readline() == "saving\n"
        sizes = set()
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            tokens = store.load(KEY)
            if tokens is not None:
                assert len(tokens.primary_secret or "") == tokens.metadata
                sizes.add(tokens.metadata)
    finally:
        writer.kill()
        writer.communicate()
    assert sizes == {0, 200_000}


@posix
def test_a_kill_at_any_moment_leaves_tokens_that_load(tmp_path: Path) -> None:
    store = FileTokenStore(tmp_path)
    moments = random.Random(7)
    for _ in range(6):
        writer = start(SAVE_FOR_EVER, tmp_path)
        assert writer.stdout is not None and writer.stdout.readline() == "saving\n"
        time.sleep(0.01 + moments.random() * 0.05)
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        tokens = store.load(KEY)
        assert tokens is not None and len(tokens.primary_secret or "") == tokens.metadata
        assert store.list() == [KEY]
    store.save(KEY, NEW)
    assert left_overs(tmp_path, ".tmp-") == []


@posix
def test_what_a_killed_save_left_is_private_never_read_and_removed_by_the_next_writer(tmp_path: Path) -> None:
    store = FileTokenStore(tmp_path)
    other = LeaseKey("pre-dev", "openai", "work")
    store.save(KEY, OLD)
    store.save(other, OLD)
    for key, moment in ((KEY, "fchmod"), (other, "fsync")):
        killed = start(
            f"""
import signal
os.umask(0)
os.{moment} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
store.save(LeaseKey.parse({str(key)!r}), PersistedTokens.api_key("new"))
""",
            tmp_path,
        )
        killed.communicate(timeout=60)
        assert killed.returncode == -signal.SIGKILL
    temporary = left_overs(tmp_path, ".tmp-")
    assert [mode(path) for path in temporary] == [0o600, 0o600]
    assert store.load(KEY) == OLD
    assert store.list() == [KEY, other]
    store.save(KEY, NEW)
    assert [path.name.partition("-")[2].partition("-")[2] for path in left_overs(tmp_path, ".tmp-")] == [
        token_file_name(other)
    ]
    store.clear(other)
    assert left_overs(tmp_path, ".tmp-") == []


# Secrets


def test_no_error_file_name_or_lock_holds_a_secret(store: FileTokenStore) -> None:
    store.save(KEY, OLD)
    store.save(KEY, NEW, expect=OLD)
    store.path_of(KEY).write_text(f'{{"auth_mode": "{CANARY}", "primary_secret": {CANARY}')
    store.path_of(LONG_KEY).mkdir()
    attempts: list[Callable[[], object]] = [
        lambda: store.load(KEY),
        lambda: store.save(KEY, OLD, expect="e1"),
        lambda: store.save(KEY, OLD, expect=NEW),
        lambda: store.clear(KEY, expect=None),
        lambda: store.save(LONG_KEY, OLD),
        lambda: store.save(KEY, PersistedTokens("api_key", CANARY, metadata=float("inf"))),
    ]
    for attempt in attempts:
        with pytest.raises(TokenStoreError) as failure:
            attempt()
        assert CANARY not in "".join(traceback.format_exception(failure.value)) + repr(failure.value)
    assert CANARY not in repr(store)
    for path in store.root.rglob("*"):
        assert CANARY not in str(path)
        if path.parent.name == ".locks":
            assert path.read_bytes() == b""
