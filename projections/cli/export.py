"""``export``: the events in the forms that other tools read."""

import io
from pathlib import Path

import click
import msgspec

from projections.cli.output import Output
from projections.cli.outputs import FILE, force_option, is_standard, written
from projections.cli.selection import selection_options
from projections.cli.session import Session, json_option
from projections.cli.terminal import TerminalLines, is_terminal
from projections.export import FORMATS, Selection, export_events

__all__ = ["Exported", "export"]


class Exported(msgspec.Struct, frozen=True):
    """The answer of ``export`` into a file: where, in which form, and how many events."""

    path: str
    format: str
    events: int


@click.command()
@click.option(
    "--format", "form", type=click.Choice(tuple(FORMATS)), default="jsonl", show_default=True, help="The form."
)
@click.option("--output", "-o", type=FILE, metavar="FILE", default="-", help="A new file, instead of standard output.")
@force_option
@selection_options
@json_option
@click.pass_obj
def export(session: Session, form: str, output: Path, force: bool, selection: Selection, as_json: bool) -> None:
    """Write events for other tools: JSON lines, CSV, OCSF 1.8.0 or CloudEvents 1.0.2.

    To standard output, or into a new file with --output, and then --json tells how many. The file appears whole or not
    at all. No export holds a secret, for no event does. In JSON what is no visible character is always written as an
    escape; CSV into files and pipes holds texts as they were recorded, and on a terminal shows such characters as
    escapes.

    \b
    Example:
      lease-ledger --db auth.db export --format ocsf --since 2026-01-31 > events.jsonl
      lease-ledger --db auth.db export --format csv dev:openai:work -o work.csv
    """
    answer = Output(as_json)
    if is_standard(output) and is_terminal():
        with session.ledger(keys=selection.keys or ()) as ledger:
            export_events(ledger, TerminalLines(is_json=form != "csv"), form, selection)
        return
    with session.ledger(keys=selection.keys or ()) as ledger, answer.progress("exporting") as progress:
        last = ledger.recorder.last_position()

        def tell(done: int) -> None:
            progress(done, max(last, done))

        with written(session, output, force=force) as out:
            text = io.TextIOWrapper(out, encoding="utf-8", newline="")
            try:
                count = export_events(ledger, text, form, selection, tell)
            finally:
                # Else it would close what is not its own.
                text.detach()
    if not is_standard(output):
        answer.one(Exported(str(output), form, count), f"{count:,} events to {output}")
