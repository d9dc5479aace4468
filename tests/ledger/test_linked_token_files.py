"""A token file that is a symbolic link, as Kubernetes mounts secrets, and folders that belong to others."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ledger.credentials import Credentials
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.store_errors import TokenIOError, TokenPermissionDenied, TokenStoreError
from ledger.stores import FileTokenStore
from ledger.tokens import PersistedAuthMode, PersistedTokens

KEY = LeaseKey("dev", "openai", "work")
LONG_KEY = LeaseKey("x" * 300, "y")
TOKENS = PersistedTokens.api_key("first")
NEWER = PersistedTokens.api_key("second")

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links and owners of POSIX")
as_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a file to another user"
)


@pytest.fixture
def store(tmp_path: Path) -> FileTokenStore:
    return FileTokenStore(tmp_path / "tokens")


def _mounted(store: FileTokenStore, key: LeaseKey = KEY, *, moment: str = "..2026_01_01") -> Path:
    """Lay a key's file out as Kubernetes mounts a secret; returns the file itself."""
    store.save(key, TOKENS)
    place = store.path_of(key)
    data = store.root / moment
    data.mkdir(mode=0o755)
    shutil.move(place, data / place.name)
    (store.root / "..data").symlink_to(moment)
    place.symlink_to(f"..data/{place.name}")
    return data / place.name


@pytest.mark.parametrize("key", [KEY, LONG_KEY], ids=["plain name", "shortened name"])
def test_a_token_file_as_kubernetes_mounts_it_can_be_read_and_listed(store: FileTokenStore, key: LeaseKey) -> None:
    _mounted(store, key)
    assert store.load(key) == TOKENS
    assert store.list() == [key]


def test_a_secret_that_kubernetes_exchanges_is_read_anew(store: FileTokenStore) -> None:
    file = _mounted(store)
    shutil.copytree(file.parent, store.root / "..2026_02_02")
    (store.root / "..2026_02_02" / file.name).write_bytes(NEWER.to_json())
    (store.root / "..data_tmp").symlink_to("..2026_02_02")
    (store.root / "..data_tmp").rename(store.root / "..data")
    shutil.rmtree(file.parent)
    assert store.load(KEY) == NEWER


def test_a_link_is_never_replaced_by_a_save_which_says_the_way_on(store: FileTokenStore) -> None:
    file = _mounted(store)
    before = file.read_bytes()
    uses: list[Callable[[], object]] = [lambda: store.save(KEY, NEWER), lambda: store.check_savable(KEY)]
    for refused in uses:
        with pytest.raises(TokenPermissionDenied, match=r"symbolic link.*put the file itself in its place"):
            refused()
    assert store.path_of(KEY).is_symlink()
    assert file.read_bytes() == before
    shutil.copy(file, store.root / "itself")
    (store.root / "itself").rename(store.path_of(KEY))
    store.check_savable(KEY)
    store.save(KEY, NEWER)
    assert store.load(KEY) == NEWER


def test_no_token_is_spent_whose_successor_could_not_be_saved(store: FileTokenStore, tmp_path: Path) -> None:
    sent: list[PersistedTokens] = []

    def refresh(old: PersistedTokens) -> PersistedTokens:
        sent.append(old)
        return PersistedTokens(
            PersistedAuthMode.EXTERNAL_TOKENS, primary_secret="new", refresh_token="r2", expires_at=2**40
        )

    with LeaseLedger.open(f"sqlite:///{tmp_path}/auth.db", clock=lambda: 1_000_000) as ledger:
        credentials = Credentials(ledger, store)
        credentials.login(
            KEY,
            PersistedTokens(
                PersistedAuthMode.EXTERNAL_TOKENS, primary_secret="old", refresh_token="r1", expires_at=1030
            ),
        )
        moved = store.root / "moved.json"
        store.path_of(KEY).rename(moved)
        store.path_of(KEY).symlink_to(moved.name)
        assert credentials.fresh(KEY, refresh, window=60.0).primary_secret == "old"
        with pytest.raises(TokenPermissionDenied, match="symbolic link"):
            credentials.fresh(KEY, refresh, window=60.0, leeway=40.0)
        assert sent == []
        assert [recorded.event.tag for recorded in ledger.read(KEY)] == ["lease.acquired"]
        moved.rename(store.path_of(KEY))
        assert credentials.fresh(KEY, refresh).primary_secret == "new"


def test_a_linked_file_that_others_may_read_is_closed_like_any_other(store: FileTokenStore) -> None:
    file = _mounted(store)
    file.chmod(0o644)
    assert store.load(KEY) == TOKENS
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def _absolute_inside(store: FileTokenStore, file: Path) -> None:
    store.path_of(KEY).symlink_to(file)


def _back_and_forth(store: FileTokenStore, file: Path) -> None:
    store.path_of(KEY).symlink_to(f"..data/../..data/./{file.name}")


@pytest.mark.parametrize("lead", [_absolute_inside, _back_and_forth])
def test_links_that_stay_inside_are_followed_however_they_are_written(
    store: FileTokenStore, lead: Callable[[FileTokenStore, Path], None]
) -> None:
    file = _mounted(store)
    store.path_of(KEY).unlink()
    lead(store, file)
    assert store.load(KEY) == TOKENS


