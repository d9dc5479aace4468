"""The latest events in a SQLite write-ahead log, read from its own bytes.

The log is a header and frames, each the new content of one page; the last frame of a transaction says so. Read like
this it needs no lock and disturbs none: the locks of a database lie on its other two files, where closing a file that
this process opened would drop them.
"""

import contextlib
import itertools
import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["Leaf", "LogEnd", "end_of_log", "verified_end_of_log"]

_HEADER_BYTES: Final = 32
_FRAME_HEADER_BYTES: Final = 24
_LITTLE, _BIG = 0x377F0682, 0x377F0683
_TABLE_LEAF: Final = 0x0D
_MOST_FRAMES: Final = 400
_MASK: Final = 0xFFFF_FFFF


class Leaf(NamedTuple):
    """A page with rows of a table.

    Attributes:
        last: The greatest row id on it.
        page: Its bytes.
    """

    last: int
    page: bytes


class LogEnd(NamedTuple):
    """The latest rows in a log.

    Attributes:
        last: Those of its last transaction, which others may not see yet.
        published: Those of the one before, which everybody sees: it was over before the last began.
    """

    last: Leaf | None
    published: Leaf | None


class _Log:
    """A log's bytes."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.magic, _, self.page_bytes, _ = struct.unpack_from(">4I", data, 0)
        self.salts = bytes(data[16:24])
        self.frame_bytes = _FRAME_HEADER_BYTES + (self.page_bytes or 1)
        self.frames = (len(data) - _HEADER_BYTES) // self.frame_bytes if self.magic in (_LITTLE, _BIG) else 0

    def _start(self, frame: int) -> int:
        return _HEADER_BYTES + frame * self.frame_bytes

    def is_current(self, frame: int) -> bool:
        """Whether a frame was written since the log was begun anew, and is not left over from before."""
        start = self._start(frame)
        return bytes(self.data[start + 8 : start + 16]) == self.salts

    def current(self) -> int:
        """How many frames are: those that come first."""
        low, high = 0, self.frames
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self.is_current(middle) else (low, middle)
        return low

    def ends_transaction(self, frame: int) -> bool:
        return self.data[self._start(frame) + 4 : self._start(frame) + 8] != b"\0\0\0\0"

    def leaf(self, frame: int) -> Leaf | None:
        start = self._start(frame) + _FRAME_HEADER_BYTES
        # The first page, with the schema, begins with the header of the file.
        if self.data[start] != _TABLE_LEAF:
            return None
        page = bytes(self.data[start : start + self.page_bytes])
        (cells,) = struct.unpack_from(">H", page, 3)
        if not cells or 8 + 2 * cells > len(page):
            return None
        (cell,) = struct.unpack_from(">H", page, 8 + 2 * (cells - 1))
        try:
            _, after = _varint(page, cell)
            row, _ = _varint(page, after)
        except IndexError:
            return None
        return Leaf(row, page)

    def verified(self) -> int:
        """How many frames count, by their checksums: what was torn, and all after it, is none of the log."""
        order = ">" if self.magic == _BIG else "<"
        sums = _checksum(order, self.data[: _HEADER_BYTES - 8], (0, 0))
        if sums != struct.unpack_from(">2I", self.data, _HEADER_BYTES - 8):
            return 0
        for frame in range(self.frames):
            start = self._start(frame)
            sums = _checksum(order, self.data[start : start + 8], sums)
            sums = _checksum(order, self.data[start + _FRAME_HEADER_BYTES : start + self.frame_bytes], sums)
            if not self.is_current(frame) or sums != struct.unpack_from(">2I", self.data, start + 16):
                return frame
        return self.frames


def _varint(page: bytes, at: int) -> tuple[int, int]:
    value = 0
    for step in range(8):
        byte = page[at + step]
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            return value, at + step + 1
    return value << 8 | page[at + 8], at + 9


def _checksum(order: str, data: bytes, sums: tuple[int, int]) -> tuple[int, int]:
    first, second = sums
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for one, other in zip(words[::2], words[1::2], strict=True):
        first = first + one + second & _MASK
        second = second + other + first & _MASK
    return first, second


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[_Log | None]:
    try:
        fd = os.open(f"{path}-wal", os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except OSError:
        yield None
        return
    try:
        if os.fstat(fd).st_size < _HEADER_BYTES:
            yield None
            return
        with mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as data:
            yield _Log(data)
    finally:
        os.close(fd)


def end_of_log(path: Path) -> LogEnd:
    """The latest rows in the log of a ledger, without making sure that its end is not torn.

    Args:
        path: The ledger's file; the log lies beside it.
    """
    with _opened(path) as log:
        return LogEnd(None, None) if log is None else _latest(log, log.current())


def verified_end_of_log(path: Path) -> LogEnd:
    """The greatest rows in all of the log that counts: slow, and sure.

    Args:
        path: The ledger's file; the log lies beside it.
    """
    with _opened(path) as log:
        if log is None:
            return LogEnd(None, None)
        frames = log.verified()
        ends = [frame for frame in range(frames) if log.ends_transaction(frame)]
        until = [end + 1 for end in ends[-2:]]
        found = [_greatest(log.leaf(frame) for frame in range(end)) for end in until]
        return LogEnd(found[-1] if found else None, found[0] if len(found) > 1 else None)


def _latest(log: _Log, frames: int) -> LogEnd:
    found: list[Leaf | None] = []
    for frame in itertools.islice(range(frames - 1, -1, -1), _MOST_FRAMES):
        if log.ends_transaction(frame):
            if len(found) == 2:
                break
            found.append(None)
        if found:
            found[-1] = _greatest((found[-1], log.leaf(frame)))
    return LogEnd(found[0] if found else None, found[1] if len(found) > 1 else None)


def _greatest(leaves: "Iterator[Leaf | None] | tuple[Leaf | None, ...]") -> Leaf | None:
    return max((leaf for leaf in leaves if leaf is not None), key=lambda leaf: leaf.last, default=None)
