"""What is wrong with a ledger's schema in PostgreSQL: all there is in it, held against what this version makes.

Tables and their columns, constraints, unique indexes, triggers, functions and views are compared by what the server
itself says of them; whatever else acts on the ledger's tables (rules, policies, tables that inherit) is not of the
ledger. Nothing is created or locked, and a role that may only read can do it.
"""

from typing import Final, LiteralString

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier

from ledger.recorders.postgres_address import PostgresAddress
from ledger.recorders.postgres_connections import LedgerConnection
from ledger.recorders.postgres_identity import FORMAT
from ledger.recorders.postgres_schema import TRIGGERS, function_bodies
from ledger.recorders.postgres_views import EVENT_FIELDS, FIRST_EVENTS_VIEW, VIEWS

__all__ = ["schema_defects"]

_NUL: Final = "%\\\\u0000%"

_MADE: Final = {
    "table ledger_meta": "",
    "table stored_events": "",
    "table stored_folds": "",
    "view stored_events_as_bytes": "",
    "view lease_events": "",
    "column ledger_meta.only_row": "boolean NOT NULL DEFAULT true",
    "column ledger_meta.ledger_id": "text NOT NULL",
    "column ledger_meta.format": "integer NOT NULL",
    "column ledger_meta.lowest_reader": "integer NOT NULL",
    "column stored_events.originator_id": 'text COLLATE "C" NOT NULL',
    "column stored_events.originator_version": "bigint NOT NULL",
    "column stored_events.topic": "text NOT NULL",
    "column stored_events.state": "text NOT NULL",
    "column stored_events.notification_id": "bigint NOT NULL",
    "column stored_folds.stream": 'text COLLATE "C" NOT NULL',
    "column stored_folds.version": "bigint NOT NULL",
    "column stored_folds.fold": "integer NOT NULL",
    "column stored_folds.digest": "text NOT NULL",
    "column stored_folds.state": "text NOT NULL",
    "column stored_events_as_bytes.originator_id": 'text COLLATE "C"',
    "column stored_events_as_bytes.originator_version": "bigint",
    "column stored_events_as_bytes.topic": "text",
    "column stored_events_as_bytes.state": "bytea",
    "column stored_events_as_bytes.notification_id": "bigint",
    "column lease_events.position": "bigint",
    "column lease_events.lease_key": 'text COLLATE "C"',
    "column lease_events.version": "bigint",
    "column lease_events.tag": "text",
    "column lease_events.at_ms": "numeric",
    "column lease_events.actor": "text",
    "column lease_events.cause": "text",
    "column lease_events.body": "text",
    "constraint ledger_meta.ledger_meta_pkey": "PRIMARY KEY (only_row)",
    "constraint ledger_meta.ledger_meta_only_row_check": "CHECK (only_row)",
    "constraint stored_events.stored_events_pkey": "PRIMARY KEY (originator_id, originator_version)",
    "constraint stored_events.stored_events_notification_id_key": "UNIQUE (notification_id)",
    "constraint stored_folds.stored_folds_pkey": "PRIMARY KEY (stream, version)",
    "index ledger_meta_pkey": "CREATE UNIQUE INDEX ledger_meta_pkey ON ledger_meta USING btree (only_row)",
    "index stored_events_pkey": (
        "CREATE UNIQUE INDEX stored_events_pkey ON stored_events USING btree (originator_id, originator_version)"
    ),
    "index stored_events_notification_id_key": (
        "CREATE UNIQUE INDEX stored_events_notification_id_key ON stored_events USING btree (notification_id)"
    ),
    "index stored_folds_pkey": "CREATE UNIQUE INDEX stored_folds_pkey ON stored_folds USING btree (stream, version)",
}
_DEFINED_AS: Final = {
    "stored_events_next": "BEFORE INSERT ON stored_events FOR EACH ROW",
    "stored_events_keep": "BEFORE DELETE OR UPDATE OR TRUNCATE ON stored_events FOR EACH STATEMENT",
    "ledger_meta_keep": "BEFORE DELETE OR UPDATE OR TRUNCATE ON ledger_meta FOR EACH STATEMENT",
}
"""The triggers as the server spells them, whatever order they were made with."""

_PLAIN_FUNCTION: Final = "trigger plpgsql v"
_FIELDS_FUNCTION: Final = "record plpgsql i"

