"""Which files of a ledger are open to other users, and to whom."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ledger.recorders.base import LeaseRecorder
from ledger.recorders.sqlite import SQLiteLeaseRecorder
from projections.audit_place import beside

__all__ = ["Exposure", "exposures"]


class Exposure(msgspec.Struct, frozen=True):
    """A file or folder that not only its owner may use.

    Attributes:
        path: The file.
        group: The group whose members may use it, by name or else by number; ``None`` when they may not.
        everybody: Whether every user of this machine may.
        writable: Whether those may change it. A lock on a file needs no more than that, and stops every append.
        intended: Whether just the group may that the ledger is shared with.
    """

    path: str
    group: str | None
    everybody: bool
    writable: bool
    intended: bool

    @property
    def text(self) -> str:
        """The same in words, and what to do."""
        whom = "every user of this machine" if self.everybody else f"every member of group {self.group}"
        may = "read and write it" if self.writable else "read it"
        advice = "as the ledger is shared with that group" if self.intended else "run chmod go= on it, or share it so"
        return f"{whom} may {may}; {advice}"


def exposures(recorder: LeaseRecorder) -> Iterator[Exposure]:
    """Look at the modes of every file of a ledger, the audit file and what lies beside both. Opens and changes none.

    Nothing on Windows, where modes mean little.
    """
    if os.name != "posix":
        return
    for path in _files(recorder):
        with contextlib.suppress(FileNotFoundError):
            found = path.lstat()
            may = stat.S_IMODE(found.st_mode)
            if may & 0o066 and not stat.S_ISLNK(found.st_mode):
                everybody = bool(may & 0o006)
                yield Exposure(
                    path=str(path),
                    group=_group_name(found.st_gid) if may & 0o060 else None,
                    everybody=everybody,
                    writable=bool(may & (0o002 if everybody else 0o020)),
                    intended=recorder.access.shared and not everybody and found.st_gid == recorder.access.group,
                )


def _files(recorder: LeaseRecorder) -> Iterator[Path]:
    if isinstance(recorder, SQLiteLeaseRecorder):
        for ending in ("", "-wal", "-shm", ".create-lock", ".locks"):
            yield Path(f"{recorder.path}{ending}")
    key = recorder.sidecar("fingerprint-key")
    if key is not None:
        yield key
    audit = beside(recorder)
    if audit is not None:
        for ending in ("", "-wal", "-shm", ".lock"):
            yield Path(f"{audit}{ending}")


def _group_name(number: int) -> str:
    import grp  # noqa: PLC0415  # not on Windows

    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
