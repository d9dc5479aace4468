"""Answers about a ledger, replayed from its events: what happened, what is, and what shows that nothing was changed.

:class:`AuditLog` is where to begin.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from projections.audit import AuditLog
    from projections.audit_file import AuditFileError
    from projections.history import HistoryEntry
    from projections.leases import CurrentLease
    from projections.stale_markers import StoredToken, TokenFinding

__all__ = ["AuditFileError", "AuditLog", "CurrentLease", "HistoryEntry", "StoredToken", "TokenFinding"]

# Loaded when first asked for: the command line lies in this package too, and an interrupt that comes while all of it
# loads can be answered quietly only by code that is loaded already.
_HOMES: Final = {
    "AuditFileError": "projections.audit_file",
    "AuditLog": "projections.audit",
    "CurrentLease": "projections.leases",
    "HistoryEntry": "projections.history",
    "StoredToken": "projections.stale_markers",
    "TokenFinding": "projections.stale_markers",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
