"""``report``: one HTML page that shows what happened."""

from pathlib import Path

import click
import msgspec

from projections.cli.output import Output
from projections.cli.selection import selection_options
from projections.cli.session import Session, json_option
from projections.export import Selection
from projections.report import MOST_EVENTS, write_report

__all__ = ["Reported", "report"]


class Reported(msgspec.Struct, frozen=True):
    """The answer of ``report``: the page, and its size."""

    path: str
    bytes: int


@click.command()
@click.argument("page", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--title", default="Lease report", show_default=True, help="The heading.")
@click.option("--limit", type=click.IntRange(min=1), default=MOST_EVENTS, show_default=True, help="The most events.")
@selection_options
@json_option
@click.pass_obj
def report(session: Session, page: Path, title: str, limit: int, selection: Selection, as_json: bool) -> None:
    """Write an HTML page that shows what happened to leases, on a time axis, with the verdict on top.

    PAGE ends in .html and is replaced if it is there. It needs no network and works from disk; pass it on as it is. It
    holds names and times, but no secret, for no event does.

    \b
    Example:
      lease-ledger --db auth.db report incident.html dev:openai:work --since 2h
    """
    if page.suffix.lower() not in (".html", ".htm"):
        raise click.UsageError(f"a report is an HTML page, and {page} is not named like one; call it {page.stem}.html.")
    output = Output(as_json)
    with session.ledger() as ledger:
        written = write_report(ledger, page, selection, title=title, limit=limit)
    size = written.stat().st_size
    output.one(Reported(str(written), size), f"{written}: {size:,} bytes; open it in a browser")
