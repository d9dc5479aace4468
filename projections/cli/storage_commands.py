"""``init``, ``backup`` and ``copy``: where a ledger lies."""

import contextlib
from pathlib import Path
from urllib.parse import urlencode

import click

from ledger.copying import Copied
from ledger.copying import backup as back_up
from ledger.copying import copy as copy_ledger
from ledger.recorders.sqlite_address import SQLiteAddress, sqlite_url
from ledger.stores.encryption import new_token_key as make_token_key
from projections.cli.output import Output
from projections.cli.outputs import new_file
from projections.cli.places import looks_like_an_address
from projections.cli.session import Session, json_option
from projections.cli.terminal import write_line

__all__ = ["backup", "copy", "init", "new_token_key", "rotate_token_key"]


@click.command()
@click.pass_obj
def init(session: Session) -> None:
    """Make the ledger's file or tables, once, before many workers open it. Harmless when they are there already.

    \b
    Example:
      lease-ledger --db postgresql://agent@db/auth init
    """
    with session.ledger(create=True) as ledger:
        write_line(f"ledger {ledger.ledger_id} is ready")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@json_option
@click.pass_obj
def backup(session: Session, file: Path, as_json: bool) -> None:
    """Write a consistent copy of the ledger into a new SQLite file, while others use it.

    Tokens are not part of a ledger. To go on with a backup, stop using the original: two copies that are both
    written to are two histories under one name.

    \b
    Example:
      lease-ledger --db auth.db backup /elsewhere/auth-backup.db
    """
    output = Output(as_json)
    with session.ledger() as ledger, output.progress("backing up") as progress:
        written = back_up(ledger, new_file(session, file), progress=progress)
    output.one(written, _words(written, str(file)))


@click.command()
@click.argument("target", metavar="URL")
@json_option
@click.pass_obj
def copy(session: Session, target: str, as_json: bool) -> None:
    """Copy the ledger into another storage, such as from SQLite to PostgreSQL: the same id, positions and chain.

    The target must be empty. The copy replaces the original: stop using the original first.

    \b
    Example:
      lease-ledger --db auth.db copy postgresql://agent@db/auth
    """
    output = Output(as_json)
    with session.ledger() as ledger, output.progress("copying") as progress:
        url = _target_url(session, target)
        try:
            written = copy_ledger(ledger, url, progress=progress)
        except ValueError as error:
            raise click.UsageError(f"{error}.") from error
    output.one(written, _words(written, "the target"))


@click.command("new-token-key")
def new_token_key() -> None:
    """Print a new random key for a token database, as the line of a key file.

    The first key of the file seals, all of them open. The file is named by LEASE_LEDGER_TOKEN_KEY_FILE.

    \b
    Example:
      (umask 077; lease-ledger new-token-key > token.key)
    """
    write_line(make_token_key())


@click.command("rotate-token-key")
@click.pass_obj
def rotate_token_key(session: Session) -> None:
    """Seal every token of a token database again with the first key of the key file, while others work.

    First put the new key before the old one in the key file of every machine; drop the old one when this is done.

    \b
    Example:
      lease-ledger --store postgresql://agent@db/auth rotate-token-key
    """
    with contextlib.closing(session.token_database()) as store:
        write_line(f"{store.rotate()} sets of tokens were sealed again with the first key")


def _target_url(session: Session, target: str) -> str:
    """The URL to copy to; a path is a new file."""
    if "://" not in target and looks_like_an_address(target):
        raise click.UsageError("a ledger is copied to a new file, or to postgresql://user@host/database.")
    try:
        file = SQLiteAddress.parse(target if "://" in target else sqlite_url(target))
    except ValueError as error:
        raise click.UsageError(f"{error}.") from None
    if file is None:
        return target
    options = f"?{urlencode(file.options)}" if file.options else ""
    return f"{sqlite_url(new_file(session, file.path))}{options}"


def _words(written: Copied, where: str) -> str:
    return f"{written.position} events of ledger {written.ledger_id} are in {where}, read back and compared"
