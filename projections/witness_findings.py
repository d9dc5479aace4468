"""How what an audit file shows is told."""

from typing import Final

from ledger.verification import Finding

__all__ = ["AUDIT", "about_event", "about_file", "about_object"]

AUDIT: Final = "audit"
"""The witness that all of it comes from."""

_ADVICE: Final = "'lease-ledger rebuild' makes everything in it anew from the ledger"


def about_event(detail: str, position: object, key: object, version: object) -> Finding:
    """A finding on one event; what its columns hold is named as far as it is what an event has."""
    return Finding(
        AUDIT,
        detail,
        position if isinstance(position, int) else None,
        key if isinstance(key, str) else None,
        version if isinstance(version, int) else None,
    )


def about_file(
    name: str, detail: str, table: str, position: object = None, key: object = None, version: object = None
) -> Finding:
    """A finding that the audit file itself is at fault for: what it says of an event, a lease or itself."""
    where = about_event("", position, key, version)
    text = f"{name} itself was changed: {detail}; {_ADVICE}"
    return Finding(AUDIT, text, where.position, where.key, where.version, table)


def about_object(detail: str, name: str) -> Finding:
    """A finding on a table, index, view, trigger or setting of the file."""
    text = f"the audit file itself was changed: {detail}; {_ADVICE}"
    return Finding(AUDIT, text, object_name=name)
