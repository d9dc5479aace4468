"""The SQLite file itself: append-only whoever writes to it, and clear words for every file that is no ledger."""

import os
import shutil
import sqlite3
import stat
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest
from eventsourcing.sqlite import SQLiteApplicationRecorder, SQLiteDatastore
from workers import Worker, WorkerFailed

from ledger.chain import event_digest, fold_digest
from ledger.errors import LedgerStorageError, NotALedger
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.recorders.base import NewEvent, StreamRow
from ledger.recorders.sqlite import SQLiteLeaseRecorder
from ledger.recorders.sqlite_connections import SQLiteConnections

KEY = LeaseKey.parse("dev:openai:work")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "auth.db"


def _open(path: Path) -> LeaseLedger:
    return LeaseLedger.open(f"sqlite:///{path}", actor="tester")


def _filled(path: Path, events: int = 3) -> None:
    with _open(path) as ledger:
        for expires_at in range(events):
            ledger.acquire_lease(KEY, expires_at)


@pytest.fixture(params=[False, True], ids=["as sqlite3 opens it", "recursive_triggers"])
def raw(request: pytest.FixtureRequest, path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of somebody who goes around the ledger."""
    _filled(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA recursive_triggers = {request.param}")
        yield connection


@pytest.mark.parametrize("far", [2**63 - 1, 2**63, 2**70])
def test_versions_and_positions_beyond_what_a_file_can_keep_are_beyond_its_end(path: Path, far: int) -> None:
    _filled(path)
    with _open(path) as ledger:
        assert ledger.state(KEY, far) == ledger.state(KEY)
        assert list(ledger.read(KEY, far)) == list(ledger.read_all(far)) == []
        assert list(ledger.read(KEY, -far)) == list(ledger.read_all(-far)) == list(ledger.read_all())


def test_the_table_of_events_is_the_storage_librarys_own_to_the_letter(path: Path) -> None:
    _filled(path)
    theirs = path.with_name("library.db")
    library = SQLiteApplicationRecorder(SQLiteDatastore(f"file:{theirs}", originator_id_type="text"))
    library.create_table()
    library.datastore.close()

    def stored(file: Path) -> list[tuple[str, ...]]:
        with closing(sqlite3.connect(file)) as connection:
            query = "SELECT type, name, sql FROM sqlite_schema WHERE tbl_name = 'stored_events' AND type <> 'trigger'"
            return connection.execute(query).fetchall()

    assert stored(path) == stored(theirs)


ROW = "(rowid, originator_id, originator_version, topic, state)"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE stored_events SET state = '{}'",
        "UPDATE stored_events SET originator_version = 9 WHERE rowid = 3",
        "UPDATE stored_events SET rowid = 9 WHERE rowid = 3",
        "UPDATE OR REPLACE stored_events SET originator_version = 1 WHERE rowid = 3",
        "DELETE FROM stored_events",
        "DELETE FROM stored_events WHERE rowid = 3",
        f"REPLACE INTO stored_events {ROW} VALUES (3, 'dev:openai:work', 3, 'x', '{{}}')",
        f"REPLACE INTO stored_events {ROW} VALUES (3, 'dev:openai:work', 4, 'x', '{{}}')",
        f"REPLACE INTO stored_events {ROW} VALUES (1, 'dev:new', 1, 'x', '{{}}')",
        f"INSERT OR REPLACE INTO stored_events {ROW} VALUES (4, 'dev:openai:work', 1, 'x', '{{}}')",
        f"INSERT INTO stored_events {ROW} VALUES (2, 'dev:new', 1, 'x', '{{}}')",
        f"INSERT INTO stored_events {ROW} VALUES (5, 'dev:new', 1, 'x', '{{}}')",
        f"INSERT INTO stored_events {ROW} VALUES (0, 'dev:new', 1, 'x', '{{}}')",
        f"INSERT INTO stored_events {ROW} VALUES (-1, 'dev:new', 1, 'x', '{{}}')",
        f"INSERT INTO stored_events {ROW} VALUES (NULL, 'dev:openai:work', 5, 'x', '{{}}')",
        f"INSERT INTO stored_events {ROW} VALUES (NULL, 'dev:openai:work', 2, 'x', '{{}}')",
        f"INSERT INTO stored_events {ROW} VALUES (NULL, 'dev:new', 2, 'x', '{{}}')",
        f"INSERT INTO stored_events {ROW} VALUES (NULL, 'dev:new', 0, 'x', '{{}}')",
        f"INSERT INTO stored_events {ROW} VALUES (NULL, 'dev:new', NULL, 'x', '{{}}')",
        f"INSERT INTO stored_events {ROW} VALUES (NULL, 'dev:new', 'one', 'x', '{{}}')",
        f"INSERT INTO stored_events {ROW} VALUES (NULL, NULL, 2, 'x', '{{}}')",
        f"INSERT INTO stored_events {ROW} SELECT NULL, 'dev:new', column1, 'x', '{{}}' FROM (VALUES (1), (3))",
        "INSERT INTO stored_events VALUES ('dev:openai:work', 3, 'x', '{}') "
        "ON CONFLICT DO UPDATE SET state = excluded.state",
        "UPDATE ledger_meta SET ledger_id = 'other'",
        "UPDATE ledger_meta SET lowest_reader = 0",
        "DELETE FROM ledger_meta",
    ],
)
def test_the_file_itself_refuses_to_change_what_is_recorded(
    raw: sqlite3.Connection, path: Path, statement: str
) -> None:
    before = raw.execute("SELECT rowid, * FROM stored_events").fetchall()
    with pytest.raises(sqlite3.IntegrityError, match=r"append-only|keeps its identity"):
        raw.execute(statement)
    assert raw.execute("SELECT rowid, * FROM stored_events").fetchall() == before
    with _open(path) as ledger:
        assert ledger.verify().ok
        assert ledger.acquire_lease(KEY, 9).generation == 4


def test_the_file_takes_the_next_event_from_anybody(raw: sqlite3.Connection) -> None:
    raw.execute("INSERT INTO stored_events VALUES ('dev:openai:work', 4, 'x', '{}'), ('dev:new', 1, 'x', '{}')")
    assert raw.execute("SELECT MAX(rowid) FROM stored_events").fetchone() == (5,)


def test_plain_sql_reads_the_history_well(raw: sqlite3.Connection) -> None:
    rows = raw.execute("SELECT lease_key, version, tag, actor FROM lease_events ORDER BY position").fetchall()
    assert rows == [("dev:openai:work", version, "lease.acquired", "tester") for version in (1, 2, 3)]


# Files that are no ledger


def _unchanged_after_refusal(path: Path, words: str) -> None:
    before = path.read_bytes()
    with pytest.raises(NotALedger, match=words) as refused:
        _open(path)
    assert str(path) in str(refused.value)
    assert path.read_bytes() == before


def test_another_programs_database_is_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE cookies (name TEXT)")
        connection.commit()
    _unchanged_after_refusal(path, "holds no lease ledger")


@pytest.mark.parametrize("content", [b"[section]\nname = value\n" * 100, b"\x00" * 4096, b"SQLite format 3\x00"])
def test_a_file_that_is_no_database_is_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    _unchanged_after_refusal(path, "no SQLite database")


def test_a_ledger_that_only_a_newer_version_may_read_is_left_alone(path: Path) -> None:
    _filled(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TRIGGER ledger_meta_no_update")
        connection.execute("UPDATE ledger_meta SET format = 9, lowest_reader = 8")
        connection.commit()
    _unchanged_after_refusal(path, "needs reader version 8, and this is version 1; upgrade")


def test_a_newer_format_that_still_lets_us_read_is_opened(path: Path) -> None:
    _filled(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TRIGGER ledger_meta_no_update")
        connection.execute("UPDATE ledger_meta SET format = 9")
        connection.commit()
    with _open(path) as ledger:
        assert ledger.snapshot(KEY).generation == 3


def test_an_empty_file_becomes_a_ledger(path: Path) -> None:
    path.touch()
    _filled(path)
    with _open(path) as ledger:
        assert ledger.verify().ok


def test_a_folder_is_no_ledger(tmp_path: Path) -> None:
    with pytest.raises(LedgerStorageError, match="cannot be opened"):
        _open(tmp_path)


def test_a_missing_folder_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(LedgerStorageError, match="check that its folder exists"):
        _open(tmp_path / "missing" / "auth.db")
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("name", ["a b.db", "100%41.db", "why?.db", "#1.db", "größe.db", "a&mode=memory.db"])
def test_every_file_name_can_be_a_ledgers(tmp_path: Path, name: str) -> None:
    url = f"sqlite:///{tmp_path}/{quote(name)}"
    with LeaseLedger.open(url) as ledger:
        ledger.acquire_lease(KEY, 500)
    assert (tmp_path / name).stat().st_size > 0


# Damage


def _damage(path: Path, page: int) -> None:
    with path.open("r+b") as file:
        file.seek(page * 4096)
        file.write(b"\xa5" * 4096)


def test_a_damaged_page_never_reads_as_an_answer(path: Path) -> None:
    """Whatever page is struck: an error that says so, or the same answer; and verify never says all is well."""
    with _open(path) as ledger:
        for number in range(200):
            ledger.acquire_lease(KEY, number)
        snapshot, events = ledger.snapshot(KEY), list(ledger.read_all())
    intact = path.read_bytes()
    for page in range(1, len(intact) // 4096):
        path.write_bytes(intact)
        _damage(path, page)
        assert _outcome(path, lambda ledger: ledger.snapshot(KEY)) in (snapshot, "error")
        assert _outcome(path, lambda ledger: list(ledger.read_all())) in (events, "error")
        assert _outcome(path, lambda ledger: ledger.verify().ok) in (False, "error")


def _outcome(path: Path, question: object) -> object:
    assert callable(question)
    try:
        with _open(path) as ledger:
            return question(ledger)
    except LedgerStorageError as error:
        assert "damaged" in str(error)
        return "error"


def test_a_file_cut_short_is_damaged(path: Path) -> None:
    _filled(path, 200)
    path.write_bytes(path.read_bytes()[: 5 * 4096])
    assert _outcome(path, lambda ledger: ledger.verify().ok) in (False, "error")


# Permissions


@pytest.fixture
def readable_by_all() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="lease-ledger-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can act as another user")
def test_another_user_who_may_only_read_is_told_so(readable_by_all: Path) -> None:
    path = readable_by_all / "auth.db"
    _filled(path)
    path.chmod(0o644)
    worker = Worker()
    worker.do("become", uid=65_534)
    with pytest.raises(WorkerFailed) as failed:
        worker.do("open", url=f"sqlite:///{path}")
        worker.do("acquire", key=str(KEY))
    worker.close()
    assert failed.value.args[0] == "LedgerStorageError"
    assert "permission" in failed.value.args[1] or "may be written" in failed.value.args[1]
    with _open(path) as ledger:
        assert ledger.snapshot(KEY).generation == 3


def test_a_new_ledger_is_for_its_owner_alone(path: Path) -> None:
    _filled(path)
    assert stat.S_IMODE(path.stat().st_mode) & 0o022 == 0


# Stored folds


def _raw_change(path: Path, statement: str) -> int:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(statement).rowcount


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM stored_folds",
        "DELETE FROM stored_folds WHERE version > 32",
    ],
)
def test_without_its_stored_folds_a_ledger_answers_the_same(path: Path, change: str) -> None:
    _filled(path, 100)
    with _open(path) as ledger:
        snapshot, states = ledger.snapshot(KEY), [ledger.state(KEY, version) for version in range(101)]
    assert _raw_change(path, change) > 0
    with _open(path) as ledger:
        assert ledger.snapshot(KEY) == snapshot
        assert [ledger.state(KEY, version) for version in range(101)] == states
        assert ledger.verify().ok
        ledger.acquire_lease(KEY, 9)
        assert ledger.verify().ok


def test_a_fold_by_a_version_that_knew_no_way_of_ending_is_void(path: Path) -> None:
    _filled(path, 30)
    with _open(path) as ledger:
        ledger.begin_refresh(KEY)
        ledger.refresh_failed(KEY, False, ended="not_sent")
        state, ledger_id = ledger.state(KEY), ledger.ledger_id
        ((version, fold),) = [(fold.version, fold) for _, fold in ledger.recorder.stored_folds()]
        (row,) = ledger.recorder.rows(str(KEY), version - 1, version)
    assert state.last_failure is not None and state.last_failure.ended == "not_sent"
    older = fold.state.replace(b',"ended":"not_sent"', b"")
    digest = fold_digest(event_digest(ledger_id, str(KEY), version, row.tag, row.body), older)
    assert older != fold.state
    assert _raw_change(path, f"UPDATE stored_folds SET fold = 1, state = '{older.decode()}', digest = '{digest}'") == 1
    with _open(path) as ledger:
        assert ledger.state(KEY) == ledger.state(KEY, version) == state
        assert ledger.verify().ok


@pytest.mark.parametrize("fold", [0, 99])
def test_folds_of_fold_code_unknown_here_are_named_and_not_used(path: Path, fold: int) -> None:
    _filled(path, 100)
    with _open(path) as ledger:
        states = [ledger.state(KEY, version) for version in range(101)]
    assert _raw_change(path, f"UPDATE stored_folds SET fold = {fold}") == 3
    with _open(path) as ledger:
        assert [ledger.state(KEY, version) for version in range(101)] == states
        assert [(f.witness, f.version) for f in ledger.verify().findings] == [("fold", v) for v in (32, 64, 96)]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE stored_folds SET state = '{\"version\":96}' WHERE version = 96",
        "UPDATE stored_folds SET state = 'no json' WHERE version = 96",
        "UPDATE stored_folds SET state = x'ff' WHERE version = 96",
        "UPDATE stored_folds SET digest = 'other' WHERE version = 96",
        "UPDATE stored_folds SET state = json_set(state, '$.generation', 12345) WHERE version = 96",
    ],
)
def test_a_stored_fold_that_was_tampered_with_is_named(path: Path, change: str) -> None:
    _filled(path, 100)
    assert _raw_change(path, change) == 1
    with _open(path) as ledger:
        (finding,) = ledger.verify().findings
    assert (finding.witness, finding.key, finding.version) == ("fold", str(KEY), 96)


def test_a_stored_fold_of_an_event_that_is_not_there_is_named(path: Path) -> None:
    _filled(path, 40)
    assert _raw_change(path, "UPDATE stored_folds SET version = 64, digest = 'x'") == 1
    with _open(path) as ledger:
        (finding,) = ledger.verify().findings
        assert (finding.witness, "version 64" in finding.detail) == ("fold", True)
        assert ledger.snapshot(KEY).generation == 40


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE stored_folds SET state = 'no json'",
        "UPDATE stored_folds SET state = x'ff'",
        "UPDATE stored_folds SET state = json_set(state, '$.generation', 12345)",
        "UPDATE stored_folds SET digest = 'other'",
        "UPDATE stored_folds SET version = version + 1",
    ],
)
def test_a_stored_fold_that_was_tampered_with_changes_no_answer(path: Path, change: str) -> None:
    _filled(path, 100)
    with _open(path) as ledger:
        snapshot, states = ledger.snapshot(KEY), [ledger.state(KEY, version) for version in range(101)]
    assert _raw_change(path, change) == 3
    with _open(path) as ledger:
        assert ledger.snapshot(KEY) == snapshot
        assert [ledger.state(KEY, version) for version in range(101)] == states
        assert ledger.acquire_lease(KEY, 9).generation == 101


# Reading while another thread writes


def test_a_reader_never_waits_for_a_commit_that_is_under_way(path: Path) -> None:
    """The writing thread stands still in the middle of its transaction; snapshots go on, and see it once it is done."""
    with _open(path) as ledger, ThreadPoolExecutor(1) as pool:
        ledger.acquire_lease(KEY, 500)
        begun, go_on = threading.Event(), threading.Event()

        def build(rows: Sequence[StreamRow]) -> NewEvent:
            begun.set()
            assert go_on.wait(10)
            return NewEvent("dev:other", 1, "lease.released", b"{}")

        writing = pool.submit(ledger.recorder.append_exclusively, "dev:other", 0, build)
        assert begun.wait(10)
        assert ledger.snapshot(KEY).generation == 1
        assert ledger.recorder.rows("dev:other") == []
        go_on.set()
        assert writing.result() == 2
        assert ledger.recorder.last_version("dev:other") == 1
        assert ledger.snapshot(KEY).generation == 1
        assert ledger.acquire_lease(KEY, 600).generation == 2


def test_a_file_that_goes_while_it_is_opened_is_a_storage_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[SQLiteConnections] = []
    opened = SQLiteLeaseRecorder._open

    def gone(self: SQLiteLeaseRecorder, new_ledger_id: str) -> str:
        ledger_id = opened(self, new_ledger_id)
        path.unlink()
        return ledger_id

    def close(self: SQLiteConnections) -> None:
        closed.append(self)

    monkeypatch.setattr(SQLiteLeaseRecorder, "_open", gone)
    monkeypatch.setattr(SQLiteConnections, "close", close)
    with pytest.raises(LedgerStorageError, match="No such file"):
        _open(path)
    assert len(closed) == 1


def test_an_actor_that_no_event_can_name_leaves_no_ledger(path: Path) -> None:
    with pytest.raises(ValueError, match="actor"):
        LeaseLedger.open(f"sqlite:///{path}", actor="a\0b")
    assert not path.exists()
