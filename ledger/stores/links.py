"""Symbolic links that a token file may be.

Kubernetes mounts a secret as ``file`` -> ``..data/file`` and ``..data`` -> ``..2026_01_01``, and tools that keep
dotfiles link too. A planted link would make this process read, as tokens, whatever it may read. So a link is followed
where only whom we trust anyway can have made it: every step stays inside the store's folder, and every link, folder and
file on the way belongs to this user or to root, with no folder on the way that others may write to.
"""

import errno
import os
import stat
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Final

__all__ = ["LinkRefused", "target_within"]

_MOST_LINKS: Final = 40
_TRIES: Final = 5


class LinkRefused(Exception):
    """A symbolic link that is not followed, and why."""


def target_within(path: str, folder: str) -> str:
    """Where the links that begin at a path end.

    The links may be exchanged while they are followed, as Kubernetes does when a secret changes; then they are followed
    anew.

    Args:
        path: A file in the folder.
        folder: The folder that no step may leave.

    Raises:
        LinkRefused: They lead out of the folder, or past something that others made or may change.
        FileNotFoundError: They lead to nothing.
        OSError: They cannot be followed.
    """
    for _ in range(_TRIES - 1):
        try:
            return _follow(path, folder)
        except FileNotFoundError:
            continue
    return _follow(path, folder)


def _follow(path: str, folder: str) -> str:
    ahead = deque(_inside(path, folder))
    behind: list[str] = []
    links = 0
    while ahead:
        name = ahead.popleft()
        if name == os.pardir:
            if not behind:
                raise _leads_out()
            behind.pop()
            continue
        here = os.path.join(folder, *behind, name)  # noqa: PTH118  # paths would take ".." away
        found = os.lstat(here)
        _refuse_unless_trusted(found)
        if not stat.S_ISLNK(found.st_mode):
            behind.append(name)
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        target = os.readlink(here)  # noqa: PTH115
        steps: Sequence[str] = Path(target).parts
        if Path(target).is_absolute():
            behind.clear()
            steps = _inside(target, folder)
        ahead.extendleft(reversed(steps))
    return os.path.join(folder, *behind)  # noqa: PTH118


def _inside(path: str, folder: str) -> Sequence[str]:
    """The steps from the folder to an absolute path below it, by either of the folder's names."""
    for base in (folder, os.path.realpath(folder)):
        prefix = os.path.join(base, "")  # noqa: PTH118
        if path.startswith(prefix):
            return Path(path[len(prefix) :]).parts
    raise _leads_out()


def _refuse_unless_trusted(found: os.stat_result) -> None:
    if os.name != "posix":
        return
    if found.st_uid not in (os.geteuid(), 0):
        raise LinkRefused(f"it is a symbolic link past something that belongs to another user (uid {found.st_uid})")
    if stat.S_ISDIR(found.st_mode) and found.st_mode & 0o022:
        raise LinkRefused("it is a symbolic link into a folder that other users may write to")


def _leads_out() -> LinkRefused:
    return LinkRefused(
        "it is a symbolic link out of the store's folder, and only links inside of it are followed; put the file "
        "itself in its place, or point --store at the folder where it lies"
    )
