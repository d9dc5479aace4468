"""Import of the reference runtime's audit trail into a ledger file of its own, to replay and explain its incidents."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from ledger.copying import new_ledger_file
from ledger.errors import LeaseLedgerError
from ledger.lease_ledger import LeaseLedger
from ledger.recorders.sqlite_address import sqlite_url
from projections.importing.events import IMPORT_ACTOR, TrailRecorder, is_imported
from projections.importing.trail import TARGET, Aside, TrailLine, UnusableLine, read_line
from projections.input_files import open_input

__all__ = [
    "IMPORT_ACTOR",
    "LISTED_LINES",
    "TARGET",
    "AlreadyThere",
    "ImportReport",
    "KeptOut",
    "import_trail",
    "is_imported",
]

LISTED_LINES: Final = 1000
"""How many of the lines kept out a report lists; it counts all."""

LONGEST_LINE_BYTES: Final = 1 << 20
_PROGRESS_EVERY: Final = 500


class AlreadyThere(LeaseLedgerError):
    """The ledger to import into exists, and may hold this trail already. Nothing was imported."""


class KeptOut(msgspec.Struct, frozen=True):
    """A line that was not imported: its number, counted from 1, and why."""

    line: int
    reason: str


class ImportReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of an import.

    Attributes:
        ledger: The new ledger file.
        source: The trail.
        lines: Lines in the trail.
        imported: Lines that became events.
        events: Events recorded; more than lines imported where a trail begins in the middle of a lease's life, which
            takes an event of its own.
        leases: Leases they belong to.
        skipped_other_targets: Lines of other parts of the runtime.
        skipped_login_flows: Steps of login flows, which change no lease.
        skipped_other_records: Audit records that tell of no transition.
        skipped_blank: Empty lines.
        kept_out: Lines that cannot be read or that contradict the state machine or the lines before them.
        listed: The first of these, with reasons.
    """

    ledger: str
    source: str
    lines: int
    imported: int
    events: int
    leases: int
    skipped_other_targets: int
    skipped_login_flows: int
    skipped_other_records: int
    skipped_blank: int
    kept_out: int
    listed: tuple[KeptOut, ...] = ()


def import_trail(
    source: str | os.PathLike[str],
    into: str | os.PathLike[str],
    progress: Callable[[int, int], None] | None = None,
) -> ImportReport:
    """Import a trail into a new ledger file.

    What a trail does not carry stays unknown: see :mod:`projections.importing.events`. The time of each event is the
    time of its line.

    Args:
        source: The trail, JSON lines.
        into: The ledger file to make.
        progress: Called now and then with the bytes read and the size of the trail.

    Raises:
        AlreadyThere: ``into`` exists. An import is never repeated into the same ledger.
        InputRefused: There is no such trail, it is no regular file, or it cannot be read.
        LedgerStorageError: The ledger cannot be written. Nothing is left of it.
    """
    trail, target = Path(source), Path(into).absolute()
    with open_input(trail) as lines:
        if os.path.lexists(target):
            raise AlreadyThere(
                f"{target} exists already, and may hold this trail; an import makes a new ledger: name another file"
            )
        # Not synchronised event by event: an import that a power cut ends is made anew.
        with (
            new_ledger_file(target) as unfinished,
            LeaseLedger.open(f"{sqlite_url(unfinished)}?synchronous=normal") as ledger,
        ):
            return _import(lines, trail, target, ledger, progress)


def _import(
    lines: BinaryIO,
    trail: Path,
    target: Path,
    ledger: LeaseLedger,
    progress: Callable[[int, int], None] | None,
) -> ImportReport:
    recorder = TrailRecorder(ledger, trail.name.encode(errors="replace").decode()[:200])
    size = trail.stat().st_size
    asides = dict.fromkeys(Aside, 0)
    number = imported = kept_out = 0
    listed: list[KeptOut] = []
    for number, line in enumerate(_bounded(lines), 1):
        try:
            found = _read(line)
            if isinstance(found, TrailLine):
                recorder.record(number, found)
                imported += 1
            else:
                asides[found] += 1
        except UnusableLine as error:
            kept_out += 1
            if len(listed) < LISTED_LINES:
                listed.append(KeptOut(number, str(error)))
        if progress is not None and number % _PROGRESS_EVERY == 0:
            progress(lines.tell(), size)
    if progress is not None:
        progress(size, size)
    return ImportReport(
        str(target),
        str(trail),
        number,
        imported,
        recorder.recorded,
        len(ledger.keys()),
        asides[Aside.OTHER_TARGET],
        asides[Aside.LOGIN_FLOW],
        asides[Aside.OTHER_RECORD],
        asides[Aside.BLANK],
        kept_out,
        tuple(listed),
    )


def _bounded(lines: BinaryIO) -> Iterator[bytes | None]:
    """The lines; ``None`` for one that is too long to be taken into memory."""
    while line := lines.readline(LONGEST_LINE_BYTES):
        if len(line) < LONGEST_LINE_BYTES or line.endswith(b"\n"):
            yield line
            continue
        while len(rest := lines.readline(LONGEST_LINE_BYTES)) == LONGEST_LINE_BYTES and not rest.endswith(b"\n"):
            pass
        yield None


def _read(line: bytes | None) -> TrailLine | Aside:
    if line is None:
        raise UnusableLine(f"it is longer than {LONGEST_LINE_BYTES:,} bytes")
    return read_line(line)
