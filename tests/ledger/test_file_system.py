"""A SQLite ledger where its write-ahead log would be corrupted is refused before it is made."""

import os
import subprocess
from pathlib import Path

import pytest

from ledger.errors import UnsafeFileSystem
from ledger.lease_ledger import LeaseLedger
from ledger.opening import open_recorder
from ledger.recorders import filesystem
from ledger.recorders.filesystem import Mount, file_system_of, mounts, refuse_unsafe_file_system


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "9p", "virtiofs", "fuse.sshfs", "fuseblk"])
def test_a_network_or_shared_mount_is_refused_with_the_reason_and_the_way_out(kind: str, tmp_path: Path) -> None:
    table = [Mount("/", "ext4"), Mount(str(tmp_path), kind)]
    with pytest.raises(UnsafeFileSystem, match=rf"{kind} mount.*PostgreSQL.*unsafe_filesystem=allow"):
        refuse_unsafe_file_system(tmp_path / "deeper" / "auth.db", table)


def test_the_innermost_mount_decides_and_of_two_on_one_folder_the_later(tmp_path: Path) -> None:
    outer, inner = Mount(str(tmp_path), "nfs4"), Mount(str(tmp_path / "local"), "ext4")
    assert file_system_of(tmp_path / "local" / "deeper", [inner, Mount("/", "xfs"), outer]) == "ext4"
    assert file_system_of(tmp_path, [outer, Mount(str(tmp_path), "tmpfs")]) == "tmpfs"
    assert file_system_of(tmp_path / "localities", [Mount("/", "xfs"), inner]) == "xfs"


def test_a_link_is_followed_to_where_the_file_really_lies(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (tmp_path / "link").symlink_to(shared)
    assert file_system_of(tmp_path / "link", [Mount("/", "xfs"), Mount(str(shared), "9p")]) == "9p"


def test_this_machines_own_mount_table_covers_the_test_folder(tmp_path: Path) -> None:
    assert file_system_of(tmp_path, mounts()) is not None


def test_the_check_is_made_on_open_and_only_an_explicit_option_overrides_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = file_system_of(tmp_path, mounts())
    monkeypatch.setattr(filesystem, "UNSAFE", frozenset({here}))
    url = f"sqlite:///{tmp_path}/auth.db"
    with pytest.raises(UnsafeFileSystem):
        LeaseLedger.open(url)
    assert list(tmp_path.iterdir()) == []
    with LeaseLedger.open(f"{url}?unsafe_filesystem=allow") as ledger:
        assert ledger.keys() == []
    with pytest.raises(ValueError, match="unsafe_filesystem"):
        open_recorder(f"{url}?unsafe_filesystem=perhaps", "an id")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_real_mount_shows_in_the_table(tmp_path: Path) -> None:
    if subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path], capture_output=True, check=False).returncode:
        pytest.skip("this machine mounts nothing")
    try:
        assert file_system_of(tmp_path, mounts()) == "tmpfs"
    finally:
        subprocess.run(["umount", tmp_path], check=True)
