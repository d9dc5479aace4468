"""What Datasette needs to show an audit file to a person: titles, descriptions, and questions ready to ask."""

from typing import Any, Final

from projections.audit_schema import EVENTS, LEASES
from projections.audit_views import ATTEMPTS, SESSIONS

__all__ = ["datasette_metadata"]

_TABLES: Final = {
    EVENTS: {
        "title": "Events",
        "description": "One row per event, in the order they were recorded, with the lease as it was afterwards.",
        "sort_desc": "position",
        "facets": ["tag", "actor", "phase"],
    },
    LEASES: {
        "title": "Leases",
        "description": "Every key that ever had an event, as it is now. No phase: it holds no lease.",
        "facets": ["phase", "realm"],
    },
    ATTEMPTS: {
        "title": "Refresh attempts",
        "description": "One row per refresh attempt: who, how long, how it ended.",
        "facets": ["outcome", "actor"],
    },
    SESSIONS: {
        "title": "Login sessions",
        "description": "One row per login: from when to when, who ended it, and its generations.",
        "facets": ["ended"],
    },
}

_QUERIES: Final = {
    "history_of_a_lease": {
        "title": "What happened to a lease?",
        "sql": "SELECT version, at_utc, summary, phase, generation, expires_utc, actor, cause "
        "FROM events WHERE key = :key ORDER BY version",
    },
    "lost_logins": {
        "title": "Which logins were lost or may be, and how did their attempts end?",
        "sql": "SELECT key, started_utc, actor, outcome, ended, error, status, fingerprint FROM attempts "
        "WHERE outcome IN ('refused', 'abandoned', 'failed') ORDER BY started_position DESC",
    },
    "needs_a_person": {
        "title": "Which leases wait for a person?",
        "sql": "SELECT key, at_utc, actor FROM leases WHERE phase = 'reauth_required' ORDER BY at_ms DESC",
    },
    "slowest_refreshes": {
        "title": "Which refreshes took longest?",
        "sql": "SELECT key, started_utc, actor, outcome, took_ms FROM attempts "
        "WHERE took_ms IS NOT NULL ORDER BY took_ms DESC LIMIT 100",
    },
    "clocks_set_back": {
        "title": "Where did a clock go back?",
        "sql": "SELECT key, version, at_utc, running_at_ms - at_ms AS behind_ms, actor "
        "FROM events WHERE at_ms < running_at_ms ORDER BY position",
    },
}


def datasette_metadata(database: str) -> dict[str, Any]:
    """The metadata for one audit file.

    Args:
        database: The name Datasette gives it: the file's name without its last suffix.
    """
    return {
        "title": "Auth leases",
        "description": "Who held which credential when, at which generation, and why a login was lost.",
        "databases": {database: {"tables": _TABLES, "queries": _QUERIES}},
    }
