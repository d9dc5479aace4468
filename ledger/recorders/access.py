"""Who may use the files that lie beside a ledger, and making them for just those, whatever the umask.

A ledger is its owner's alone (0600), or it is shared with the group of its file (0660). The file's own mode says which,
so that every process that opens it, and SQLite for its ``-wal`` and ``-shm``, gives what it makes to the same people. A
file that is there keeps the mode it has.
"""

import contextlib
import os
import stat
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["OWNER_ALONE", "Access", "access_like", "give_access", "make_private_file", "make_private_folder"]

_POSIX: Final = os.name == "posix"
_CREATE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


class Access(NamedTuple):
    """Who may read and write what is made.

    Attributes:
        shared: Whether the group may, besides the owner.
        group: The id of that group; ``None`` for the one that a new file gets by itself.
    """

    shared: bool = False
    group: int | None = None

    @property
    def file_mode(self) -> int:
        """The permission bits of a file."""
        return 0o660 if self.shared else 0o600

    @property
    def folder_mode(self) -> int:
        """The permission bits of a folder; files made in a shared one get its group."""
        return 0o2770 if self.shared else 0o700


OWNER_ALONE: Final = Access()


def access_like(file: Path) -> Access:
    """The access that a file beside this one should give: its group's too if the group may write it.

    Raises:
        OSError: The file cannot be looked at.
    """
    found = file.stat()
    return Access(shared=True, group=found.st_gid) if found.st_mode & stat.S_IWGRP and _POSIX else OWNER_ALONE


def make_private_file(path: Path, access: Access = OWNER_ALONE) -> bool:
    """Make an empty file, unless there is one; returns whether it was made. A symbolic link is not followed.

    Raises:
        OSError: It cannot be made.
    """
    try:
        fd = os.open(path, _CREATE, 0o600)
    except FileExistsError:
        return False
    try:
        give_access(fd, access)
    finally:
        os.close(fd)
    return True


def make_private_folder(path: Path, access: Access = OWNER_ALONE) -> None:
    """Make a folder, unless there is one.

    Raises:
        OSError: It cannot be made, or something else has its name.
    """
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        if not path.is_dir():
            raise
        return
    if _POSIX:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            _give(fd, access, access.folder_mode)
        finally:
            os.close(fd)


def give_access(fd: int, access: Access) -> None:
    """Let just those in whom ``access`` names into an open file. Modes mean little on Windows, and stay there."""
    if _POSIX:
        _give(fd, access, access.file_mode)


def _give(fd: int, access: Access, mode: int) -> None:
    # The group first: whichever the file had at first is never let in.
    if access.group is not None and os.fstat(fd).st_gid != access.group:
        with contextlib.suppress(PermissionError):
            os.fchown(fd, -1, access.group)
    os.fchmod(fd, mode)
