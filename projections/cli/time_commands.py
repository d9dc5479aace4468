"""``as-of``, ``diff`` and ``timeline``: questions about any moment."""

import click

from ledger.keys import LeaseKey
from projections.cli.audit_commands import caught_up
from projections.cli.moments import moment_argument, moment_options, time_option
from projections.cli.output import Output, styled
from projections.cli.selection import tag_option
from projections.cli.session import LARGEST, Session, json_option, key_argument, keys_argument
from projections.cli.showing import emit, event_row, say, state_rows, value_text
from projections.time_travel import LeaseAsOf, When
from projections.times import utc_from_ms, utc_from_s

__all__ = ["as_of", "diff", "timeline"]


@click.command("as-of")
@key_argument
@moment_options
@json_option
@click.pass_obj
def as_of(session: Session, key: LeaseKey, version: int | None, at_ms: int | None, as_json: bool) -> None:
    """Show a lease as it was after an event, or at a time.

    At a time means after every event dated up to then, and after whatever its lease had recorded before those. Where
    somebody's clock went back, that is said. In JSON: one object.

    \b
    Example:
      lease-ledger --db auth.db as-of dev:openai:work --at 2025-01-31T12:00Z
    """
    if version is not None and at_ms is not None:
        raise click.UsageError("give --version or --at, not both.")
    output = Output(as_json)
    with caught_up(session, output, [key]) as audit:
        found = audit.as_of(key, version, at_ms)
    if as_json:
        emit(found)
        return
    say(_as_of_words(found))
    output.many([found], ("field", "value"), state_rows(found.state), empty="")
    if found.clock_back_ms:
        say(f"a clock went back: its last event is dated {found.clock_back_ms} ms before one recorded earlier")
    if found.dated_before:
        versions = ", ".join(str(later) for later in found.dated_before)
        say(f"a clock went back: events {versions} are dated up to then, and came later")


def _as_of_words(found: LeaseAsOf) -> str:
    if found.last is None:
        return f"{found.key}: nothing had happened to it"
    _, _, _, at, what, actor, _ = event_row(found.last)
    return f"{found.key} after event {found.version}: {what}, by {actor} at {at}"


@click.command()
@key_argument
@moment_argument("a")
@moment_argument("b")
@json_option
@click.pass_obj
def diff(session: Session, key: LeaseKey, a: When, b: When, as_json: bool) -> None:
    """Show what changed on a lease between two moments, and by which events.

    A and B are stream versions, or times as --at of other commands takes them; a number of ten digits is epoch
    seconds, of thirteen milliseconds, and a time without a zone is UTC. In JSON: one object.

    \b
    Example:
      lease-ledger --db auth.db diff dev:openai:work 3 7
      lease-ledger --db auth.db diff dev:openai:work 2025-01-31T12:00Z 15m
    """
    output = Output(as_json)
    with caught_up(session, output, [key]) as audit:
        found = audit.diff(key, a, b)
    if as_json:
        emit(found)
        return
    rows = [
        (
            change.field,
            value_text(change.field, change.before),
            value_text(change.field, change.after),
            ", ".join(str(version) for version in change.versions),
            event_row(change.by)[4],
            change.by.event.actor,
        )
        for change in found.changes
    ]
    same = f"nothing differs between versions {found.before_version} and {found.after_version} of {key}"
    headings = (
        "field",
        f"at version {found.before_version}",
        f"at version {found.after_version}",
        "changed by",
        "last",
        "actor",
    )
    output.many(found.changes, headings, rows, empty=same)
    if found.passing:
        say(f"changed and changed back: {', '.join(found.passing)}")


@click.command()
@keys_argument
@click.option("--actor", "actors", multiple=True, metavar="NAME", help="Only by this actor; may be repeated.")
@tag_option
@click.option("--correlation-id", metavar="ID", help="Only what is filed under this.")
@time_option("--since", "since", "Only from this time on.")
@time_option("--until", "until", "Only up to this time.")
@click.option(
    "--after", metavar="POSITION", type=click.IntRange(0, LARGEST), default=0, help="The cursor of the last page."
)
@click.option(
    "--limit", metavar="N", type=click.IntRange(1, LARGEST), default=100, show_default=True, help="Most events."
)
@json_option
@click.pass_obj
def timeline(
    session: Session,
    keys: tuple[LeaseKey, ...],
    actors: tuple[str, ...],
    tags: tuple[str, ...],
    correlation_id: str | None,
    since: int | None,
    until: int | None,
    after: int,
    limit: int,
    as_json: bool,
) -> None:
    """Show what happened, to any lease, in the order it was recorded, one page of it.

    In JSON: one object with the page's entries, and the cursor for --after of the next page as "next".

    \b
    Example:
      lease-ledger --db auth.db timeline --since 2h --tag refresh_failed
    """
    output = Output(as_json)
    with caught_up(session, output, keys) as audit:
        page = audit.timeline(
            keys or None,
            actors=actors or None,
            tags=tags or None,
            correlation_id=correlation_id,
            since=since,
            until=until,
            after=after,
            limit=limit,
        )
    if as_json:
        emit(page)
        return
    rows = [
        (
            str(entry.position),
            utc_from_ms(entry.at_ms),
            entry.key,
            entry.summary,
            styled(entry.phase),
            utc_from_s(entry.expires_at) if entry.credential_present else "",
            entry.actor,
            f"clock back {entry.clock_back_ms} ms" if entry.clock_back_ms else "",
        )
        for entry in page.entries
    ]
    headings = ("position", "at", "key", "what", "phase", "expires", "actor", "note")
    output.many(page.entries, headings, rows, empty="no event answers that")
    if page.next is not None:
        say(f"there is more: --after {page.next}")
