"""``incident save``, ``incident show`` and ``incident verify``: pieces of a ledger as files of their own."""

from pathlib import Path

import click
import msgspec

from ledger.keys import LeaseKey
from projections.cli.exits import Exit
from projections.cli.explain_commands import show_verdict
from projections.cli.incident_options import Choice, choice_options, chosen_incident, loaded_incident
from projections.cli.output import Output
from projections.cli.outputs import FILE, force_option, is_standard, written
from projections.cli.session import Session, json_option, keys_argument
from projections.cli.showing import emit, key_list, say
from projections.cli.stepping import show_steps
from projections.explain import Verdict
from projections.incident import BundleFinding, BundleRefused, Step
from projections.incident.bundle import is_saved_incident
from projections.times import utc_from_ms

__all__ = ["Checked", "Saved", "Shown", "incident"]


class Saved(msgspec.Struct, frozen=True):
    """The answer of ``incident save``: the file, its digest, and how much is in it."""

    path: str
    digest: str
    leases: int
    events: int


class Shown(msgspec.Struct, frozen=True):
    """The answer of ``incident show``.

    Attributes:
        ledger_id: The ledger it is from.
        judged_at_ms: The time the verdicts are given for, epoch milliseconds.
        digest: The bundle's own digest.
        verdicts: Why each lease is as it is at the end.
        steps: Every event with its lease before and after it.
    """

    ledger_id: str
    judged_at_ms: int
    digest: str
    verdicts: tuple[Verdict, ...]
    steps: tuple[Step, ...]


class Checked(msgspec.Struct, frozen=True):
    """The answer of ``incident verify``: whether all is well, and what is not."""

    ok: bool
    findings: tuple[BundleFinding, ...]


@click.group()
def incident() -> None:
    """Save a piece of a ledger as one file; show and verify such a file anywhere.

    \b
    Example:
      lease-ledger --db auth.db incident save lost.json dev:openai:work --since 2h
      lease-ledger incident show lost.json
      lease-ledger replay --incident lost.json
    """


@incident.command()
@click.argument("file", type=FILE)
@keys_argument
@choice_options
@force_option
@json_option
@click.pass_obj
def save(
    session: Session,
    file: Path,
    keys: tuple[LeaseKey, ...],
    since: int | None,
    until: int | None,
    correlation_id: str | None,
    attempt: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Save the events of some leases, a time, a correlation id or a refresh attempt as one file.

    It holds the events as stored, what proves their order, and each lease before and after them: whoever has it
    can replay and explain it without the ledger. No event holds a secret. An earlier incident of that name is
    replaced; "-" is standard output. In JSON: one object.

    \b
    Example:
      lease-ledger --db auth.db incident save lost.json dev:openai:work --since 2h
    """
    found = chosen_incident(session, keys, Choice(since, until, correlation_id, attempt), None)
    with written(session, file, own_kind=is_saved_incident, force=force) as out:
        out.write(found.encoded())
    if is_standard(file):
        return
    answer = Saved(str(file), found.bundle.digest, len(found.keys), len(found.events))
    words = f"saved {answer.events} events of {key_list(found.keys)} in {file} (digest {answer.digest[:16]})"
    Output(as_json).one(answer, words)


@incident.command()
@click.argument("file", type=FILE)
@json_option
@click.pass_obj
def show(session: Session, file: Path, as_json: bool) -> int:
    """Check a saved incident, and show what happened and why. Needs no ledger.

    FILE may be "-" for standard input. In JSON: one object.

    \b
    Example:
      lease-ledger incident show lost.json
    """
    del session
    try:
        found = loaded_incident(file)
    except BundleRefused as refused:
        return _refused(refused, as_json)
    verdicts = tuple(found.explain(key) for key in found.keys)
    if as_json:
        bundle = found.bundle
        emit(Shown(bundle.ledger_id, bundle.judged_at_ms, bundle.digest, verdicts, found.steps))
        return Exit.OK
    output = Output(as_json)
    say(
        f"{len(found.events)} events of ledger {found.bundle.ledger_id}, up to {utc_from_ms(found.bundle.judged_at_ms)}"
    )
    for verdict in verdicts:
        show_verdict(output, verdict)
    show_steps(output, found.steps)
    return Exit.OK


@incident.command()
@click.argument("file", type=FILE)
@click.option("--against-ledger", is_flag=True, help="Hold it against the ledger that --db names, too.")
@json_option
@click.pass_obj
def verify(session: Session, file: Path, against_ledger: bool, as_json: bool) -> int:
    """Check everything in a saved incident: its digests, its order, its legality, and its states.

    Without the ledger this shows accidents and edits, not a forger who made every digest anew. FILE may be "-" for
    standard input. In JSON: one object.

    \b
    Example:
      lease-ledger incident verify lost.json
    """
    try:
        found = loaded_incident(file)
    except BundleRefused as refused:
        return _refused(refused, as_json)
    findings: tuple[BundleFinding, ...] = ()
    if against_ledger:
        with session.ledger() as ledger:
            findings = found.verify(ledger)
    if findings:
        return _refused(BundleRefused(findings), as_json)
    where = " and is what the ledger holds" if against_ledger else ""
    Output(as_json).one(Checked(True, ()), f"all is well: {len(found.events)} events, the file adds up{where}")
    return Exit.OK


def _refused(refused: BundleRefused, as_json: bool) -> int:
    if as_json:
        emit(Checked(False, refused.findings))
    else:
        for finding in refused.findings:
            say(str(finding))
    return Exit.VERIFICATION_FAILED
