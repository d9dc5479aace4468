"""What the commands work on: the ledger and the token store that the options name."""

import sys
from pathlib import Path
from typing import Final, NamedTuple

import click

from ledger.errors import LedgerStorageError
from ledger.keys import IdentityError, LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.one_line import one_line
from ledger.recorders.sqlite_address import SQLiteAddress, sqlite_url
from ledger.recorders.sqlite_opening import real_file
from ledger.store_errors import TokenSerializationError, TokenStoreUnavailable
from ledger.stores.base import TokenStore
from ledger.stores.file import FileTokenStore
from ledger.stores.postgres import PostgresTokenStore
from ledger.tokens import PersistedTokens

__all__ = ["Session", "any_key_argument", "json_option", "key_argument", "keys_argument", "read_tokens"]

LONGEST_TOKENS_BYTES: Final = 4 * 1024 * 1024


class Session(NamedTuple):
    """The options that all commands share.

    Attributes:
        db: Ledger URL or path, if given.
        store: Folder of the token files, or URL of a token database, if given.
        actor: Who acts, for the history; by default user, host and process.
    """

    db: str | None
    store: str | None
    actor: str | None

    def ledger(self, *, create: bool = False) -> LeaseLedger:
        """Open the ledger.

        Args:
            create: Whether to make one where there is none.

        Raises:
            click.UsageError: No ledger was named, or by a URL that names no storage.
            LedgerStorageError: It cannot be opened, or is not there.
        """
        if not self.db:
            raise click.UsageError("which ledger? Name it with --db auth.db or LEASE_LEDGER_DB.")
        try:
            url = self.db if "://" in self.db else sqlite_url(self.db)
            if not create:
                _refuse_missing(url)
            ledger = LeaseLedger.open(url, actor=self.actor)
        except ValueError as error:
            raise click.UsageError(f"{error}.") from error
        if ledger.recorder.read_only:
            click.echo("lease-ledger: note: the ledger is open for reading only; it may not be written here", err=True)
        return ledger

    def token_store(self, *, create: bool = False) -> TokenStore:
        """The token store.

        Args:
            create: Whether its folder may be made.

        Raises:
            click.UsageError: No folder was named.
            TokenStoreUnavailable: There is no such folder.
        """
        if self.store is None:
            raise click.UsageError("where are the tokens? Name their folder with --store DIR or LEASE_LEDGER_STORE.")
        if "://" in self.store:
            return self.token_database()
        if not create and not Path(self.store).is_dir():
            raise TokenStoreUnavailable(f"there is no token folder {self.store}; point --store at the one in use")
        return FileTokenStore(self.store)

    def token_database(self) -> PostgresTokenStore:
        """The token store, which must be a database.

        Raises:
            click.UsageError: No database was named, or its key is no key.
            TokenStoreUnavailable: It cannot be reached, or the key file is not there.
        """
        if self.store is None or "://" not in self.store:
            raise click.UsageError("which token database? Name it with --store postgresql://...")
        try:
            return PostgresTokenStore(self.store)
        except ValueError as error:
            raise click.UsageError(f"{error}.") from error


def _parse_key(context: click.Context, parameter: click.Parameter, value: str | None) -> LeaseKey | None:
    try:
        return None if value is None else LeaseKey.parse(value)
    except IdentityError as error:
        raise click.BadParameter(f"{error}.", context, parameter) from error


key_argument: Final = click.argument("key", callback=_parse_key)
"""``KEY``: ``realm:binding`` or ``realm:binding:profile``."""


def _parse_keys(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[LeaseKey, ...]:
    keys = (_parse_key(context, parameter, value) for value in values)
    return tuple(key for key in keys if key is not None)


keys_argument: Final = click.argument("keys", metavar="[KEY]...", nargs=-1, callback=_parse_keys)
"""``[KEY]...``: some leases, or all."""

any_key_argument: Final = click.argument("key", callback=_parse_key, required=False)
"""``[KEY]``: one lease, or all."""

json_option: Final = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
"""``--json``."""


def read_tokens(file: Path | None) -> PersistedTokens:
    """The tokens to log in with, as JSON, from a file or from standard input.

    Raises:
        click.UsageError: They cannot be read as tokens, or nobody would see where they come from.
    """
    if file is not None:
        with file.open("rb") as stream:
            data = stream.read(LONGEST_TOKENS_BYTES + 1)
    elif sys.stdin.isatty():
        raise click.UsageError(
            "tokens come on standard input, where a terminal would show them: pipe, or --tokens-file."
        )
    else:
        data = sys.stdin.buffer.read(LONGEST_TOKENS_BYTES + 1)
    if len(data) > LONGEST_TOKENS_BYTES:
        raise click.UsageError("the tokens are longer than 4 MiB: that is some other file.")
    try:
        return PersistedTokens.from_json(data)
    except TokenSerializationError as error:
        raise click.UsageError(f"the tokens given cannot be read: {error.detail}.") from None


def _refuse_missing(url: str) -> None:
    address = SQLiteAddress.parse(url)
    if address is None:
        return
    # An empty file is what a killed creation leaves, or a mistake; opening it would make a ledger of it.
    path = real_file(address.path)
    if not path.exists() or path.stat().st_size == 0:
        raise LedgerStorageError(
            f"there is no ledger at {one_line(address.path)}; point --db at one, or make it with 'lease-ledger login'"
        )
