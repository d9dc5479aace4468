"""Reports: one self-contained HTML page that shows what happened to leases, to look at, step through and pass on."""

import os
from pathlib import Path

from ledger.lease_ledger import LeaseLedger
from projections.export.selection import EVERYTHING, Selection
from projections.output_files import output_file
from projections.printable import encodable
from projections.report.model import ReportModel, TooManyEvents, build_model
from projections.report.rendering import is_report, render
from projections.report.verdicts import LeaseVerdict, Verdicts, explained
from projections.time_travel.streams import LedgerStreams
from projections.times import utc_from_ms

__all__ = [
    "MOST_EVENTS",
    "LeaseVerdict",
    "ReportModel",
    "TooManyEvents",
    "Verdicts",
    "is_report",
    "report_html",
    "write_report",
]

MOST_EVENTS = 20_000
"""How many events a page takes unless told otherwise; it stays quick at 5,000."""


def report_html(
    ledger: LeaseLedger,
    selection: Selection = EVERYTHING,
    *,
    title: str = "Lease report",
    verdicts: Verdicts | None = None,
    limit: int = MOST_EVENTS,
) -> str:
    """The page as text; arguments and errors as :func:`write_report`."""
    made = utc_from_ms(ledger.clock())
    judged = verdicts or explained(LedgerStreams(ledger))
    return render(build_model(ledger, selection, encodable(title, "utf-8"), judged, limit), made)


def write_report(
    ledger: LeaseLedger,
    path: str | os.PathLike[str],
    selection: Selection = EVERYTHING,
    *,
    title: str = "Lease report",
    verdicts: Verdicts | None = None,
    limit: int = MOST_EVENTS,
    overwrite: bool = False,
) -> Path:
    """Write a report, whole or not at all, and return its absolute path.

    Args:
        ledger: The ledger.
        path: The file; an earlier report that is there is replaced.
        selection: Which events to show. The state after each is told by all events before it, shown or not.
        title: The heading.
        verdicts: Says what is the matter with a lease; by default :func:`projections.explain.explain` does.
        limit: The most events the page may have.
        overwrite: Whether another file may be replaced too; a ledger, an audit file or tokens never are.

    Raises:
        OutputRefused: Something else is there, or there is no such folder. Nothing was written.
        TooManyEvents: More than ``limit`` were chosen.
        CorruptHistory: A lease's events contradict each other.
        UnknownEventTag: A newer version wrote one of them.
        LedgerStorageError: The ledger cannot be read.
        OSError: Writing failed. What was there is there still.
    """
    target = Path(path).absolute()
    with output_file(target, own_kind=is_report, overwrite=overwrite) as file:
        file.write(report_html(ledger, selection, title=title, verdicts=verdicts, limit=limit).encode())
    return target
