"""``report``: one HTML page that shows what happened."""

from pathlib import Path

import click
import msgspec

from projections.cli.output import Output
from projections.cli.outputs import FILE, force_option, is_standard, written
from projections.cli.selection import selection_options
from projections.cli.session import Session, json_option
from projections.export import Selection
from projections.report import MOST_EVENTS, is_report, report_html

__all__ = ["Reported", "report"]


class Reported(msgspec.Struct, frozen=True):
    """The answer of ``report``: the page, and its size."""

    path: str
    bytes: int


@click.command()
@click.argument("page", type=FILE)
@click.option("--title", default="Lease report", show_default=True, help="The heading.")
@click.option("--limit", type=click.IntRange(min=1), default=MOST_EVENTS, show_default=True, help="The most events.")
@force_option
@selection_options
@json_option
@click.pass_obj
def report(
    session: Session, page: Path, title: str, limit: int, force: bool, selection: Selection, as_json: bool
) -> None:
    """Write an HTML page that shows what happened to leases, on a time axis, with the verdict on top.

    PAGE ends in .html, and an earlier report of that name is replaced; "-" is standard output. It needs no network and
    works from disk; pass it on as it is. It holds names and times, but no secret, for no event does.

    \b
    Example:
      lease-ledger --db auth.db report incident.html dev:openai:work --since 2h
    """
    if not is_standard(page) and page.suffix.lower() not in (".html", ".htm"):
        raise click.UsageError(f"a report is an HTML page, and {page} is not named like one; call it {page.stem}.html.")
    with (
        session.ledger(keys=selection.keys or ()) as ledger,
        written(session, page, own_kind=is_report, force=force) as out,
    ):
        size = out.write(report_html(ledger, selection, title=title, limit=limit).encode())
    if not is_standard(page):
        path = page.absolute()
        Output(as_json).one(Reported(str(path), size), f"{path}: {size:,} bytes; open it in a browser")
