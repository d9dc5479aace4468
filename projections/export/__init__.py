"""Exports: the events in the forms that other tools read, written as they are read, in little memory.

Events carry no secrets, and so exports carry none either.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, Protocol

from ledger.lease_ledger import LeaseLedger
from ledger.reading import RecordedEvent
from projections.export import cloudevents, jsonl, ocsf, spreadsheet
from projections.export.selection import EVERYTHING, TAGS, Selection, selected

__all__ = [
    "EVERYTHING",
    "FORMATS",
    "TAGS",
    "Lines",
    "Selection",
    "TextSink",
    "export_events",
    "export_lines",
    "selected",
]

Lines = Callable[[Iterable[RecordedEvent], LeaseLedger], Iterator[str]]
"""Turns events into lines of text, each with its line break."""

FORMATS: Final[Mapping[str, Lines]] = MappingProxyType(
    {
        "jsonl": jsonl.lines,
        "csv": spreadsheet.lines,
        "ocsf": ocsf.lines,
        "cloudevents": cloudevents.lines,
        "cloudevents-expirytime": cloudevents.lines_with_expiry,
    }
)
"""Every format by its name."""

_PROGRESS_EVERY: Final = 1000


class TextSink(Protocol):
    """What takes lines of text, such as a text file."""

    def write(self, text: str, /) -> object:
        """Take one line, its line break included."""


def export_lines(ledger: LeaseLedger, form: str = "jsonl", selection: Selection = EVERYTHING) -> Iterator[str]:
    """The chosen events as lines of text, read from the ledger as they are asked for.

    Raises:
        ValueError: There is no format of that name.
        CorruptHistory: An event cannot be read.
        UnknownEventTag: A newer version wrote one of them.
        LedgerStorageError: The ledger cannot be read.
    """
    if form not in FORMATS:
        raise ValueError(f"no format {form!r}; the formats are {', '.join(FORMATS)}")
    return FORMATS[form](selected(ledger, selection), ledger)


def export_events(
    ledger: LeaseLedger,
    out: TextSink,
    form: str = "jsonl",
    selection: Selection = EVERYTHING,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write the chosen events, and return how many there were; raises as :func:`export_lines`.

    Args:
        ledger: The ledger.
        out: A text file, opened with ``encoding="utf-8", newline=""``: CSV has line ends of its own.
        form: One of :data:`FORMATS`.
        selection: Which events; all by default.
        progress: Called now and then with the events written so far.
    """
    if form not in FORMATS:
        raise ValueError(f"no format {form!r}; the formats are {', '.join(FORMATS)}")
    written = 0

    def counted() -> Iterator[RecordedEvent]:
        nonlocal written
        for recorded in selected(ledger, selection):
            written += 1
            yield recorded
            if progress is not None and written % _PROGRESS_EVERY == 0:
                progress(written)

    for line in FORMATS[form](counted(), ledger):
        out.write(line)
    if progress is not None:
        progress(written)
    return written
