"""``sql`` and ``datasette-metadata``: the audit file for those who speak SQL."""

import click
import msgspec

from ledger.errors import LedgerStorageError
from projections.audit import AuditLog
from projections.cli.output import Output
from projections.cli.session import Session, json_option
from projections.datasette import datasette_metadata as metadata_of
from projections.export.json_text import exact

__all__ = ["datasette_metadata", "sql"]


@click.command()
@click.argument("question")
@click.argument("values", nargs=-1)
@json_option
@click.pass_obj
def sql(session: Session, question: str, values: tuple[str, ...], as_json: bool) -> None:
    """Ask the audit file one question in SQL, read-only.

    Tables: events, leases. Views: attempts, sessions. VALUES fill the question's ? places.

    \b
    Example:
      lease-ledger --db auth.db sql "SELECT outcome, count(*) FROM attempts WHERE key = ? GROUP BY 1" dev:openai:work
    """
    with session.ledger() as ledger, AuditLog.open(ledger) as audit:
        try:
            rows = audit.query(question, values)
        except ValueError as error:
            raise click.UsageError(f"{error}.") from error
    if as_json:
        for row in rows:
            click.echo(msgspec.json.encode(exact(row)).decode())
        return
    headings = list(rows[0]) if rows else []
    shown = [["" if value is None else str(value) for value in row.values()] for row in rows]
    Output(as_json).table(headings, shown, empty="no rows")


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
    click.echo(msgspec.json.format(msgspec.json.encode(metadata_of(name)), indent=2).decode())
