"""``sql``: every value of a row, numbers as numbers, an end on time, and nothing but reading."""

import contextlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from projections.audit import AuditLog
from projections.cli import sql_commands
from projections.cli.app import lease_ledger
from projections.cli.sql_values import bound_value
from projections.sql_limits import QuestionRefused, QuestionTooLong, kept_apart

KEY = LeaseKey.parse("dev:openai:work")
ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"

Sql = Callable[..., Result]


@pytest.fixture
def sql(tmp_path: Path) -> Sql:
    """Asks a ledger of two events."""
    with LeaseLedger.open(f"sqlite:///{tmp_path}/auth.db?synchronous=normal") as ledger:
        ledger.acquire_lease(KEY, 5, correlation_id="17")
        ledger.release_lease(KEY)
    return lambda *words: CliRunner().invoke(lease_ledger, ["--db", str(tmp_path / "auth.db"), "sql", *words])


@pytest.fixture
def audit(tmp_path: Path) -> Any:
    with LeaseLedger.open(f"sqlite:///{tmp_path}/auth.db?synchronous=normal") as ledger, AuditLog.open(ledger) as audit:
        ledger.acquire_lease(KEY, 5)
        yield audit


def _rows(result: Result) -> list[Any]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_columns_of_one_name_are_kept_apart_in_every_form(sql: Sql, audit: AuditLog) -> None:
    question = "SELECT 1 AS a, 2 AS a, 3 AS a_2, 4 AS a"
    assert _rows(sql(question, "--json")) == [{"a": 1, "a_3": 2, "a_2": 3, "a_4": 4}]
    assert sql(question).stdout.split() == ["a", "a_3", "a_2", "a_4", "1", "2", "3", "4"]
    assert audit.query(question) == [{"a": 1, "a_3": 2, "a_2": 3, "a_4": 4}]
    (joined,) = audit.query("SELECT e.key, l.key, e.version, l.version FROM events e JOIN leases l USING (version)")
    assert list(joined) == ["key", "key_2", "version", "version_2"]


def test_names_kept_apart_are_as_many_as_were_given() -> None:
    for names in (["a"] * 5, ["a", "a_2", "a", "a_2"], ["", "", ""], ["a_2", "a", "a"]):
        apart = kept_apart(names)
        assert len(apart) == len(set(apart)) == len(names)
        assert apart[0] == names[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("0", 0),
        ("-1", -1),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
        ("9223372036854775808", "9223372036854775808"),
        ("1.5", 1.5),
        ("-2.50", -2.5),
        ("1e3", 1000.0),
        ("1e999", "1e999"),
        ("007", "007"),
        ("-0", "-0"),
        ("+1", "+1"),
        ("1_000", "1_000"),
        ("٣", "٣"),
        (" 1", " 1"),
        ("nan", "nan"),
        ("inf", "inf"),
        ("", ""),
        ("dev:openai", "dev:openai"),
        ("'17'", "17"),
        ("''", ""),
        ("'it''s'", "it's"),
        ("'it's'", "'it's'"),
        ("'", "'"),
    ],
)
def test_a_value_is_a_number_when_it_is_written_like_one(text: str, value: object) -> None:
    assert (bound_value(text), type(bound_value(text))) == (value, type(value))


def test_values_are_bound_by_what_they_are(sql: Sql) -> None:
    kinds = "SELECT typeof(?) AS a, typeof(?) AS b, typeof(?) AS c, typeof(?) AS d"
    assert _rows(sql(kinds, "1", "1.5", "'1'", "x", "--json")) == [
        {"a": "integer", "b": "real", "c": "text", "d": "text"}
    ]
    assert _rows(sql("SELECT ? + 1 AS n", "-3", "--json")) == [{"n": -2}]
    assert _rows(sql("SELECT 1 AS n WHERE 2 > ?", "1", "--json")) == [{"n": 1}]
    assert _rows(sql("SELECT count(*) AS n FROM events WHERE version = ?", "2", "--json")) == [{"n": 1}]
    assert _rows(sql("SELECT count(*) AS n FROM events WHERE correlation_id = ?", "17", "--json")) == [{"n": 1}]


