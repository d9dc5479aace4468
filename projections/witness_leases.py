"""The current leases of an audit file beside those that the ledger's events give."""

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from sqlite_utils import Database

from ledger.verification import Finding
from projections.audit_rows import LEASE_COLUMNS
from projections.audit_schema import LEASES
from projections.recomputing import lease_rows, same_row, whatever_text
from projections.witness_findings import about_file

__all__ = ["lease_findings"]

MOST: Final = 25

_VERSION: Final = LEASE_COLUMNS.index("version")
_POSITION: Final = LEASE_COLUMNS.index("position")

Row = tuple[Any, ...]


def lease_findings(name: str, stored: Database, recomputed: Database, doubtful: frozenset[str]) -> list[Finding]:
    """Leases whose row is missing, too many, or another than the events give.

    Args:
        name: What the audit file is called in findings.
        stored: The audit file, in a read transaction.
        recomputed: Where the rows of the leases were made anew.
        doubtful: Leases that are left out, for their events differ already.
    """
    with whatever_text(stored.conn):
        return list(islice(_differing(name, stored, recomputed, doubtful), MOST))


def _differing(name: str, stored: Database, recomputed: Database, doubtful: frozenset[str]) -> Iterator[Finding]:
    has, should_have = lease_rows(stored), lease_rows(recomputed)
    one, other = next(has, None), next(should_have, None)
    while one is not None or other is not None:
        key = _first_key(one, other)
        is_there, is_due = one is not None and one[0] == key, other is not None and other[0] == key
        if key not in doubtful:
            yield from _of_lease(name, one if is_there else None, other if is_due else None)
        one = next(has, None) if is_there else one
        other = next(should_have, None) if is_due else other


def _first_key(one: Row | None, other: Row | None) -> object:
    if one is None or other is None:
        (row,) = filter(None, (one, other))
        return row[0]
    # A key that is no text is none of a lease's: its row is told by itself.
    return min(one[0], other[0]) if isinstance(one[0], str) else one[0]


def _of_lease(name: str, has: Row | None, due: Row | None) -> Iterator[Finding]:
    if has is None or due is None:
        what = "the row of this lease is missing" if has is None else "it has a row of a lease that had no event"
        yield _finding(name, what, has or due or ())
    elif not same_row(has, due):
        pairs = zip(LEASE_COLUMNS, has, due, strict=True)
        columns = [column for column, stored, made in pairs if not same_row((stored,), (made,))]
        yield _finding(name, f"the row of this lease says otherwise in {', '.join(columns)}", due)


def _finding(name: str, what: str, row: Row) -> Finding:
    return about_file(name, what, LEASES, row[_POSITION], row[0], row[_VERSION])
