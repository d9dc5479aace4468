"""Views of an audit file that answer what people ask most, for the library and for any SQLite tool alike.

They are computed when they are read, so they cannot disagree with the events; each reads one lease by an index.
"""

from typing import Final

__all__ = ["ATTEMPTS", "SESSIONS", "VIEWS"]

ATTEMPTS: Final = "attempts"
SESSIONS: Final = "sessions"

# The same rule as in :mod:`projections.attempts`.
_LAST_OPENED: Final = """(
    SELECT MAX(o.version) FROM events AS o
    WHERE o.key = s.key AND o.attempt = s.attempt AND o.tag IN ('lease.refresh_started', 'lease.restored')
)"""

_ATTEMPTS_SQL: Final = f"""
CREATE VIEW attempts AS -- one row per refresh attempt: who, how long, how it ended
SELECT
    s.key,
    s.attempt, -- id of the event that began it
    s.actor, -- who began it
    s.holder, -- host and process
    s.at_utc AS started_utc,
    s.duration_ms AS may_take_ms,
    CASE
        WHEN e.version IS NULL THEN 'open'
        WHEN e.attempt IS NOT s.attempt THEN 'overtaken' -- by a login, a logout, a restore or a demand to log in again
        WHEN e.tag = 'lease.refreshed' AND e.recovered THEN 'recovered' -- recorded after a crash
        WHEN e.tag = 'lease.refreshed' THEN 'refreshed'
        WHEN e.tag = 'lease.acquired' THEN 'late' -- closed or overtaken, and its tokens were published after all
        WHEN e.abandoned THEN 'abandoned' -- somebody other than its holder closed it, to take over
        WHEN e.permanent THEN 'refused' -- only a person can go on
        ELSE 'failed'
    END AS outcome,
    CASE WHEN e.attempt IS s.attempt THEN e.ended END AS ended, -- of one that failed, as a fact: see events.ended
    CASE
        WHEN typeof(s.at_ms) = 'integer' AND typeof(e.at_ms) = 'integer' AND e.at_ms >= s.at_ms THEN e.at_ms - s.at_ms
    END AS took_ms, -- by the clocks of whoever recorded start and end; null: open, or a clock went back
    e.actor AS ended_by,
    e.error,
    e.status,
    s.fingerprint, -- keyed fingerprint of the refresh token
    s.generation, -- in force when it began
    s.version AS started_version,
    e.version AS ended_version,
    s.position AS started_position,
    s.at_ms AS started_at_ms
FROM events AS s
LEFT JOIN events AS e ON e.key = s.key AND e.version = COALESCE(
    (
        SELECT MAX(x.version) FROM events AS x
        WHERE x.key = s.key AND x.attempt = s.attempt AND x.version > {_LAST_OPENED}
            AND x.tag IN ('lease.refreshed', 'lease.refresh_failed', 'lease.acquired')
    ),
    {_LAST_OPENED} + 1
)
WHERE s.tag = 'lease.refresh_started'"""  # noqa: S608  # constants only

# A login or logout that a restore undid ends no session; the restore ends the session of the login it undid.
_SESSIONS_SQL: Final = """
CREATE VIEW sessions AS -- one row per login session: from a login to what ended it
SELECT
    a.key,
    a.at_utc AS login_utc,
    a.actor AS login_actor,
    CASE
        WHEN e.tag IN ('lease.released', 'lease.credential_released') THEN 'logged out'
        WHEN e.tag = 'lease.acquired' THEN 'replaced by another login'
        WHEN e.tag = 'lease.restored' THEN 'undone'
        ELSE 'open'
    END AS ended,
    e.at_utc AS ended_utc,
    e.actor AS ended_by,
    a.generation AS first_generation,
    CASE WHEN e.version IS NULL THEN l.generation ELSE b.generation END AS last_generation,
    a.version AS login_version,
    e.version AS ended_version,
    a.position AS login_position,
    a.at_ms AS login_at_ms
FROM events AS a
JOIN leases AS l ON l.key = a.key
LEFT JOIN events AS e ON e.key = a.key AND e.version = (
    SELECT MIN(x.version) FROM events AS x
    WHERE x.key = a.key AND x.version > a.version AND (
        (
            (
                x.tag IN ('lease.released', 'lease.credential_released')
                OR (x.tag = 'lease.acquired' AND x.attempt IS NULL)
            )
            AND NOT EXISTS (
                SELECT 1 FROM events AS r
                WHERE r.key = x.key AND r.version = x.version + 1 AND r.compensates = x.version
            )
        ) OR (x.tag = 'lease.restored' AND x.compensates = a.version)
    )
)
LEFT JOIN events AS b ON b.key = a.key AND b.version = e.version - 1
WHERE a.tag = 'lease.acquired' AND a.attempt IS NULL"""

VIEWS: Final = {ATTEMPTS: _ATTEMPTS_SQL, SESSIONS: _SESSIONS_SQL}
"""Every view with the statement that makes it."""
