"""``import``: the reference runtime's audit trail, into a ledger of its own."""

from pathlib import Path

import click

from projections.cli.exits import Exit
from projections.cli.output import Output
from projections.cli.outputs import new_file
from projections.cli.session import Session, json_option
from projections.cli.terminal import write_line
from projections.importing import ImportReport, import_trail

__all__ = ["import_audit_trail"]

_SHOWN_LINES = 20


@click.command("import")
@click.argument("trail", type=click.Path(path_type=Path))
@click.option("--into", type=click.Path(path_type=Path), required=True, metavar="FILE", help="The new ledger file.")
@json_option
@click.pass_obj
def import_audit_trail(session: Session, trail: Path, into: Path, as_json: bool) -> int:
    """Make a ledger of the reference runtime's audit trail, to replay and explain its incidents.

    TRAIL is its tracing output as JSON lines; those of meerkat::auth::audit are imported. What they do not tell stays
    unknown, and each event's cause says so: expiry, holder, duration and errors; the generation counts the
    publications in the trail. Lines that cannot be read, or that contradict what leases can do or the lines before
    them, are kept out and told with their number; the command then ends with 4.

    \b
    Example:
      lease-ledger import runtime.jsonl --into runtime.db
      lease-ledger --db runtime.db history dev:openai:work
    """
    output = Output(as_json)
    with output.progress("importing") as progress:
        report = import_trail(trail, new_file(session, into), progress)
    output.one(report, _words(report))
    if not as_json:
        for kept_out in report.listed[:_SHOWN_LINES]:
            write_line(f"line {kept_out.line} kept out: {kept_out.reason}", err=True)
        if report.kept_out > _SHOWN_LINES:
            write_line(f"and {report.kept_out - _SHOWN_LINES:,} more; --json lists them", err=True)
    return Exit.VERIFICATION_FAILED if report.kept_out else Exit.OK


def _words(report: ImportReport) -> str:
    skipped = report.skipped_other_targets + report.skipped_login_flows + report.skipped_other_records
    return (
        f"{report.imported:,} of {report.lines:,} lines imported into {report.ledger}: {report.events:,} events of "
        f"{report.leases:,} leases; {skipped:,} lines about something else, {report.kept_out:,} kept out"
    )
