"""A copy of a ledger is the same to the last byte, on any storage, or there is none."""

import itertools
import multiprocessing
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from old_texts import as_version_0_1_0_recorded
from pgserver import admin, fresh_schema

from ledger import copying
from ledger.copying import backup, copy
from ledger.errors import LedgerStorageError
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.recorders.base import LogRow, NewEvent

KEYS = [LeaseKey.parse(text) for text in ("dev:openai:work", "dev:anthropic", "prod:google")]
STORAGES: dict[str, Callable[[Path], str]] = {
    "sqlite": lambda folder: f"sqlite:///{folder}/ledger [1] 100%25.db",
    "postgres": fresh_schema,
}


def filled(url: str) -> LeaseLedger:
    times = itertools.count(1_000)
    ledger = LeaseLedger.open(url, clock=lambda: next(times), actor="tester ä")
    with as_version_0_1_0_recorded():
        for number in range(40):
            for key in KEYS[: 1 + number % 3]:
                ledger.acquire_lease(key, number, cause=f"login {number} \N{SNOWMAN} \x00 \\ \t")
    ledger.begin_refresh(KEYS[0])
    return ledger


@pytest.fixture(params=[*STORAGES, "memory"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LeaseLedger]:
    url = "memory://" if request.param == "memory" else STORAGES[request.param](tmp_path)
    with filled(url) as ledger:
        yield ledger


@pytest.fixture(params=STORAGES)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    (tmp_path / "target").mkdir()
    return STORAGES[request.param](tmp_path / "target")


def test_a_copy_has_the_same_id_positions_versions_bytes_and_chain(source: LeaseLedger, target: str) -> None:
    copied = copy(source, target)
    with LeaseLedger.open(target) as other:
        assert other.recorder.log(0, 10_000) == [LogRow._make(row) for row in source.recorder.log(0, 10_000)]
        assert other.ledger_id == source.ledger_id == copied.ledger_id
        assert other.verify(source.checkpoint()).findings == ()
        assert (copied.position, copied.digest) == (other.checkpoint().position, other.checkpoint().digest)
        for key in KEYS:
            assert other.state(key) == source.state(key)
        assert other.acquire_lease(KEYS[0], 900).generation == source.snapshot(KEYS[0]).generation + 1
        assert other.verify().ok


def test_a_copy_of_a_copy_in_the_other_storage_is_still_the_same(tmp_path: Path) -> None:
    with filled(f"sqlite:///{tmp_path}/first.db") as first:
        copy(first, fresh_schema(tmp_path))
        checkpoint = first.checkpoint()
    with LeaseLedger.open(fresh_schema(tmp_path)) as second:
        copy(second, f"sqlite:///{tmp_path}/third.db")
    with LeaseLedger.open(f"sqlite:///{tmp_path}/third.db") as third:
        assert third.checkpoint() == checkpoint


def test_an_empty_ledger_is_copied_too(target: str) -> None:
    with LeaseLedger.open("memory://") as empty:
        assert copy(empty, target).position == 0
        with LeaseLedger.open(target) as other:
            assert other.ledger_id == empty.ledger_id


def test_a_target_that_holds_anything_is_refused(source: LeaseLedger, target: str) -> None:
    with LeaseLedger.open(target) as other:
        other.acquire_lease(KEYS[0], 1)
        before = other.checkpoint()
    with pytest.raises(LedgerStorageError, match=r"exists already|holds a ledger already"):
        copy(source, target)
    with LeaseLedger.open(target) as other:
        assert other.checkpoint() == before


@pytest.mark.parametrize("url", ["memory://", "sqlite://", "mysql://host/db", "auth.db"])
def test_what_cannot_be_copied_to_is_said(url: str) -> None:
    with LeaseLedger.open("memory://") as source, pytest.raises(ValueError, match="is copied to"):
        copy(source, url)


def test_a_backup_is_a_file_of_its_own_with_nothing_beside_it(source: LeaseLedger, tmp_path: Path) -> None:
    (tmp_path / "backups").mkdir()
    made = backup(source, tmp_path / "backups" / "monday [1].db")
    assert [path.name for path in (tmp_path / "backups").iterdir()] == ["monday [1].db"]
    assert (made.position, made.digest) == (source.checkpoint().position, source.checkpoint().digest)
    with LeaseLedger.open(f"sqlite:///{tmp_path}/backups/monday [1].db") as other:
        assert other.verify(source.checkpoint()).findings == ()
        assert other.checkpoint() == source.checkpoint()


def test_a_backup_never_replaces_a_file(source: LeaseLedger, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(LedgerStorageError, match="exists already"):
        backup(source, tmp_path / "precious")
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_backup_into_a_missing_folder_says_so_and_leaves_nothing(source: LeaseLedger, tmp_path: Path) -> None:
    with pytest.raises(LedgerStorageError, match="folder"):
        backup(source, tmp_path / "missing" / "monday.db")


@pytest.mark.parametrize("storage", STORAGES)
def test_a_backup_taken_while_others_write_is_one_moment_of_the_ledger(storage: str, tmp_path: Path) -> None:
    url = STORAGES[storage](tmp_path)
    stop = threading.Event()

    def write() -> None:
        with LeaseLedger.open(url) as mine:
            while not stop.is_set():
                mine.acquire_lease(KEYS[0], 1)

    with filled(url) as source:
        writer = threading.Thread(target=write)
        writer.start()
        try:
            for number in range(5):
                made = backup(source, tmp_path / f"{number}.db")
                with LeaseLedger.open(f"sqlite:///{tmp_path}/{number}.db") as other:
                    checkpoint = other.checkpoint()
                    assert (checkpoint.position, checkpoint.digest) == (made.position, made.digest)
                    assert source.verify(checkpoint).findings == ()
        finally:
            stop.set()
            writer.join()


def test_a_copy_that_was_stored_wrongly_is_given_up(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with filled("memory://") as source:
        wrong = copying.Copied("other", 1, "digest")
        monkeypatch.setattr(copying, "_summary", lambda *_: wrong)
        with pytest.raises(LedgerStorageError, match="not what was read"):
            copy(source, target)
    with LeaseLedger.open(target) as other:
        assert other.recorder.last_position() == 0
        assert other.ledger_id != source.ledger_id


def test_a_source_with_a_gap_is_refused(tmp_path: Path, target: str) -> None:
    with filled(f"sqlite:///{tmp_path}/gap.db") as source:
        with sqlite3.connect(tmp_path / "gap.db") as connection:
            connection.execute("DROP TRIGGER stored_events_no_delete")
            connection.execute("DELETE FROM stored_events WHERE rowid = 10")
        connection.close()
        with pytest.raises(LedgerStorageError, match="gaps"):
            copy(source, target)


def _copy_slowly(source_url: str, target_url: str, underway: object) -> None:
    copying.PAGE = 10  # type: ignore[misc]
    with LeaseLedger.open(source_url) as source:

        def progress(done: int, _: int) -> None:
            if done >= 30:
                underway.set()  # type: ignore[attr-defined]
                time.sleep(60)

        copy(source, target_url, progress=progress)


def test_a_copy_that_is_killed_leaves_no_ledger(tmp_path: Path, target: str) -> None:
    url = f"sqlite:///{tmp_path}/source.db"
    filled(url).close()
    context = multiprocessing.get_context("fork")
    underway = context.Event()
    process = context.Process(target=_copy_slowly, args=(url, target, underway))
    process.start()
    assert underway.wait(30)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    if target.startswith("postgresql"):
        with admin(target) as connection:
            schema = target.rpartition("=")[2]
            deadline = time.monotonic() + 20
            while _sessions_in_transaction(connection) and time.monotonic() < deadline:
                time.sleep(0.02)
            assert connection.execute("SELECT to_regnamespace(%s)", [schema]).fetchone() == (None,)
    with LeaseLedger.open(url) as source:
        assert copy(source, target).digest == source.checkpoint().digest


def _sessions_in_transaction(connection: psycopg.Connection[tuple[object, ...]]) -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY %' AND state <> 'idle'"
    return connection.execute(query).fetchone() != (0,)


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    with LeaseLedger.open("memory://") as source:
        for version in range(1, 4_501):
            source.recorder.append(NewEvent("dev:a", version, "lease.released", b"{}"))
        copy(source, f"sqlite:///{tmp_path}/copy.db", progress=lambda done, all_: told.append((done, all_)))
    assert told == [(2_000, 4_500), (4_000, 4_500), (4_500, 4_500)]


def test_an_interrupted_copy_leaves_nothing_at_the_target(tmp_path: Path) -> None:
    url = fresh_schema(tmp_path)

    def interrupted(*_: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.3)

    with filled("memory://") as source, pytest.raises(KeyboardInterrupt):
        copy(source, url, progress=interrupted)
    with admin(url) as sql:
        assert sql.execute("SELECT to_regnamespace(%s)", [url.rpartition("=")[2]]).fetchone() == (None,)
    with filled("memory://") as source:
        assert copy(source, url).position == source.recorder.last_position()


@pytest.mark.parametrize("body", [b"\xff\xfe", b'{"id":"a\x00"}'])
def test_an_event_whose_body_is_no_text_is_named_and_not_copied_into_a_database(tmp_path: Path, body: bytes) -> None:
    with LeaseLedger.open(f"sqlite:///{tmp_path}/auth.db") as source:
        source.acquire_lease(KEYS[0], 1)
    with closing(sqlite3.connect(tmp_path / "auth.db")) as sql:
        sql.execute("INSERT INTO stored_events VALUES ('dev:a', 1, 't', ?)", [body])
        sql.commit()
    with (
        LeaseLedger.open(f"sqlite:///{tmp_path}/auth.db") as source,
        pytest.raises(LedgerStorageError, match="position 2 is damaged"),
    ):
        copy(source, fresh_schema(tmp_path))
