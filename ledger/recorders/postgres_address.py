"""Which PostgreSQL database, which schema in it, and how to name both without giving the password away."""

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict

from ledger.addresses import is_well_formed, split_address, without_password

__all__ = ["PostgresAddress"]

DEFAULT_SCHEMA: Final = "lease_ledger"
_SCHEMA: Final = re.compile(r"[a-z_][a-z0-9_]{0,47}")
_EXPECTED: Final = (
    "expected postgresql://user@host:port/database, optionally with ?schema=name, create=no, reconnect=SECONDS, "
    "connections=NUMBER, and libpq's own options such as sslmode"
)
_ESCAPED: Final = "in a name or password write % as %25, @ as %40, : / ? # [ ] as %3A %2F %3F %23 %5B %5D"


@dataclass(frozen=True)
class PostgresAddress:
    """A parsed ``postgresql://`` URL.

    The password may be in the URL, but is better kept in ``PGPASSWORD``, a ``.pgpass`` or a service file, all of
    which work here as everywhere. ``repr`` and ``shown`` never hold it.

    Attributes:
        parameters: What the client library connects with; not shown.
        shown: The URL for people: no password and no options but the schema.
        schema: Where the tables are; ``lease_ledger`` unless the URL says otherwise.
        create: Whether opening may create the tables; ``create=no`` leaves that to ``init``.
        reconnect_s: Seconds to try for a new connection once one was lost; 30 unless the URL says otherwise.
        connections: Most connections at a time, beside one for locks and one that listens; 8 by default.
    """

    parameters: dict[str, str] = field(repr=False)
    shown: str
    schema: str = DEFAULT_SCHEMA
    create: bool = True
    reconnect_s: float = 30.0
    connections: int = 8

    @classmethod
    def parse(cls, url: str) -> "PostgresAddress":
        """Read a URL.

        Raises:
            ValueError: It is none, or an option is unknown or out of range. The text holds neither the password nor
                any option's value but the schema's.
        """
        parts = split_address(url)
        account, at, hosts = parts.netloc.rpartition("@")
        # As the last '@' is meant; the client library would end a password at the first one, and quote what follows.
        plain = f"postgresql://{account.replace('@', '%40')}{at}{hosts}{parts.path}"
        # What holds an '@' further on is the rest of a password that was not escaped, and no option of ours.
        doubtful = parts.fragment or "@" in parts.query or not is_well_formed(plain)
        if parts.scheme not in ("postgresql", "postgres") or doubtful:
            raise ValueError(f"unreadable ledger URL {without_password(url)}: {_EXPECTED}; {_ESCAPED}")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        schema = options.pop("schema", DEFAULT_SCHEMA)
        if not _SCHEMA.fullmatch(schema):
            raise ValueError(
                f"{schema!r} is no schema for a ledger: lower-case letters, digits and '_', at most 48, no digit first"
            )
        create = options.pop("create", "yes").lower()
        if create not in ("yes", "no"):
            raise ValueError("create is 'yes' or 'no'")
        reconnect_s = _number(options.pop("reconnect", "30"), "reconnect", 0, 86_400)
        connections = _number(options.pop("connections", "8"), "connections", 1, 1_000)
        known = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()} - {"options"}
        for name in options:
            if name not in known:
                raise ValueError(f"unknown option {name!r} in ledger URL: {_EXPECTED}")
        shown = f"{without_password(plain)}?schema={schema}"
        uri = f"{plain}?{urlencode(options, quote_via=quote)}"
        try:
            parameters = {name: str(value) for name, value in conninfo_to_dict(uri).items()}
        except psycopg.Error:
            # The client library's own text may quote any part of the URL, the password included.
            raise ValueError(f"unreadable ledger URL {shown}: {_EXPECTED}") from None
        return cls(parameters, shown, schema, create == "yes", float(reconnect_s), connections)

    @property
    def channel(self) -> str:
        """The channel on which every append notifies."""
        return f"lease_ledger_{self.schema}"


def _number(text: str, name: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
        raise ValueError(f"{name} is a whole number from {least} to {most}")
    return int(text)
