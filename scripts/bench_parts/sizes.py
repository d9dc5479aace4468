"""How many bytes of file an event takes, everything included, once the write-ahead log is folded in."""

import sqlite3
from contextlib import closing
from pathlib import Path

__all__ = ["bytes_per_event"]


def bytes_per_event(path: Path) -> float:
    """The file's size over the number of its events."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        ((events,),) = connection.execute("SELECT COUNT(*) FROM stored_events")
    return path.stat().st_size / float(events)
