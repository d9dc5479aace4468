"""What the commands work on: the ledger and the token store that the options name."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

import click

from ledger.addresses import split_address, without_password
from ledger.arguments import check_text
from ledger.keys import IdentityError, LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.store_errors import TokenSerializationError
from ledger.stores.base import TokenStore
from ledger.stores.file import FileTokenStore
from ledger.stores.postgres import PostgresTokenStore
from ledger.tokens import PersistedTokens
from projections.cli.places import database_url, ledger_url, token_folder
from projections.cli.terminal import write_line
from projections.input_files import read_input, read_standard_input
from projections.known_keys import require_known
from projections.protected_files import LONGEST_TOKENS_BYTES

__all__ = [
    "LARGEST",
    "Session",
    "any_key_argument",
    "check_words",
    "json_option",
    "key_argument",
    "keys_argument",
    "read_tokens",
]

LARGEST: Final = 2**63 - 1
"""The largest number that a position, a version or a count can be."""


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

    def ledger(
        self, *, create: bool = False, keys: Iterable[LeaseKey] = (), known_to: TokenStore | None = None
    ) -> LeaseLedger:
        """Open the ledger.

        Args:
            create: Whether to make one where there is none.
            keys: Keys that the command is about, and that have to be there.
            known_to: A store that may know them too.

        Raises:
            click.UsageError: No ledger was named, or by a URL that names no storage.
            UnknownKey: Nothing ever happened to one of the keys.
            LedgerStorageError: It cannot be opened, or is not there.
        """
        if not self.db:
            raise click.UsageError("which ledger? Name it with --db auth.db or LEASE_LEDGER_DB.")
        url = ledger_url(self.db, create=create)
        try:
            ledger = LeaseLedger.open(url, actor=self.actor or None)
        except ValueError as error:
            raise click.UsageError(f"{error}.") from error
        try:
            require_known(ledger, keys, known_to)
        except BaseException:
            ledger.close()
            raise
        if ledger.recorder.read_only and not _answers_in_json():
            write_line("lease-ledger: note: the ledger is open for reading only; it may not be written here", err=True)
        return ledger

    def token_store(self, *, create: bool = False) -> TokenStore:
        """The token store.

        Args:
            create: Whether its folder may be made.

        Raises:
            click.UsageError: No folder was named.
            TokenStoreUnavailable: There is no such folder.
        """
        if not self.store:
            raise click.UsageError("where are the tokens? Name their folder with --store DIR or LEASE_LEDGER_STORE.")
        if "://" in self.store:
            return self.token_database(create=create)
        return FileTokenStore(token_folder(self.store, create=create))

    def token_database(self, *, create: bool = False) -> PostgresTokenStore:
        """The token store, which must be a database.

        Args:
            create: Whether its table may be made.

        Raises:
            click.UsageError: No database was named, or its key is no key.
            TokenStoreUnavailable: It cannot be reached, or the key file is not there.
        """
        if not self.store or "://" not in self.store:
            raise click.UsageError("which token database? Name it with --store postgresql://...")
        try:
            if split_address(self.store).scheme not in ("postgresql", "postgres"):
                raise click.UsageError(
                    f"unknown token store {without_password(self.store)}: expected a folder or postgresql://..."
                )
            return PostgresTokenStore(database_url(self.store, create=create))
        except ValueError as error:
            raise click.UsageError(f"{error}.") from error


def _parse_key(context: click.Context, parameter: click.Parameter, value: str | None) -> LeaseKey | None:
    if value is not None and "://" in value:
        raise click.BadParameter("a lease key is realm:binding or realm:binding:profile, not an address.")
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


def check_words(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """A text for the history, such as a cause; for the ``callback`` of an option.

    Raises:
        click.BadParameter: It is too long, or no Unicode text.
    """
    try:
        return check_text(str(parameter.name), value)
    except ValueError as error:
        raise click.BadParameter(f"{error}.", context, parameter) from None


def read_tokens(file: Path | None) -> PersistedTokens:
    """The tokens to log in with, as JSON, from a file or from standard input.

    Raises:
        click.UsageError: They cannot be read as tokens, or nobody would see where they come from.
        InputRefused: There is no such file, it is no regular one, or longer than tokens are.
    """
    if file is not None:
        data = read_input(file, most_bytes=LONGEST_TOKENS_BYTES)
    elif sys.stdin is None or sys.stdin.isatty():
        raise click.UsageError(
            "tokens come on standard input, where a terminal would show them: pipe, or --tokens-file."
        )
    else:
        data = read_standard_input(most_bytes=LONGEST_TOKENS_BYTES)
    try:
        return PersistedTokens.from_json(data)
    except TokenSerializationError as error:
        raise click.UsageError(f"the tokens given cannot be read: {error.detail}.") from None


def _answers_in_json() -> bool:
    """Whether nothing but an error's object may stand on standard error."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.params.get("as_json"))
