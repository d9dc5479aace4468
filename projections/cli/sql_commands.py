"""``sql`` and ``datasette-metadata``: the audit file for those who speak SQL."""

import math
from collections.abc import Iterator
from typing import Any, Final

import click
import msgspec

from ledger.errors import LedgerStorageError
from projections.audit import AuditLog
from projections.cli.output import Output
from projections.cli.session import Session, json_option
from projections.cli.sql_values import TakesNegativeNumbers, bound_value
from projections.cli.terminal import write_document, write_json, write_line
from projections.datasette import datasette_metadata as metadata_of
from projections.export.json_text import exact

__all__ = ["datasette_metadata", "sql"]

DEFAULT_TIMEOUT_S: Final = 60.0

_MOST_ROWS: Final = 10_000
_MOST_CHARACTERS: Final = 16 * 1024 * 1024


def _refuse_no_number(context: click.Context, parameter: click.Parameter, value: float) -> float:
    if math.isnan(value):
        raise click.BadParameter("this is no number of seconds.", context, parameter)
    return value


@click.command(cls=TakesNegativeNumbers)
@click.argument("question")
@click.argument("values", nargs=-1)
@click.option(
    "--timeout",
    "timeout_s",
    metavar="SECONDS",
    type=click.FloatRange(min=0, max=1e9, min_open=True),
    callback=_refuse_no_number,
    default=DEFAULT_TIMEOUT_S,
    show_default=True,
    help="How long the computing may take.",
)
@json_option
@click.pass_obj
def sql(session: Session, question: str, values: tuple[str, ...], timeout_s: float, as_json: bool) -> None:
    """Ask the audit file one question in SQL, read-only.

    Tables: events, leases. Views: attempts, sessions. VALUES fill the question's ? places: a number is one when it is
    written like one, anything else is text, and so is what stands in single quotes ("'17'"). Ctrl-C ends the
    question at once. Of columns of one name, the second is called name_2.

    \b
    Example:
      lease-ledger --db auth.db sql "SELECT outcome, count(*) FROM attempts WHERE key = ? GROUP BY 1" dev:openai:work
    """
    bound = [bound_value(value) for value in values]
    with (
        session.ledger() as ledger,
        AuditLog.open(ledger) as audit,
        audit.asking(question, bound, timeout_s=timeout_s) as answer,
    ):
        if as_json:
            for row in answer.rows:
                write_json(exact(dict(zip(answer.names, row, strict=True))))
            return
        shown, is_all = _shown(answer.rows)
    Output(as_json).table(answer.names, shown, empty="no rows")
    if not is_all:
        write_line(f"there are more than these {len(shown):,} rows; ask for fewer, or for all with --json", err=True)


def _shown(rows: Iterator[tuple[Any, ...]]) -> tuple[list[list[str]], bool]:
    """As many rows as a table is made of, whose columns are as wide as the widest value; and whether that is all."""
    shown: list[list[str]] = []
    left = _MOST_CHARACTERS
    for row in rows:
        if len(shown) == _MOST_ROWS or left < 0:
            return shown, False
        shown.append(["" if value is None else str(value) for value in row])
        left -= sum(map(len, shown[-1]))
    return shown, True


@click.command("datasette-metadata")
@click.pass_obj
def datasette_metadata(session: Session) -> None:
    """Print titles, descriptions and ready questions for Datasette, as JSON.

    \b
    Example:
      lease-ledger --db auth.db datasette-metadata > metadata.json
      datasette auth.audit.db --metadata metadata.json
    """
    with session.ledger() as ledger, AuditLog.open(ledger) as audit:
        audit.catch_up()
        if audit.path is None:
            raise LedgerStorageError("a ledger in memory has no audit file for Datasette to open; point --db at a file")
        name = audit.path.stem
    write_document(msgspec.json.format(msgspec.json.encode(metadata_of(name)), indent=2).decode())
