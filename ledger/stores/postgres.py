"""Tokens in PostgreSQL, encrypted: for machines that share credentials and not only their history."""

import builtins
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final, LiteralString, TypeVar

from ledger.errors import LedgerStorageError
from ledger.keys import LeaseKey
from ledger.marker import marker_event
from ledger.store_errors import TokenIOError, TokenSerializationError, TokenStoreUnavailable
from ledger.stores.base import ANY, Expectation, TokenStore, refuse_unless_expected, sorted_keys
from ledger.stores.encryption import TokenCipher
from ledger.stores.postgres_rows import (
    DELETE,
    INSERT,
    LIST,
    NEXT_PAGE,
    PLACE,
    SELECT,
    UPDATE,
    belonging_of,
    make_table,
    row_id,
)
from ledger.tokens import PersistedTokens

if TYPE_CHECKING:
    from ledger.recorders.postgres_connections import LedgerConnection

__all__ = ["PostgresTokenStore"]

T = TypeVar("T")

TRIES: Final = 1_000
"""How often a write looks again when others wrote meanwhile; each time, one of them got through."""

PAGE: Final = 200


class PostgresTokenStore(TokenStore):
    """Keeps each key's tokens in one row, sealed with a key that the database never sees.

    A row is bound to its lease key and event: moved under another, it does not open. Every write names the sealed
    bytes it replaces, and the database compares and swaps in one statement; sealed bytes never repeat, so what is
    replaced is exactly what was looked at, also after a lost connection. Connections are made anew as the ledger's
    are. Safe to share between threads; survives a fork.

    Args:
        url: The database, as for ``LeaseLedger.open``; the ledger's own will do. The table is made on first use
            unless ``create=no`` is given.
        key: The keys to seal with: see :class:`TokenCipher`. ``None``: from the environment.

    Raises:
        ValueError: The URL or a key is none. The text holds neither.
        TokenStoreUnavailable: The key file or a package is missing, or the database cannot be reached.
        TokenPermissionDenied: The key file may not be read.
        TokenIOError: The database refused.
    """

    def __init__(self, url: str, *, key: str | Sequence[str] | os.PathLike[str] | TokenCipher | None = None) -> None:
        self._cipher = key if isinstance(key, TokenCipher) else TokenCipher(key)
        try:
            from psycopg.sql import SQL, Identifier  # noqa: PLC0415  # an extra brings the driver

            from ledger.recorders.postgres_address import PostgresAddress  # noqa: PLC0415
            from ledger.recorders.postgres_connections import PostgresConnections  # noqa: PLC0415
        except ImportError:
            raise TokenStoreUnavailable(
                "tokens in PostgreSQL need a driver that is not installed: pip install 'lease-ledger[postgres]'"
            ) from None
        address = PostgresAddress.parse(url)
        self._shown = address.shown
        self._connections = PostgresConnections(address)
        schema = Identifier(address.schema)

        @cache
        def composed(statement: LiteralString) -> bytes:
            return SQL(statement).format(schema=schema).as_bytes()

        self._composed = composed
        self._schema = address.schema
        self._place: str | None = None
        with _storage_errors():
            self._connections.patiently(partial(make_table, self._connections, composed))

    def __repr__(self) -> str:
        return f"PostgresTokenStore({self._shown!r})"

    @property
    def backend_name(self) -> str:
        """``"postgres"``."""
        return "postgres"

    @property
    def location(self) -> str | None:
        """This database of this server, and the schema in it; ``None`` where the server does not tell who it is."""
        if self._place is None:
            try:
                rows = self._fetch(PLACE, [])
            except TokenIOError:
                return None
            self._place = f"postgres:{rows[0]['place']}:{self._schema}"
        return self._place

    def close(self) -> None:
        """Give up the connections."""
        self._connections.close()

    def load(self, key: LeaseKey) -> PersistedTokens | None:
        """The tokens stored under the key; ``None`` when there is no row for it.

        Raises:
            TokenSerializationError: A row is there and does not open: its key is not among the token keys, or it was
                altered. It stays.
            TokenStoreUnavailable: The database cannot be reached.
            TokenIOError: The database refused.
        """
        return self._patiently(lambda connection: self._opened(key, self._row(connection, key)))

    def save(self, key: LeaseKey, tokens: PersistedTokens, *, expect: Expectation = ANY) -> None:
        """Store the tokens under the key, durably and atomically.

        Raises:
            TokensChanged: Something else than ``expect`` is stored, or something that does not open. Nothing was
                written.
            TokenSerializationError: These tokens cannot be written as JSON. Nothing was written.
            TokenStoreUnavailable: The database cannot be reached; ``load`` tells whether the old tokens are in place
                or the new ones.
            TokenIOError: The database refused. Nothing was written.
        """
        event = marker_event(tokens)
        sealed = self._cipher.seal(tokens.to_json(), belonging_of(key, event))

        def write(connection: "LedgerConnection") -> bool:
            row = self._row(connection, key)
            if row is not None and bytes(row["sealed"]) == sealed:
                # An earlier try got through, and its connection was lost before it could say so.
                return True
            refuse_unless_expected(key, expect, lambda: self._opened(key, row))
            if row is None:
                return self._execute(connection, INSERT, [event, sealed, row_id(key), str(key)])
            return self._execute(connection, UPDATE, [event, sealed, row_id(key), row["sealed"]])

        self._until_through(write)

    def clear(self, key: LeaseKey, *, expect: Expectation = ANY) -> None:
        """Delete the key's row, whether or not it opens.

        Raises:
            TokensChanged: Something else than ``expect`` is stored, or something that does not open. It stays.
            TokenStoreUnavailable: The database cannot be reached.
            TokenIOError: The database refused.
        """
        found = False

        def remove(connection: "LedgerConnection") -> bool:
            nonlocal found
            row = self._row(connection, key)
            if row is None and found:
                # Whether this call's earlier try removed it or somebody else, it is gone as was wanted.
                return True
            refuse_unless_expected(key, expect, lambda: self._opened(key, row))
            if row is None:
                return True
            found = True
            return self._execute(connection, DELETE, [row_id(key), row["sealed"]])

        self._until_through(remove)

    def list(self) -> builtins.list[LeaseKey]:
        """The keys that have a row, whether or not it opens, sorted by realm, binding and profile.

        Raises:
            TokenStoreUnavailable: The database cannot be reached.
            TokenIOError: The database refused.
        """
        rows = self._fetch(LIST, [])
        return sorted_keys(LeaseKey.parse(row["lease_key"]) for row in rows)

    def rotate(self) -> int:
        """Seal again, with the first key, whatever another key sealed. Others may work meanwhile.

        Returns:
            How many rows were sealed again. Once it returns, no row needs the other keys, provided that every machine
            has the new key in the first place already.

        Raises:
            TokenSerializationError: Rows do not open; the text names their lease keys. All others were sealed again.
            TokenStoreUnavailable, TokenIOError: As for ``save``; calling it again goes on.
        """
        done, unreadable = 0, []
        for row in self._rows():
            key = LeaseKey.parse(row["lease_key"])
            try:
                done += self._patiently(partial(self._reseal, key))
            except TokenSerializationError:
                unreadable.append(str(key))
        if unreadable:
            raise TokenSerializationError(f"not sealed again, since they do not open: {', '.join(unreadable)}")
        return done

    def _reseal(self, key: LeaseKey, connection: "LedgerConnection") -> int:
        while True:
            row = self._row(connection, key)
            if row is None or self._cipher.is_latest(bytes(row["sealed"])):
                return 0
            bound = belonging_of(key, row["event"])
            sealed = self._cipher.seal(self._cipher.open(bytes(row["sealed"]), bound), bound)
            if self._execute(connection, UPDATE, [row["event"], sealed, row_id(key), row["sealed"]]):
                return 1

    def _rows(self) -> Iterator[dict[str, Any]]:
        after = ""
        while True:
            page = self._fetch(NEXT_PAGE, [after, PAGE])
            yield from page
            if len(page) < PAGE:
                return
            after = page[-1]["id"]

    def _fetch(self, statement: LiteralString, values: Sequence[object]) -> builtins.list[dict[str, Any]]:
        return self._patiently(lambda connection: connection.execute(self._composed(statement), values).fetchall())

    def _row(self, connection: "LedgerConnection", key: LeaseKey) -> dict[str, Any] | None:
        return connection.execute(self._composed(SELECT), [row_id(key)]).fetchone()

    def _opened(self, key: LeaseKey, row: dict[str, Any] | None) -> PersistedTokens | None:
        if row is None:
            return None
        return PersistedTokens.from_json(self._cipher.open(bytes(row["sealed"]), belonging_of(key, row["event"])))

    def _execute(self, connection: "LedgerConnection", statement: LiteralString, values: Sequence[object]) -> bool:
        return connection.execute(self._composed(statement), values).rowcount == 1

    def _until_through(self, write: "Callable[[LedgerConnection], bool]") -> None:
        for _ in range(TRIES):
            if self._patiently(write):
                return
        raise TokenStoreUnavailable(f"{self._shown}: others wrote these tokens all the time; nothing was written")

    def _patiently(self, call: "Callable[[LedgerConnection], T]") -> T:
        def borrowed() -> T:
            with self._connections.borrow() as connection:
                return call(connection)

        with _storage_errors():
            return self._connections.patiently(borrowed)


@contextmanager
def _storage_errors() -> Iterator[None]:
    """Raise the connections' errors as those of a token store."""
    from ledger.recorders.postgres_connections import Unreachable  # noqa: PLC0415  # an extra brings the driver

    try:
        yield
    except Unreachable as error:
        raise TokenStoreUnavailable(str(error)) from error
    except LedgerStorageError as error:
        raise TokenIOError(str(error)) from error
