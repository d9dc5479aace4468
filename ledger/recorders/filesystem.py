"""Which file system a ledger would lie on, and whether SQLite's write-ahead log is safe there.

The log's index is memory shared between processes. Network mounts and the shared folders of virtual machines and
containers do not keep such memory coherent, and a database on them is corrupted silently, sooner or later.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

import psutil

from ledger.errors import UnsafeFileSystem
from ledger.one_line import one_line

__all__ = ["Mount", "file_system_of", "mounts", "refuse_unsafe_file_system"]

UNSAFE: Final = frozenset(
    {
        "nfs",
        "nfs3",
        "nfs4",
        "cifs",
        "smb",
        "smb2",
        "smb3",
        "smbfs",
        "afpfs",
        "webdav",
        "davfs",
        "9p",
        "virtiofs",
        "vboxsf",
    }
    | {"vmhgfs", "prl_fs", "afs", "ceph", "glusterfs", "lustre", "ncpfs", "osxfs", "grpcfuse", "fakeowner"}
)
UNSAFE_PREFIX: Final = "fuse"


class Mount(NamedTuple):
    """One line of the mount table."""

    folder: str
    file_system: str


def mounts() -> Iterable[Mount]:
    """The mount table of this process."""
    return [Mount(part.mountpoint, part.fstype) for part in psutil.disk_partitions(all=True)]


def file_system_of(folder: Path, table: Iterable[Mount]) -> str | None:
    """The file system a folder lies on: that of the innermost mount above it; ``None`` when no line covers it."""
    resolved = folder.resolve()
    covering = [mount for mount in table if resolved.is_relative_to(mount.folder)]
    # Of two mounts on one folder the later one lies on top.
    innermost = max(enumerate(covering), key=lambda found: (len(Path(found[1].folder).parts), found[0]), default=None)
    return None if innermost is None else innermost[1].file_system


def refuse_unsafe_file_system(path: Path, table: Iterable[Mount]) -> None:
    """Make sure that a ledger at this path would not be corrupted by its file system.

    Raises:
        UnsafeFileSystem: It would; the message says what to do.
    """
    file_system = file_system_of(path.parent, table)
    if file_system is not None and (file_system in UNSAFE or file_system.startswith(UNSAFE_PREFIX)):
        raise UnsafeFileSystem(
            f"{one_line(path)} lies on a {file_system} mount, where SQLite's write-ahead log gets corrupted; "
            "use a local disk, or PostgreSQL for many machines "
            "(?unsafe_filesystem=allow opens it all the same, at your risk)"
        )
