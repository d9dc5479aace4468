"""``verify`` and ``checkpoint``: what shows that nothing was changed."""

from pathlib import Path

import click
import msgspec

from ledger.verification import Checkpoint, Finding, Verification
from projections.audit import AuditLog
from projections.cli.exits import Exit
from projections.cli.output import Cell, Output
from projections.cli.session import Session, json_option

__all__ = ["Verified", "checkpoint", "verify"]


class Verified(msgspec.Struct, frozen=True):
    """The answer of ``verify``.

    Attributes:
        ok: Whether nothing is wrong.
        events: How many events the ledger holds.
        digest: Rolling digest over all of them.
        witnesses: What the ledger was checked against.
        findings: What is wrong, each with the witness that shows it and, where there is one, the event at fault.
    """

    ok: bool
    events: int
    digest: str
    witnesses: tuple[str, ...]
    findings: tuple[Finding, ...]


@click.command()
@click.option(
    "--against",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path),
    help="A checkpoint kept from earlier, as a further witness.",
)
@json_option
@click.pass_obj
def verify(session: Session, against: Path | None, as_json: bool) -> int:
    """Check the whole ledger from scratch: order, hash chain, legality, stored folds, guard triggers.

    The audit file beside the ledger is a witness too: it names every event that is not as it saw it. So is a
    checkpoint kept elsewhere (--against). Without a kept checkpoint this shows accidents; somebody who can rewrite
    the ledger and the audit file could make both agree. An earlier audit file that was set aside, because the ledger
    contradicted it, is heard until the audit file is deleted.

    Exit code 4 when anything is wrong.

    \b
    Example:
      lease-ledger --db auth.db verify --against checkpoint.json
    """
    kept = None if against is None else _read_checkpoint(against)
    output = Output(as_json)
    with session.ledger() as ledger, AuditLog.open(ledger) as audit, output.progress("checking every event"):
        outcome = audit.verify(kept)
    if as_json:
        output.one(_answer(outcome), "")
    elif outcome.ok:
        against_what = " and ".join(outcome.witnesses)
        click.echo(f"all is well: {outcome.checkpoint.position} events, checked against {against_what}")
    else:
        _show(output, outcome)
    return Exit.OK if outcome.ok else Exit.VERIFICATION_FAILED


@click.command()
@json_option
@click.pass_obj
def checkpoint(session: Session, as_json: bool) -> None:
    """Print a witness of everything recorded so far, as JSON. Keep it where the ledger's writers cannot reach it.

    With --json on one line, else indented.

    \b
    Example:
      lease-ledger --db auth.db checkpoint > /elsewhere/checkpoint.json
      lease-ledger --db auth.db verify --against /elsewhere/checkpoint.json
    """
    with session.ledger() as ledger:
        witness = msgspec.json.encode(ledger.checkpoint())
    click.echo((witness if as_json else msgspec.json.format(witness, indent=2)).decode())


def _read_checkpoint(file: Path) -> Checkpoint:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Checkpoint)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{file} is no checkpoint ({error}); 'lease-ledger checkpoint' prints one.") from error


def _answer(outcome: Verification) -> Verified:
    kept = outcome.checkpoint
    return Verified(outcome.ok, kept.position, kept.digest, outcome.witnesses, outcome.findings)


def _show(output: Output, outcome: Verification) -> None:
    rows = [
        (
            Cell(finding.witness, "red"),
            "" if finding.position is None else str(finding.position),
            finding.key or "",
            "" if finding.version is None else str(finding.version),
            finding.detail,
        )
        for finding in outcome.findings
    ]
    output.many(outcome.findings, ("witness", "position", "key", "version", "what is wrong"), rows, empty="")
    click.echo(f"lease-ledger: verification failed: {len(outcome.findings)} findings; keep the file as it is", err=True)
