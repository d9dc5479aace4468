"""Answers about a ledger, replayed from its events: what happened, what is, and what shows that nothing was changed.

:class:`AuditLog` is where to begin.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from projections.audit import AuditLog
    from projections.audit_file import AuditFileError
    from projections.doctor import Diagnosis
    from projections.explain import Verdict, VerdictCode
    from projections.export import export_events
    from projections.history import HistoryEntry
    from projections.importing import ImportReport, import_trail
    from projections.incident import Bundle, BundleRefused, Incident
    from projections.input_files import InputRefused
    from projections.leases import CurrentLease
    from projections.output_files import OutputRefused
    from projections.report import write_report
    from projections.sql_limits import QuestionRefused, QuestionTooLong
    from projections.stale_markers import StoredToken, TokenFinding
    from projections.time_travel import LeaseAsOf, LeaseDifference, LeaseThen, Timeline, TimelineEntry

__all__ = [
    "AuditFileError",
    "AuditLog",
    "Bundle",
    "BundleRefused",
    "CurrentLease",
    "Diagnosis",
    "HistoryEntry",
    "ImportReport",
    "Incident",
    "InputRefused",
    "LeaseAsOf",
    "LeaseDifference",
    "LeaseThen",
    "OutputRefused",
    "QuestionRefused",
    "QuestionTooLong",
    "StoredToken",
    "Timeline",
    "TimelineEntry",
    "TokenFinding",
    "Verdict",
    "VerdictCode",
    "export_events",
    "import_trail",
    "write_report",
]

# Loaded when first asked for: the command line lies in this package too, and an interrupt that comes while all of it
# loads can be answered quietly only by code that is loaded already.
_HOMES: Final = {
    "AuditFileError": "projections.audit_file",
    "AuditLog": "projections.audit",
    "Bundle": "projections.incident",
    "BundleRefused": "projections.incident",
    "CurrentLease": "projections.leases",
    "Diagnosis": "projections.doctor",
    "HistoryEntry": "projections.history",
    "ImportReport": "projections.importing",
    "Incident": "projections.incident",
    "InputRefused": "projections.input_files",
    "LeaseAsOf": "projections.time_travel",
    "LeaseDifference": "projections.time_travel",
    "LeaseThen": "projections.time_travel",
    "OutputRefused": "projections.output_files",
    "QuestionRefused": "projections.sql_limits",
    "QuestionTooLong": "projections.sql_limits",
    "StoredToken": "projections.stale_markers",
    "Timeline": "projections.time_travel",
    "TimelineEntry": "projections.time_travel",
    "TokenFinding": "projections.stale_markers",
    "Verdict": "projections.explain",
    "VerdictCode": "projections.explain",
    "export_events": "projections.export",
    "import_trail": "projections.importing",
    "write_report": "projections.report",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
