"""The latest events in a SQLite write-ahead log, read from its own bytes.

The log is a header and frames, each the new content of one page; the last frame of a transaction says so. Read like
this it needs no lock and disturbs none: the locks of a database lie on its other two files, where closing a file that
this process opened would drop them.
"""

import itertools
import os
import struct
from collections.abc import Callable, Iterable
from io import FileIO
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["Leaf", "LogEnd", "end_of_log", "verified_end_of_log"]

_HEADER_BYTES: Final = 32
_FRAME_HEADER_BYTES: Final = 24
_LITTLE, _BIG = 0x377F0682, 0x377F0683
_TABLE_LEAF: Final = 0x0D
_INTEGERS: Final = frozenset({1, 2, 3, 4, 5, 6, 8, 9})
_TEXTS: Final = (0, 2, 3)
_MOST_FRAMES: Final = 400
_MASK: Final = 0xFFFF_FFFF


class Leaf(NamedTuple):
    """A page with events.

    Attributes:
        last: The greatest position on it.
        page: Its bytes.
    """

    last: int
    page: bytes


class LogEnd(NamedTuple):
    """The latest events in a log.

    Attributes:
        last: Those of its last transaction, which others may not see yet.
        published: Those of the one before, which everybody sees: it was over before the last began.
    """

    last: Leaf | None
    published: Leaf | None


class _Log:
    """A log's bytes. Read, not mapped: others may cut it short at any moment."""

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self.header = self._read(0, _HEADER_BYTES)
        self.magic, _, self.page_bytes, _ = struct.unpack_from(">4I", self.header, 0)
        self.salts = self.header[16:24]
        self.frame_bytes = _FRAME_HEADER_BYTES + (self.page_bytes or 1)
        size = os.fstat(file.fileno()).st_size
        self.frames = (size - _HEADER_BYTES) // self.frame_bytes if self.magic in (_LITTLE, _BIG) else 0

    def _read(self, start: int, length: int) -> bytes:
        self._file.seek(start)
        data = self._file.read(length)
        if len(data) < length:
            raise EOFError
        return data

    def _frame_header(self, frame: int) -> bytes:
        return self._read(_HEADER_BYTES + frame * self.frame_bytes, _FRAME_HEADER_BYTES)

    def _page(self, frame: int) -> bytes:
        return self._read(_HEADER_BYTES + frame * self.frame_bytes + _FRAME_HEADER_BYTES, self.page_bytes)

    def is_current(self, frame: int) -> bool:
        """Whether a frame was written since the log was begun anew, and is not left over from before."""
        return self._frame_header(frame)[8:16] == self.salts

    def current(self) -> int:
        """How many frames are: those that come first."""
        low, high = 0, self.frames
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self.is_current(middle) else (low, middle)
        return low

    def ends_transaction(self, frame: int) -> bool:
        return self._frame_header(frame)[4:8] != b"\0\0\0\0"

    def leaf(self, frame: int) -> Leaf | None:
        page = self._page(frame)
        # The first page, with the schema, begins with the header of the file.
        if page[0] != _TABLE_LEAF:
            return None
        (cells,) = struct.unpack_from(">H", page, 3)
        if not cells or 8 + 2 * cells > len(page):
            return None
        (cell,) = struct.unpack_from(">H", page, 8 + 2 * (cells - 1))
        try:
            _, after = _varint(page, cell)
            row, after = _varint(page, after)
            return Leaf(row, page) if _is_event(page, after) else None
        except IndexError:
            return None

    def verified(self) -> int:
        """How many frames count, by their checksums: what was torn, and all after it, is none of the log."""
        order = ">" if self.magic == _BIG else "<"
        sums = _checksum(order, self.header[:-8], (0, 0))
        if sums != struct.unpack_from(">2I", self.header, _HEADER_BYTES - 8):
            return 0
        for frame in range(self.frames):
            header = self._frame_header(frame)
            sums = _checksum(order, self._page(frame), _checksum(order, header[:8], sums))
            if header[8:16] != self.salts or sums != struct.unpack_from(">2I", header, 16):
                return frame
        return self.frames


def _is_event(page: bytes, record: int) -> bool:
    """Whether a record has the columns of an event: a text, an integer, and two texts, as no other table's has."""
    size, at = _varint(page, record)
    kinds: list[int] = []
    while at < record + size:
        kind, at = _varint(page, at)
        kinds.append(kind)
    return (
        len(kinds) == 4 and kinds[1] in _INTEGERS and all(kinds[column] % 2 and kinds[column] > 12 for column in _TEXTS)
    )


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


def end_of_log(path: Path) -> LogEnd:
    """The latest events in the log of a ledger, without making sure that its end is not torn.

    Args:
        path: The ledger's file; the log lies beside it.
    """
    return _looked(path, lambda log: _latest(log, log.current()))


def verified_end_of_log(path: Path) -> LogEnd:
    """The latest events in all of the log that counts: slow, and sure.

    Args:
        path: The ledger's file; the log lies beside it.
    """
    return _looked(path, _sure)


def _looked(path: Path, look: Callable[[_Log], LogEnd]) -> LogEnd:
    try:
        # A few short pieces of it are wanted, and none twice.
        with Path(f"{path}-wal").open("rb", buffering=0) as file:
            return look(_Log(file))
    except (OSError, EOFError):
        # Gone, begun anew or cut short by others: it holds nothing that the file does not.
        return LogEnd(None, None)


def _sure(log: _Log) -> LogEnd:
    ends = [frame for frame in range(log.verified()) if log.ends_transaction(frame)]
    found = [_greatest(log.leaf(frame) for frame in range(end + 1)) for end in ends[-2:]]
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


def _greatest(leaves: Iterable[Leaf | None]) -> Leaf | None:
    return max((leaf for leaf in leaves if leaf is not None), key=lambda leaf: leaf.last, default=None)