# One row for each object: its kind and name, and what it is. Names lose the schema, so that one text fits all.
_FOUND: Final = """
    WITH ours AS (
        SELECT c.* FROM pg_class c WHERE c.relnamespace = to_regnamespace(%(schema)s) AND c.relkind NOT IN ('i', 'c')
            AND c.relname IN ('ledger_meta', 'stored_events', 'stored_folds', 'stored_events_as_bytes', 'lease_events')
    )
    SELECT CASE relkind WHEN 'r' THEN 'table ' WHEN 'v' THEN 'view ' ELSE 'relation ' END || relname AS name,
        concat_ws(' ', CASE relpersistence WHEN 'u' THEN 'unlogged' WHEN 't' THEN 'temporary' END,
            CASE WHEN relispartition THEN 'a partition' END, CASE WHEN relrowsecurity THEN 'with row security' END,
            CASE WHEN relkind <> 'r' THEN array_to_string(reloptions, ' ') END) AS text FROM ours
    UNION ALL
    SELECT 'column ' || c.relname || '.' || a.attname, format_type(a.atttypid, a.atttypmod)
        || CASE WHEN a.attcollation <> t.typcollation THEN ' COLLATE ' || quote_ident(l.collname) ELSE '' END
        || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END
        || CASE WHEN a.attgenerated <> '' THEN ' GENERATED' WHEN a.attidentity <> '' THEN ' IDENTITY' ELSE '' END
        || coalesce(' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid), '')
    FROM ours c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_collation l ON l.oid = a.attcollation
        LEFT JOIN pg_attrdef d ON (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
    UNION ALL
    SELECT 'constraint ' || c.relname || '.' || o.conname, pg_get_constraintdef(o.oid)
    FROM ours c JOIN pg_constraint o ON o.conrelid = c.oid AND o.contype NOT IN ('n', 't')
    UNION ALL
    SELECT 'index ' || i.relname, replace(pg_get_indexdef(i.oid), quote_ident(n.nspname) || '.', '')
        || CASE WHEN x.indisvalid AND x.indisready AND x.indislive THEN '' ELSE ', not valid' END
    FROM ours c JOIN pg_index x ON x.indrelid = c.oid AND (x.indisunique OR x.indisexclusion)
        JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    UNION ALL
    SELECT 'trigger ' || t.tgname, replace(pg_get_triggerdef(t.oid), quote_ident(n.nspname) || '.', '')
        || CASE t.tgenabled WHEN 'A' THEN '' WHEN 'D' THEN ', switched off' ELSE ', not always on' END
    FROM ours c JOIN pg_trigger t ON t.tgrelid = c.oid AND NOT t.tgisinternal
        JOIN pg_namespace n ON n.oid = c.relnamespace
    UNION ALL
    SELECT 'function ' || p.proname, concat_ws(' ', format_type(p.prorettype, NULL), l.lanname, p.provolatile,
            CASE WHEN p.prosecdef THEN 'security definer' END, CASE WHEN p.proretset THEN 'set' END,
            CASE WHEN p.proisstrict THEN 'strict' END, array_to_string(p.proconfig, ' ')) || p.prosrc
    FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
    WHERE p.pronamespace = to_regnamespace(%(schema)s)
        AND (p.proname, pg_get_function_identity_arguments(p.oid)) IN (('next_event', ''), ('refuse_change', ''),
            ('event_fields', 'state text, OUT at_ms numeric, OUT actor text, OUT cause text'))
    UNION ALL
    SELECT 'rule ' || r.rulename, pg_get_ruledef(r.oid)
    FROM ours c JOIN pg_rewrite r ON r.ev_class = c.oid AND (c.relkind <> 'v' OR r.rulename <> '_RETURN')
    UNION ALL
    SELECT 'policy ' || p.polname, 'on ' || c.relname FROM ours c JOIN pg_policy p ON p.polrelid = c.oid
    UNION ALL
    SELECT 'table ' || i.inhrelid::regclass, 'a part of ' || i.inhparent::regclass
    FROM pg_inherits i WHERE i.inhparent IN (SELECT oid FROM ours) OR i.inhrelid IN (SELECT oid FROM ours)"""


