"""``explain``: why a lease is, or was, as it is."""

from contextlib import ExitStack

import click
import msgspec

from ledger.keys import LeaseKey
from ledger.store_errors import TokenStoreError
from ledger.stores.base import TokenStore
from projections.cli.audit_commands import caught_up
from projections.cli.moments import moment_options
from projections.cli.output import Output
from projections.cli.session import Session, json_option, key_argument
from projections.cli.showing import EVENT_HEADINGS, emit, event_row, say, value_text
from projections.explain import StoredTokens, TokensCode, Verdict, VerdictCode
from projections.time_travel import Change
from projections.time_travel.changes import FIELDS
from projections.times import utc_from_ms

__all__ = ["Explanation", "explain", "show_verdict"]


class Explanation(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer of ``explain``.

    Attributes:
        verdict: Why the lease is as it is.
        last_changes: For each field asked about, the last event that changed it; ``None`` for none.
    """

    verdict: Verdict
    last_changes: dict[str, Change | None] = {}


@click.command()
@key_argument
@moment_options
@click.option(
    "--last-change",
    "fields",
    multiple=True,
    metavar="FIELD",
    type=click.Choice(FIELDS),
    help="Also who last changed this field, such as phase, expires_at or generation; may be repeated.",
)
@click.option("--peer", "peers", multiple=True, metavar="URL", help="Another ledger that may hold a copy of the login.")
@json_option
@click.pass_obj
def explain(
    session: Session,
    key: LeaseKey,
    version: int | None,
    at_ms: int | None,
    fields: tuple[str, ...],
    peers: tuple[str, ...],
    as_json: bool,
) -> None:
    """Say in plain words why a lease is, or was, as it is, and show the events that prove it.

    With --store, also what the stored tokens are, unless the past is asked about. A --peer that shares the
    fingerprint key shows whether its refresh spent the same refresh token. In JSON: one object; the class of the
    verdict is its "code".

    \b
    Example:
      lease-ledger --db auth.db --store tokens explain dev:openai:work
      lease-ledger --db auth.db explain dev:openai:work --at 2h --last-change expires_at
    """
    if version is not None and at_ms is not None:
        raise click.UsageError("give --version or --at, not both.")
    output = Output(as_json)
    is_now = version is None and at_ms is None
    store, no_store = _store(session) if is_now else (None, None)
    with ExitStack() as opened, caught_up(session, output, [key], store) as audit:
        ledgers = [opened.enter_context(session._replace(db=peer).ledger()) for peer in peers]
        verdict = audit.explain(key, version, at_ms, store=store, peers=ledgers)
        changes = {field: audit.last_change(key, field, version, at_ms) for field in fields}
    if no_store is not None:
        verdict = msgspec.structs.replace(verdict, tokens=no_store)
    if as_json:
        emit(Explanation(verdict, changes))
        return
    show_verdict(output, verdict)
    for field, change in changes.items():
        say(_change_words(field, change))


def _store(session: Session) -> tuple[TokenStore | None, StoredTokens | None]:
    """The token store, if one was named; one that cannot be opened takes nothing away from the verdict."""
    if session.store is None:
        return None, None
    try:
        return session.token_store(), None
    except TokenStoreError as error:
        return None, StoredTokens(TokensCode.UNAVAILABLE, f"{error}; that says nothing about the tokens")


def show_verdict(output: Output, verdict: Verdict) -> None:
    """A verdict for people: its words, its class, what else there is to know, and its proof."""
    say(f"{verdict.key}: {verdict.text}")
    say(f"class: {verdict.code}, judged at {utc_from_ms(verdict.at_ms)}, after event {verdict.version}")
    if verdict.tokens is not None:
        say(f"tokens: {verdict.tokens.text} ({verdict.tokens.code})")
    for note in verdict.notes:
        say(f"note: {note}")
    if verdict.proof:
        output.many(verdict.proof, EVENT_HEADINGS, [event_row(recorded) for recorded in verdict.proof], empty="")
    if verdict.elsewhere:
        say("under another key:" if verdict.code is VerdictCode.SPENT_BY_OTHER_KEY else "in another ledger:")
        output.many(
            verdict.elsewhere, EVENT_HEADINGS, [event_row(recorded) for recorded in verdict.elsewhere], empty=""
        )


def _change_words(field: str, change: Change | None) -> str:
    if change is None:
        return f"{field} never changed"
    by = change.by
    before, after = value_text(field, change.before), value_text(field, change.after)
    return (
        f"{field} was last changed from {before} to {after} by {by.event.actor} at {utc_from_ms(by.event.at)} "
        f"(event {by.version}: {event_row(by)[4]})"
    )