def test_a_question_ends_when_its_time_is_over(sql: Sql, audit: AuditLog) -> None:
    result = sql(ENDLESS, "--timeout", "0.1", "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert json.loads(result.stderr)["error"]["code"] == "question_too_long"
    assert "--timeout" in sql(ENDLESS, "--timeout", "0.1").stderr
    with pytest.raises(QuestionTooLong):
        audit.query(ENDLESS, timeout_s=0.1)
    assert audit.query("SELECT 1 AS a", timeout_s=60) == [{"a": 1}]


def test_time_that_the_reader_takes_does_not_count(audit: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("projections.sql_limits.time.monotonic", lambda: now[0])
    with audit.asking("SELECT 1 UNION SELECT 2 UNION SELECT 3", timeout_s=5) as answer:
        for _ in answer.rows:
            now[0] += 100


def test_a_question_asked_outside_the_main_thread_ends_in_time_too(audit: AuditLog) -> None:
    raised: list[BaseException] = []

    def ask() -> None:
        try:
            audit.query(ENDLESS, timeout_s=0.1)
        except QuestionTooLong as error:
            raised.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(60)
    assert len(raised) == 1


@pytest.mark.parametrize(
    "question",
    [
        "DELETE FROM events",
        "WITH m AS (SELECT 1) DELETE FROM events",
        "INSERT INTO leases SELECT * FROM leases",
        "CREATE TEMP TABLE x (a)",
        "ATTACH 'x.db' AS x",
        "DETACH main",
        "VACUUM INTO 'v.db'",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA query_only = OFF",
        "PRAGMA writable_schema = ON",
        "SELECT load_extension('x.so')",
        "SELECT fts3_tokenizer('simple')",
        "SELECT * FROM pragma_database_list",
        "BEGIN",
        "COMMIT",
        "SAVEPOINT s",
        "REINDEX",
        "ANALYZE",
        "",
        "  ",
        "-- nothing",
        "SELECT 1; SELECT 2",
        "SELECT ?",
        "SELECT zeroblob(100000000)",
        "SELECT CAST(x'ff' AS TEXT)",
        "SELECT '\ud83d'",
        "SELECT 'a\0b'",
    ],
)
def test_what_does_more_than_read_or_asks_for_too_much_is_refused(
    question: str, audit: AuditLog, tmp_path: Path
) -> None:
    with pytest.raises(QuestionRefused, match="the question cannot be answered"):
        audit.query(question)
    assert audit.query("SELECT count(*) AS n FROM events") == [{"n": 1}]
    assert not (tmp_path / "x.db").exists() and not (tmp_path / "v.db").exists()


def test_the_file_can_be_written_again_after_a_question_of_any_end(audit: AuditLog) -> None:
    for question in ("SELECT 1", "SELEC 1", "DELETE FROM events"):
        with contextlib.suppress(QuestionRefused):
            audit.query(question)
        audit.ledger.acquire_lease(KEY, 6)
        assert audit.query("SELECT count(*) AS n FROM events") == [{"n": audit.ledger.recorder.last_position()}]
        audit.rebuild()


def test_a_long_answer_is_streamed_as_json_and_cut_with_a_word_as_a_table(
    sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 50) SELECT x FROM c"
    monkeypatch.setattr(sql_commands, "_MOST_ROWS", 20)
    table = sql(numbers)
    assert len(table.stdout.splitlines()) == 21
    assert "more than these 20 rows" in table.stderr
    assert len(_rows(sql(numbers, "--json"))) == 50
    monkeypatch.setattr(sql_commands, "_MOST_CHARACTERS", 10)
    assert len(sql(numbers).stdout.splitlines()) < 15