def _out_by_dots(store: FileTokenStore, outside: Path) -> None:
    store.path_of(KEY).symlink_to(f"../{outside.name}")


def _out_by_name(store: FileTokenStore, outside: Path) -> None:
    store.path_of(KEY).symlink_to(outside)


def _out_by_a_folder(store: FileTokenStore, outside: Path) -> None:
    (store.root / "..data").symlink_to(outside.parent)
    store.path_of(KEY).symlink_to(f"..data/{outside.name}")


def _out_and_in_again(store: FileTokenStore, outside: Path) -> None:
    shutil.copy(outside, store.root / "inside.json")
    store.path_of(KEY).symlink_to(f"../{store.root.name}/inside.json")


@pytest.mark.parametrize("lead", [_out_by_dots, _out_by_name, _out_by_a_folder, _out_and_in_again])
def test_a_link_out_of_the_folder_is_not_followed(
    store: FileTokenStore, tmp_path: Path, lead: Callable[[FileTokenStore, Path], None]
) -> None:
    store.save(KEY, TOKENS)
    outside = tmp_path / "outside.json"
    shutil.move(store.path_of(KEY), outside)
    lead(store, outside)
    with pytest.raises(TokenPermissionDenied, match="symbolic link out of the store's folder"):
        store.load(KEY)


@pytest.mark.parametrize("target", ["nothing.json", "dev,openai,work.json"], ids=["nothing", "itself"])
def test_a_link_to_nothing_or_in_a_circle_is_one_error(store: FileTokenStore, target: str) -> None:
    store.root.mkdir(mode=0o700)
    store.path_of(KEY).symlink_to(target)
    with pytest.raises(TokenStoreError, match="symbolic link") as failed:
        store.load(KEY)
    assert "\n" not in str(failed.value)


def test_a_link_past_a_folder_that_others_may_write_is_not_followed(store: FileTokenStore) -> None:
    _mounted(store).parent.chmod(0o777)
    with pytest.raises(TokenPermissionDenied, match="other users may write"):
        store.load(KEY)


@as_root
@pytest.mark.parametrize("what", ["link", "folder", "file"])
def test_a_link_past_something_of_another_users_is_not_followed(store: FileTokenStore, what: str) -> None:
    file = _mounted(store)
    given = {"link": store.path_of(KEY), "folder": file.parent, "file": file}[what]
    os.chown(given, 65_534, -1, follow_symlinks=False)
    with pytest.raises(TokenPermissionDenied, match="belongs to another user"):
        store.load(KEY)


# Folders


@as_root
def test_a_folder_of_another_users_is_refused_for_reading_and_writing(store: FileTokenStore) -> None:
    store.save(KEY, TOKENS)
    os.chown(store.root, 65_534, -1)
    uses: list[Callable[[], object]] = [
        lambda: store.load(KEY),
        lambda: store.save(KEY, NEWER),
        lambda: store.check_savable(KEY),
        lambda: store.clear(KEY),
    ]
    for use in uses:
        with pytest.raises(TokenPermissionDenied, match="belongs to another user"):
            use()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users reach, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@as_root
def test_what_root_lets_a_group_read_is_read_by_its_members(open_folder: Path) -> None:
    store = FileTokenStore(open_folder)
    store.save(KEY, TOKENS)
    os.chown(store.path_of(KEY), 0, 65_534)
    store.path_of(KEY).chmod(0o440)
    assert _read_by_member(open_folder) == ""
    store.path_of(KEY).chmod(0o444)
    assert "is open to other users" in _read_by_member(open_folder)


def _read_by_member(folder: Path) -> str:
    script = """
import os, sys
from ledger import FileTokenStore, LeaseKey, TokenPermissionDenied
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    FileTokenStore(sys.argv[1]).load(LeaseKey("dev", "openai", "work"))
except TokenPermissionDenied as refused:
    sys.exit(str(refused))
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", script, str(folder)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stderr


# Names


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"])
def test_a_name_that_no_folder_can_have_is_refused_when_it_is_given(name: str) -> None:
    with pytest.raises(ValueError, match="token folder") as refused:
        FileTokenStore(name)
    assert str(refused.value).isprintable()


def test_a_path_that_is_too_long_is_an_io_error(tmp_path: Path) -> None:
    store = FileTokenStore(tmp_path.joinpath(*["d" * 150] * 30))
    for use in (lambda: store.load(KEY), lambda: store.save(KEY, TOKENS), lambda: store.clear(KEY), store.list):
        with pytest.raises(TokenIOError, match="too long"):
            use()


def test_a_folder_name_of_any_bytes_works_and_stays_on_one_line_in_errors(tmp_path: Path) -> None:
    store = FileTokenStore(tmp_path / os.fsdecode(b"a\n\xff b"))
    store.save(KEY, TOKENS)
    assert store.load(KEY) == TOKENS
    store.path_of(KEY).write_bytes(b"damaged")
    with pytest.raises(TokenStoreError) as failed:
        store.load(KEY)
    assert str(failed.value).isprintable()
