"""``history``, ``leases``, ``stale`` and ``rebuild``: answers of the audit log."""

import contextlib
from collections.abc import Iterable, Iterator

import click
import msgspec

from ledger.keys import LeaseKey
from ledger.stores.base import TokenStore
from projections.audit import AuditLog
from projections.cli.moments import time_option
from projections.cli.output import Output, styled
from projections.cli.session import LARGEST, Session, json_option, key_argument
from projections.cli.tables import Row
from projections.history import HistoryEntry
from projections.leases import CurrentLease
from projections.time_travel import LeaseThen
from projections.times import utc_from_ms, utc_from_s

__all__ = ["Rebuilt", "caught_up", "history", "leases", "rebuild", "stale"]


class Rebuilt(msgspec.Struct, frozen=True):
    """The answer of ``rebuild``: the audit file, ``None`` in memory, and how many events it was made from."""

    path: str | None
    events: int


@contextlib.contextmanager
def caught_up(
    session: Session, output: Output, keys: Iterable[LeaseKey] = (), known_to: TokenStore | None = None
) -> Iterator[AuditLog]:
    """The audit log of the session's ledger, brought up to date under a progress bar.

    Args:
        session: Which ledger.
        output: Where the progress is shown.
        keys: Keys that the command is about, and that have to be there.
        known_to: A store that may know them too.
    """
    with session.ledger(keys=keys, known_to=known_to) as ledger, AuditLog.open(ledger) as audit:
        with output.progress("reading the ledger") as progress:
            audit.catch_up(progress)
        yield audit


@click.command()
@key_argument
@click.option("--last", metavar="N", type=click.IntRange(1, LARGEST), help="Only the newest N events.")
@json_option
@click.pass_obj
def history(session: Session, key: LeaseKey, last: int | None, as_json: bool) -> None:
    """Show what happened to a lease, oldest first.

    Phase, generation and expiry are those after each event. In JSON: one object for each event.

    \b
    Example:
      lease-ledger --db auth.db history dev:openai:work --last 20
    """
    output = Output(as_json)
    headings = ("version", "at", "what", "phase", "generation", "expires", "actor", "cause")
    empty = f"no events for {key}; 'lease-ledger leases' lists the keys there are"
    with caught_up(session, output, [key]) as audit:
        output.each(audit.each_entry(key, last), headings, _history_row, empty)


def _history_row(entry: HistoryEntry) -> Row:
    return (
        str(entry.version),
        utc_from_ms(entry.at_ms),
        entry.summary,
        styled(entry.phase),
        str(entry.generation),
        utc_from_s(entry.expires_at) if entry.credential_present else "",
        entry.actor,
        entry.cause or "",
    )


@click.command()
@time_option("--at", "at_ms", "As they were at this time.")
@json_option
@click.pass_obj
def leases(session: Session, at_ms: int | None, as_json: bool) -> None:
    """List every lease as it is now, or was at a time, released ones too.

    In JSON: one object for each lease.

    \b
    Example:
      lease-ledger --db auth.db leases
      lease-ledger --db auth.db leases --at 2025-01-31T12:00Z
    """
    output = Output(as_json)
    headings = ("key", "phase", "generation", "expires", "version", "last change", "event", "actor")
    with caught_up(session, output) as audit:
        if at_ms is None:
            output.each(audit.each_lease(), headings, _lease_row, "the ledger is empty: nobody has logged in yet")
        else:
            output.each(audit.each_lease(at=at_ms), headings, _lease_row, "nobody had logged in then")


def _lease_row(lease: CurrentLease | LeaseThen) -> Row:
    return (
        lease.key,
        styled(lease.phase),
        str(lease.generation),
        utc_from_s(lease.expires_at) if lease.credential_present else "",
        str(lease.version),
        utc_from_ms(lease.at_ms),
        lease.tag,
        lease.actor,
    )


@click.command()
@json_option
@click.pass_obj
def stale(session: Session, as_json: bool) -> None:
    """Hold every stored token against the ledger. Changes nothing.

    Each is current, superseded, unrecorded (saved by a refresh that is not recorded yet), orphaned (logged out
    since), unmarked, foreign (of another ledger), ahead (this ledger is an older copy, or another published them),
    unreadable or unavailable; and a lease whose tokens are not there is missing, or an unsaved_login if it was to
    save them here. In JSON: one object for each key.

    \b
    Example:
      lease-ledger --db auth.db --store tokens stale
    """
    output = Output(as_json)
    store = session.token_store()
    with caught_up(session, output) as audit:
        found = audit.stale_markers(store)
    rows = [
        (
            token.key,
            styled(token.found),
            "" if token.generation is None else str(token.generation),
            str(token.lease_generation),
            "" if token.superseded_by_version is None else f"event {token.superseded_by_version}",
            token.event_id or "",
            token.detail or "",
        )
        for token in found
    ]
    headings = ("key", "tokens are", "their generation", "lease generation", "superseded by", "their event", "detail")
    output.many(found, headings, rows, empty="no tokens are stored, and no lease needs any")


@click.command()
@json_option
@click.pass_obj
def rebuild(session: Session, as_json: bool) -> None:
    """Make the audit file anew from the ledger's first event.

    Never needed for a correct answer: the file notices by itself when it has to be made anew. Contents that the
    ledger contradicts stay in the file as evidence for verify.

    \b
    Example:
      lease-ledger --db auth.db rebuild
    """
    output = Output(as_json)
    with session.ledger() as ledger, AuditLog.open(ledger) as audit:
        with output.progress("rebuilding") as progress:
            events = audit.rebuild(progress)
        answer = Rebuilt(None if audit.path is None else str(audit.path), events)
    output.one(answer, f"rebuilt {answer.path or 'in memory'} from {events} events")