def schema_defects(connection: LedgerConnection, address: PostgresAddress, ledger_id: str) -> list[str]:
    """What is not as this version makes it, one sentence each, naming the object.

    Args:
        connection: Outside of a transaction.
        address: The database and schema.
        ledger_id: The ledger that was opened.
    """
    schema = Identifier(address.schema)
    found = {
        row["name"]: row["text"] for row in connection.execute(_FOUND, {"schema": f'"{address.schema}"'}).fetchall()
    }
    meta: list[dict[str, object]] = []
    if "table ledger_meta" in found:
        meta = connection.execute(SQL("SELECT * FROM {}.ledger_meta LIMIT 2").format(schema)).fetchall()
    newest = max((number for row in meta if isinstance(number := row.get("format"), int)), default=FORMAT)
    if newest > FORMAT:
        return [
            f"table ledger_meta says format {newest}, and this version knows {FORMAT}: verify with the version that "
            "made the ledger"
        ]
    made = _made(connection, address)
    # Version 0.1.0 had no such function, and a view that does without.
    first = "function event_fields" not in found
    if first:
        del made["function event_fields"]
    return [
        *_meta_defects(meta, ledger_id),
        *(defect for name in sorted({*made, *found}) for defect in _difference(name, made.get(name), found.get(name))),
        *_view_defects(connection, schema, found, first=first),
    ]


def _made(connection: LedgerConnection, address: PostgresAddress) -> dict[str, str]:
    triggers = {
        f"trigger {name}": f"CREATE TRIGGER {name} {_DEFINED_AS[name]} EXECUTE FUNCTION {function}()"
        for name, (_, function) in TRIGGERS.items()
    }
    functions = {
        f"function {name}": _PLAIN_FUNCTION + body for name, body in function_bodies(connection, address).items()
    }
    return {**_MADE, **triggers, **functions, "function event_fields": _FIELDS_FUNCTION + EVENT_FIELDS}


def _difference(name: str, made: str | None, found: str | None) -> list[str]:
    if made == found:
        return []
    kind, _, bare = name.partition(" ")
    guard = kind == "trigger" and bare in TRIGGERS
    name = f"guard {name}" if guard else name
    consequence = ": the schema was not append-only" if guard else ""
    if found is None:
        return [f"the {name} is missing{consequence}"]
    shown = "" if kind == "function" else f" ({' '.join(found.split())})"
    if made is None:
        return [f"the {name} is not of this ledger{shown}: it may change or hide what is recorded"]
    return [f"the {name} is not as it was made{shown}{consequence}"]


def _meta_defects(meta: list[dict[str, object]], ledger_id: str) -> list[str]:
    if len(meta) != 1:
        return [f"table ledger_meta holds {'two rows' if meta else 'no row'} instead of one"]
    (row,) = meta
    expected: dict[str, object] = {"only_row": True, "ledger_id": ledger_id, "format": FORMAT, "lowest_reader": FORMAT}
    return [
        f"table ledger_meta says {name} {row.get(name)!r} instead of {value!r}"
        for name, value in expected.items()
        if row.get(name) != value
    ]


def _view_defects(connection: LedgerConnection, schema: Identifier, found: dict[str, str], *, first: bool) -> list[str]:
    defects: list[str] = []
    for name, query in VIEWS.items():
        if f"view {name}" not in found:
            continue
        wanted: LiteralString = FIRST_EVENTS_VIEW if first and name == "lease_events" else query
        view = SQL("SELECT * FROM {}.{}").format(schema, Identifier(name))
        made_of = SQL("SELECT * FROM ({}) AS {}").format(SQL(wanted).format(schema=schema), Identifier(name))
        if _plan(connection, view) != _plan(connection, made_of):
            defects.append(f"the view {name} is not as it was made: it shows something else than the events")
    if first:
        nul = SQL("SELECT notification_id AS position FROM {}.stored_events WHERE state LIKE %s LIMIT 1")
        row = connection.execute(nul.format(schema), [_NUL]).fetchone()
        if row is not None:
            defects.append(
                f"the view lease_events, made by version 0.1.0, fails at position {row['position']}, where a text "
                "holds a NUL character; have the owner run 'lease-ledger init', which replaces the view"
            )
    return defects


def _plan(connection: LedgerConnection, query: Composable | Composed) -> object:
    """How the server would answer a query: the same for a view and the query that it stands for."""
    try:
        rows = connection.execute(SQL("EXPLAIN (VERBOSE, COSTS OFF, FORMAT JSON) {}").format(query)).fetchall()
    except psycopg.Error as error:
        if connection.closed:
            raise
        return f"{error.sqlstate}"
    return rows[0]["QUERY PLAN"][0]["Plan"]
