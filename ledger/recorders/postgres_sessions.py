"""What every session of ours with PostgreSQL is given: the same behaviour, whatever the server, the database or the
role set as a default, and a session of its own for as long as it is connected.

A pooler that hands each transaction to whichever session is free would leave guard locks with sessions that others
then get, and our settings too; so it is told by two connections taking turns, and refused.
"""

import os
import socket
from typing import Final

from psycopg import Connection
from psycopg.rows import DictRow

__all__ = ["IDLE_IN_TRANSACTION_S", "LOCK_TIMEOUT_S", "POOLED", "is_direct", "is_shared", "session_settings"]

LOCK_TIMEOUT_S: Final = 30
IDLE_IN_TRANSACTION_S: Final = 10

POOLED: Final = (
    "a pooler in between gives each transaction whichever session is free, so guard locks would be left behind in "
    "sessions of others: connect to the server itself, or have the pooler keep one session for each connection "
    "(PgBouncer: pool_mode = session)"
)

_SETTINGS: Final = {
    # Every name of ours says its schema; nothing is to be found that somebody put in the way.
    "search_path": "pg_catalog, pg_temp",
    # The triggers see what was committed while they waited.
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    # Rows that a policy hides are an error, not a history without them.
    "row_security": "off",
    "standard_conforming_strings": "on",
    "quote_all_identifiers": "off",
    "client_min_messages": "warning",
    "lock_timeout": f"{LOCK_TIMEOUT_S}s",
    "statement_timeout": "0",
    # A client that hangs in the middle of an append does not hold up all others.
    "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_S}s",
}
_SINCE: Final = {
    # The session that holds guard locks says nothing for as long as they are held.
    140_000: {"idle_session_timeout": "0"},
    170_000: {"transaction_timeout": "0"},
}

# An acknowledged append survives a crash of the server.
_DURABLE: Final = """CASE WHEN current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')
    THEN set_config('synchronous_commit', 'on', false) END"""

_PEER: Final = "SELECT host(inet_client_addr()) AS address, inet_client_port() AS port"
_WHICH_SESSION: Final = "SELECT pg_backend_pid() AS pid, pg_postmaster_start_time()::text AS server"
_ROUNDS: Final = 3


def session_settings(server_version: int) -> bytes:
    """The statement that gives a new session its settings.

    Args:
        server_version: As the client library tells it: 180004 for 18.4.
    """
    settings = dict(_SETTINGS)
    for version, names in _SINCE.items():
        if server_version >= version:
            settings |= names
    calls = [f"set_config('{name}', '{value}', false)" for name, value in settings.items()]
    return f"SELECT {', '.join([*calls, _DURABLE])}".encode()


def is_direct(connection: Connection[DictRow]) -> bool:
    """Whether the server sees this very socket at the other end, so that nothing in between can share its session.

    Never so through a Unix domain socket, or where addresses are translated on the way; that proves nothing.
    """
    try:
        with socket.socket(fileno=os.dup(connection.fileno())) as ours:
            local = ours.getsockname()
    except OSError:
        return False
    (row,) = connection.execute(_PEER, prepare=False).fetchall()
    return isinstance(local, tuple) and local[:2] == (row["address"], row["port"])


def is_shared(first: Connection[DictRow], second: Connection[DictRow]) -> bool:
    """Whether two connections turn out not to have each a session of its own.

    One keeps a session busy while the other asks where it is now: who shares is moved to another one, or was met in
    the one that the other had before. Nothing is set or locked to find out.
    """
    firsts: set[tuple[int, str]] = set()
    seconds: set[tuple[int, str]] = set()
    for _ in range(_ROUNDS):
        firsts.add(_session_of(first))
        seconds.add(_session_of(second))
        if firsts & seconds:
            return True
        second.execute("BEGIN")
        seconds.add(_session_of(second))
        firsts.add(_session_of(first))
        second.execute("ROLLBACK")
    return len(firsts) > 1 or len(seconds) > 1 or bool(firsts & seconds)


def _session_of(connection: Connection[DictRow]) -> tuple[int, str]:
    (row,) = connection.execute(_WHICH_SESSION, prepare=False).fetchall()
    return row["pid"], row["server"]
