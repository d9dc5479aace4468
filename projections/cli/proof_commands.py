"""``verify`` and ``checkpoint``: what shows that nothing was changed."""

from pathlib import Path
from typing import Final

import click
import msgspec

from ledger.codec import UNREADABLE
from ledger.verification import Checkpoint, Finding, Verification
from projections.audit import AuditLog
from projections.cli.exits import Exit
from projections.cli.output import Cell, Output
from projections.cli.outputs import FILE, force_option, is_standard, written
from projections.cli.session import Session, json_option
from projections.cli.terminal import write_line
from projections.input_files import read_input, read_standard_input

__all__ = ["Verified", "checkpoint", "verify"]


_LONGEST_CHECKPOINT_BYTES: Final = 256 * 1024 * 1024
"""A checkpoint names the last event of every lease: some 150 bytes each."""


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
    type=FILE,
    help="A checkpoint kept from earlier, as a further witness; '-' for standard input.",
)
@json_option
@click.pass_obj
def verify(session: Session, against: Path | None, as_json: bool) -> int:
    """Check the whole ledger from scratch: order, hash chain, legality, stored folds, schema and indexes.

    The audit file beside the ledger is checked too, and is a witness: it names every event that is not as it saw
    it. So is a checkpoint kept elsewhere (--against). Without a kept checkpoint this shows accidents; somebody who
    can rewrite the ledger and the audit file could make both agree. An earlier audit file that was set aside,
    because the ledger contradicted it, is heard until the audit file is deleted.

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
        write_line(f"all is well: {outcome.checkpoint.position} events, checked against {against_what}")
    else:
        _show(output, outcome)
    return Exit.OK if outcome.ok else Exit.VERIFICATION_FAILED


@click.command()
@click.option("--output", "-o", "file", type=FILE, metavar="FILE", default="-", help="A new file, instead of printing.")
@force_option
@json_option
@click.pass_obj
def checkpoint(session: Session, file: Path, force: bool, as_json: bool) -> None:
    """Print a witness of everything recorded so far, as JSON. Keep it where the ledger's writers cannot reach it.

    With --json on one line, else indented. With --output it becomes a file, whole or not at all.

    \b
    Example:
      lease-ledger --db auth.db checkpoint > /elsewhere/checkpoint.json
      lease-ledger --db auth.db verify --against /elsewhere/checkpoint.json
    """
    with session.ledger() as ledger:
        witness = msgspec.json.encode(ledger.checkpoint())
    text = (witness if as_json else msgspec.json.format(witness, indent=2)) + b"\n"
    with written(session, file, force=force) as out:
        out.write(text)


def _read_checkpoint(file: Path) -> Checkpoint:
    if is_standard(file):
        data = read_standard_input(most_bytes=_LONGEST_CHECKPOINT_BYTES)
    else:
        data = read_input(file, most_bytes=_LONGEST_CHECKPOINT_BYTES)
    try:
        return msgspec.json.decode(data, type=Checkpoint)
    except UNREADABLE as error:
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
    write_line(f"lease-ledger: verification failed: {len(outcome.findings)} findings; keep the file as it is", err=True)
