"""Giving a finished file its name, for whoever writes a whole file or none."""

import os
from pathlib import Path
from typing import Final

__all__ = ["give_new_name"]

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)


def give_new_name(unfinished: Path, target: Path) -> None:
    """Let a file be found under a name that nobody has; unlike a renaming, never in the place of what has it.

    Where the file system has links, the file keeps its first name besides, which is the caller's to remove.

    Args:
        unfinished: The file, in the same folder.
        target: Its new name.

    Raises:
        FileExistsError: Something has that name; it is as it was.
        OSError: It could not be named.
    """
    try:
        os.link(unfinished, target)
    except FileExistsError:
        raise
    except OSError:
        # This file system has no hard links: the name is taken by an empty file first, which nobody else can then take.
        os.close(os.open(target, _CREATE, 0o600))
        try:
            unfinished.replace(target)
        except OSError:
            target.unlink(missing_ok=True)
            raise
