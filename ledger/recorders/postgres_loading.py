"""Filling a new ledger in PostgreSQL with the log of another one, in a single transaction."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from psycopg.rows import tuple_row
from psycopg.sql import SQL, Identifier

from ledger.errors import LedgerStorageError
from ledger.recorders.base import LogRow
from ledger.recorders.postgres_address import PostgresAddress
from ledger.recorders.postgres_connections import LedgerConnection, PostgresConnections
from ledger.recorders.postgres_identity import identity
from ledger.recorders.postgres_schema import create_tables, migration_lock
from ledger.recorders.postgres_statements import statements
from ledger.threads import Job, StopRequest, finished, in_main_thread

__all__ = ["load_log"]

PAGE: Final = 2_000


def load_log(url: str, ledger_id: str, rows: Iterable[LogRow], check: Callable[[Iterable[LogRow]], None]) -> None:
    """Make a ledger with that id in a schema that holds none, and give it these events.

    All of it is one transaction: whoever looks, finds no ledger or the whole of it, and a load that is killed leaves
    nothing. The guard triggers check every version and position, as for any other append.

    Args:
        url: The database and schema.
        ledger_id: The id of the ledger that the events are from.
        rows: Its log, in order.
        check: Reads back, before the commit, what was stored; what it raises calls the load off.

    An interrupt calls it off, and comes out when nothing of it is left.

    Raises:
        ValueError: The URL is none.
        LedgerStorageError: The schema holds a ledger, an event's body is no text, or the server refuses; nothing was
            stored.
    """
    address = PostgresAddress.parse(url)
    connections = PostgresConnections(address)
    stop = StopRequest()

    def load() -> None:
        with connections.transaction() as connection:
            # The source may take its time between two pages.
            connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [migration_lock(address.schema)])
            if identity(connection, address) is not None:
                raise LedgerStorageError(f"{address.shown} holds a ledger already; copy into a schema that holds none")
            create_tables(connection, address, ledger_id)
            _copy(connection, address, _until_stopped(rows, stop))
            check(_until_stopped(_stored(connection, address), stop))

    try:
        if in_main_thread():
            finished(Job(load, stop))
        else:
            load()
    finally:
        connections.close()


def _until_stopped(rows: Iterable[LogRow], stop: StopRequest) -> Iterator[LogRow]:
    for row in rows:
        stop.heed()
        yield row


def _copy(connection: LedgerConnection, address: PostgresAddress, rows: Iterable[LogRow]) -> None:
    table = Identifier(address.schema, "stored_events")
    into = SQL("COPY {} (notification_id, originator_id, originator_version, topic, state) FROM STDIN").format(table)
    with connection.cursor() as cursor:
        with cursor.copy(into) as copy:
            for row in rows:
                copy.write_row((row.position, row.stream, row.version, row.tag, _text_of(row)))
        cursor.execute(SQL("ANALYZE {}").format(table))


def _text_of(row: LogRow) -> str:
    try:
        text = row.body.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise LedgerStorageError(
            f"the event at position {row.position} is damaged, its body is no text, and cannot be copied; run "
            "'lease-ledger verify' on the source"
        )
    return text


def _stored(connection: LedgerConnection, address: PostgresAddress) -> Iterator[LogRow]:
    query = statements(address.schema)["log"]
    after = 0
    with connection.cursor(row_factory=tuple_row) as cursor:
        while page := cursor.execute(query, (after, PAGE)).fetchall():
            for position, stream, version, tag, body in page:
                yield LogRow(position, stream, version, tag, body.encode())
            after = page[-1][0]
