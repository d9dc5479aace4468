"""Whatever is changed in the schema below the ledger is named by ``verify``; a swallowed append is not acknowledged."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from eventsourcing.persistence import StoredEvent
from pgserver import admin, fresh_schema, server_of_its_own

from ledger.errors import LedgerStorageError, NotALedger
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.recorders.base import NewEvent, StoredFold
from ledger.recorders.postgres_defects import schema_defects

KEY = LeaseKey.parse("dev:openai:work")
TABLES = ("ledger_meta", "stored_events", "stored_folds")
SQLConnection = psycopg.Connection[tuple[object, ...]]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return fresh_schema(tmp_path)


@pytest.fixture
def ledger(url: str) -> Iterator[LeaseLedger]:
    with LeaseLedger.open(url) as opened:
        for number in range(40):
            opened.acquire_lease(KEY, number, cause=f"login {number}")
        yield opened


@pytest.fixture
def sql(ledger: LeaseLedger, url: str) -> Iterator[SQLConnection]:
    with admin(url) as connection:
        connection.execute(f"SET search_path = {url.rpartition('=')[2]}".encode())
        yield connection


def _storage_findings(ledger: LeaseLedger) -> list[str]:
    return [finding.detail for finding in ledger.verify().findings if finding.witness == "storage"]


def _texts(row: tuple[object, ...]) -> tuple[str, ...]:
    return tuple(map(str, row))


def _column_changes(sql: SQLConnection) -> Iterator[tuple[str, str]]:
    columns = """
        SELECT c.relname, a.attname, a.atttypid::regtype::text FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        WHERE c.relnamespace = current_schema::regnamespace AND c.relkind = 'r' AND a.attnum > 0"""
    for table, column, kind in map(_texts, sql.execute(columns)):
        alter = f"ALTER TABLE {table} "
        name = f"column {table}.{column}"
        views = "DROP VIEW lease_events, stored_events_as_bytes; "
        wider = {"text": "varchar", "integer": "bigint", "bigint": "numeric"}.get(kind)
        if wider:
            yield f"{name} ", f"{views}{alter} ALTER {column} TYPE {wider}"
        if kind == "text":
            yield f"{name} ", f'{views}{alter} ALTER {column} TYPE text COLLATE "POSIX"'
        yield f"{name} is missing", f"{views}{alter} DROP {column}"
        yield f"{name} is missing", f"{alter} RENAME {column} TO other"
        default = {"text": "''", "boolean": "false"}.get(kind, "0")
        yield f"{name} ", f"{alter} ALTER {column} SET DEFAULT {default}"


def _object_changes(sql: SQLConnection) -> Iterator[tuple[str, str]]:
    for table in TABLES:
        yield f"column {table}.more is not of this ledger", f"ALTER TABLE {table} ADD more text"
        yield f"table {table} ", f"ALTER TABLE {table} SET UNLOGGED"
        yield f"table {table} ", f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"
        yield "policy hiding is not", f"CREATE POLICY hiding ON {table} USING (false)"
        yield "heir is not", f"CREATE TABLE heir () INHERITS ({table})"
        yield "rule swallow is not", f"CREATE RULE swallow AS ON INSERT TO {table} DO INSTEAD NOTHING"
        yield "rule swallow is not", f"CREATE RULE swallow AS ON DELETE TO {table} WHERE false DO INSTEAD NOTHING"
        yield "index narrow is not", f"CREATE UNIQUE INDEX narrow ON {table} ((1)) WHERE false"
        yield f"constraint {table}.narrow is not", f"ALTER TABLE {table} ADD CONSTRAINT narrow CHECK (true) NOT VALID"
    for trigger, table in map(_texts, sql.execute("SELECT tgname, tgrelid::regclass::text FROM pg_trigger " + _OURS)):
        name = f"guard trigger {trigger} "
        for how in ("DISABLE", "ENABLE", "ENABLE REPLICA"):
            yield name, f"ALTER TABLE {table} {how} TRIGGER {trigger}"
        yield f"{name}is missing", f"DROP TRIGGER {trigger} ON {table}"
        again = f"DROP TRIGGER {trigger} ON {table}; CREATE TRIGGER {trigger}"
        yield name, f"{again} AFTER INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        yield (
            f"trigger {trigger}2 is not",
            f"CREATE TRIGGER {trigger}2 BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION next_event()",
        )
    for function, arguments in (("next_event()", "trigger"), ("refuse_change()", "trigger")):
        bare = function[:-2]
        create = f"CREATE OR REPLACE FUNCTION {function} RETURNS {arguments} LANGUAGE plpgsql"
        yield f"function {bare} ", f"{create} AS 'BEGIN RETURN NULL; END'"
        yield f"function {bare} ", f"ALTER FUNCTION {function} SET search_path = elsewhere"
        yield f"function {bare} ", f"ALTER FUNCTION {function} SECURITY DEFINER"
    yield "function event_fields ", "ALTER FUNCTION event_fields SET search_path = elsewhere"
    constraints = "SELECT conrelid::regclass::text, conname FROM pg_constraint WHERE connamespace = current_schema"
    for table, constraint in map(_texts, sql.execute(f"{constraints}::regnamespace AND contype <> 'n'")):
        yield f"constraint {table}.{constraint} is missing", f"ALTER TABLE {table} DROP CONSTRAINT {constraint}"
    indexes = "SELECT indexname FROM pg_indexes WHERE schemaname = current_schema"
    for (index,) in sql.execute(indexes).fetchall():
        invalid = f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{index}'::regclass"
        yield f"index {index} is not as it was made", invalid
    for view in ("lease_events", "stored_events_as_bytes"):
        yield f"view {view} is missing", f"DROP VIEW {view}"
        for change in ("WHERE false", "LIMIT 1", "ORDER BY 1"):
            text = f"(SELECT rtrim(pg_get_viewdef('{view}'::regclass), ';'))"
            yield (
                f"view {view} is not as it was made",
                f"DO $$ BEGIN EXECUTE 'CREATE OR REPLACE VIEW {view} AS ' || {text} || ' {change}'; END $$",
            )
        yield f"view {view} ", f"ALTER VIEW {view} SET (security_barrier = true)"
    yield (
        "lease_events is not as it was made",
        (
            "DO $$ BEGIN EXECUTE 'CREATE OR REPLACE VIEW lease_events AS ' || "
            "replace(pg_get_viewdef('lease_events'::regclass), '(f.fields).cause', '(f.fields).actor'); END $$"
        ),
    )
    yield (
        "ledger_meta holds two rows",
        (
            "ALTER TABLE ledger_meta DROP CONSTRAINT ledger_meta_pkey, DROP CONSTRAINT ledger_meta_only_row_check;"
            "INSERT INTO ledger_meta VALUES (true, 'other', 1, 1)"
        ),
    )
    yield "ledger_meta holds no row", "ALTER TABLE ledger_meta DISABLE TRIGGER USER; DELETE FROM ledger_meta"
    for column, value in (("ledger_id", "'other'"), ("format", "0"), ("format", "2"), ("lowest_reader", "0")):
        update = f"UPDATE ledger_meta SET {column} = {value}"
        yield (
            f"ledger_meta says {column}",
            f"ALTER TABLE ledger_meta DISABLE TRIGGER USER; {update}".replace("says format 2", "says format"),
        )


_OURS = "WHERE tgrelid IN (SELECT oid FROM pg_class WHERE relnamespace = current_schema::regnamespace)"


def test_every_object_that_was_changed_is_named(ledger: LeaseLedger, sql: SQLConnection) -> None:
    recorder = ledger.recorder
    assert recorder.defects() == []
    tried = 0
    with recorder._connections.borrow() as connection:  # type: ignore[attr-defined]
        for said, statement in [*_column_changes(sql), *_object_changes(sql)]:
            connection.execute("BEGIN")
            connection.execute(f"SET LOCAL search_path = {recorder.address.schema}")  # type: ignore[attr-defined]
            connection.execute(statement, prepare=False)
            connection.execute("SET LOCAL search_path = pg_catalog")
            found = schema_defects(connection, recorder.address, ledger.ledger_id)  # type: ignore[attr-defined]
            connection.execute("ROLLBACK")
            assert any(said in defect for defect in found), (said, statement, found)
            assert all("\n" not in defect for defect in found)
            tried += 1
    assert tried > 120
    assert recorder.defects() == []
    assert ledger.verify().ok


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("stored_events", "originator_id", "'dev:other'"),
        ("stored_events", "originator_version", "99"),
        ("stored_events", "topic", "'lease.released'"),
        ("stored_events", "state", "replace(state, 'login 7', 'login 8')"),
        ("stored_events", "notification_id", "99"),
        ("stored_folds", "stream", "'dev:other'"),
        ("stored_folds", "version", "7"),
        ("stored_folds", "digest", "md5(digest)"),
        ("stored_folds", "state", "replace(state, '1', '2')"),
        ("ledger_meta", "ledger_id", "'another'"),
        ("ledger_meta", "format", "3"),
        ("ledger_meta", "lowest_reader", "0"),
    ],
)
def test_a_value_that_was_changed_is_found(
    ledger: LeaseLedger, sql: SQLConnection, table: str, column: str, value: str
) -> None:
    where = "WHERE originator_version = 8" if table == "stored_events" else ""
    with sql.transaction():
        sql.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER".encode())
        changed = sql.execute(f"UPDATE {table} SET {column} = {value} {where}".encode())
        assert changed.rowcount == 1
        for (trigger,) in sql.execute("SELECT tgname FROM pg_trigger WHERE tgrelid = %s::regclass", [table]).fetchall():
            sql.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger}".encode())
    findings = ledger.verify().findings
    assert findings
    assert all("switched off" not in finding.detail for finding in findings)


@pytest.mark.parametrize("column", ["topic", "state"])
def test_a_column_without_a_value_is_a_finding(ledger: LeaseLedger, sql: SQLConnection, column: str) -> None:
    sql.execute(f"ALTER TABLE stored_events ALTER {column} DROP NOT NULL, DISABLE TRIGGER USER".encode())
    sql.execute(f"UPDATE stored_events SET {column} = NULL WHERE originator_version = 8".encode())
    findings = ledger.verify().findings
    assert any(f"stored_events.{column}" in finding.detail for finding in findings)
    assert any(finding.version == 8 for finding in findings)


@pytest.mark.parametrize("rows", ["", "(true, 'one', 1, 1), (true, 'two', 1, 1)"])
def test_a_ledger_without_one_identity_is_not_opened(url: str, sql: SQLConnection, rows: str) -> None:
    sql.execute("ALTER TABLE ledger_meta DISABLE TRIGGER USER, DROP CONSTRAINT ledger_meta_pkey")
    sql.execute("DELETE FROM ledger_meta")
    if rows:
        sql.execute(f"INSERT INTO ledger_meta VALUES {rows}".encode())
    with pytest.raises(NotALedger, match="does not say which ledger"):
        LeaseLedger.open(url)


_TRIGGER = """
    CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {} END$$;
    CREATE TRIGGER zz_meddle {} ON stored_events FOR EACH ROW EXECUTE FUNCTION meddle()"""
_BIN = """
    CREATE TABLE bin (LIKE stored_events);
    CREATE RULE swallow AS ON INSERT TO stored_events {} DO INSTEAD
        INSERT INTO bin SELECT NEW.originator_id, NEW.originator_version, NEW.topic, NEW.state, 41
        RETURNING originator_id, originator_version, topic, state, notification_id"""


@pytest.mark.parametrize(
    "meddling",
    [
        _TRIGGER.format("RETURN NULL;", "BEFORE INSERT"),
        _TRIGGER.format("NEW.state := replace(NEW.state, 'me', 'you'); RETURN NEW;", "BEFORE INSERT"),
        _TRIGGER.format("NEW.topic := 'lease.released'; RETURN NEW;", "BEFORE INSERT"),
        "ALTER TABLE stored_events DISABLE TRIGGER stored_events_keep;"
        + _TRIGGER.format("DELETE FROM stored_events e WHERE e.state = NEW.state; RETURN NULL;", "AFTER INSERT"),
        "ALTER TABLE stored_events DISABLE TRIGGER stored_events_keep;"
        + _TRIGGER.format(
            "UPDATE stored_events SET state = '{}' WHERE state = NEW.state; RETURN NULL;", "AFTER INSERT"
        ),
        "CREATE RULE swallow AS ON INSERT TO stored_events DO INSTEAD NOTHING",
        "CREATE RULE swallow AS ON INSERT TO stored_events WHERE NEW.topic <> 'x' DO INSTEAD NOTHING",
        _BIN.format(""),
    ],
    ids=["returns null", "other state", "other tag", "deletes", "updates", "rule", "rule where", "rule elsewhere"],
)
@pytest.mark.parametrize("way", ["append", "append exclusively", "append with fold", "insert"])
def test_an_event_that_the_database_swallows_is_not_acknowledged(
    ledger: LeaseLedger, sql: SQLConnection, meddling: str, way: str
) -> None:
    recorder = ledger.recorder
    event = NewEvent(str(KEY), 41, "lease.expiring", b'{"id":"me"}')
    sql.execute(meddling.encode())
    with pytest.raises(LedgerStorageError) as refused:
        match way:
            case "append":
                recorder.append(event)
            case "append with fold":
                recorder.append(event._replace(fold=StoredFold(41, 1, "d", b"{}")))
            case "append exclusively":
                recorder.append_exclusively(str(KEY), 40, lambda _: event)
            case _:
                recorder.insert_events([StoredEvent(event.stream, event.version, event.tag, event.body)])
    assert "\n" not in str(refused.value)
    assert any("meddle" in detail or "swallow" in detail for detail in _storage_findings(ledger))


def test_a_trigger_that_leaves_events_alone_stops_nobody(ledger: LeaseLedger, sql: SQLConnection) -> None:
    sql.execute(_TRIGGER.format("NOTIFY others; RETURN NULL;", "AFTER INSERT"))
    assert ledger.acquire_lease(KEY, 500).generation == 41
    ledger.recorder.append_exclusively(str(KEY), 41, lambda _: NewEvent(str(KEY), 42, "t", b"{}"))
    assert ledger.recorder.last_position() == 42


@pytest.mark.parametrize("index", ["stored_events_pkey", "stored_events_notification_id_key", "stored_folds_pkey"])
def test_an_index_that_misses_a_row_of_its_table_is_found(ledger: LeaseLedger, sql: SQLConnection, index: str) -> None:
    ready = f"UPDATE pg_index SET indisready = %s WHERE indexrelid = '{index}'::regclass"
    sql.execute(ready.encode(), [False])
    if index == "stored_folds_pkey":
        sql.execute("INSERT INTO stored_folds SELECT 'dev:a', 1, fold, digest, state FROM stored_folds LIMIT 1")
    else:
        sql.execute("INSERT INTO stored_events VALUES ('dev:a', 1, 't', '{}')")
    sql.execute(ready.encode(), [True])
    (detail,) = _storage_findings(ledger)
    assert index in detail and "instead of" in detail
    sql.execute(f"REINDEX INDEX {index}".encode())
    assert ledger.recorder.defects() == []


def test_an_index_that_cannot_be_read_is_a_finding() -> None:
    with server_of_its_own(durable=False) as server, LeaseLedger.open(server.url) as ledger:
        ledger.acquire_lease(KEY, 500)
        with admin(server.url) as sql:
            sql.execute("CHECKPOINT")
            ((path,),) = sql.execute("SELECT pg_relation_filepath('lease_ledger.stored_events_pkey')").fetchall()
        server.stop()
        with (server.folder / "data" / str(path)).open("r+b") as file:
            file.seek(8192 + 8000)
            file.write(b"\x55" * 64)
        server.start()
        findings = ledger.verify().findings
        assert any("stored_events_pkey cannot be read" in finding.detail for finding in findings)
