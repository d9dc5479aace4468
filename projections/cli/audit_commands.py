"""``history``, ``leases``, ``stale`` and ``rebuild``: answers of the audit log."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence

import click
import msgspec

from ledger.keys import LeaseKey
from ledger.stores.base import TokenStore
from projections.audit import AuditLog
from projections.cli.moments import read_time
from projections.cli.output import Output, styled
from projections.cli.session import LARGEST, Session, json_option, key_argument
from projections.cli.text import utc
from projections.leases import CurrentLease
from projections.time_travel import LeaseThen

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
    with caught_up(session, output, [key]) as audit:
        entries = audit.history(key, last)
    rows = [
        (
            str(entry.version),
            entry.at_utc or str(entry.at_ms),
            entry.summary,
            styled(entry.phase),
            str(entry.generation),
            utc(entry.expires_at) if entry.credential_present else "",
            entry.actor,
            entry.cause or "",
        )
        for entry in entries
    ]
    headings = ("version", "at", "what", "phase", "generation", "expires", "actor", "cause")
    output.many(entries, headings, rows, empty=f"no events for {key}; 'lease-ledger leases' lists the keys there are")


@click.command()
@click.option("--at", "at_ms", metavar="TIME", type=read_time, help="As they were at this time, such as 15m (ago).")
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
    found: Sequence[CurrentLease | LeaseThen]
    with caught_up(session, output) as audit:
        found = audit.leases() if at_ms is None else audit.leases(at=at_ms)
    rows = [
        (
            lease.key,
            styled(lease.phase),
            str(lease.generation),
            utc(lease.expires_at) if lease.credential_present else "",
            str(lease.version),
            lease.at_utc or str(lease.at_ms),
            lease.tag,
            lease.actor,
        )
        for lease in found
    ]
    headings = ("key", "phase", "generation", "expires", "version", "last change", "event", "actor")
    output.many(
        found,
        headings,
        rows,
        empty="the ledger is empty: nobody has logged in yet" if at_ms is None else "nobody had logged in then",
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
