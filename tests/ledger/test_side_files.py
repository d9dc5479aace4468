"""The write-ahead log and the shared memory of a ledger: removed, replaced, or left beside a file they do not fit."""

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from ledger import LeaseKey, LeaseLedger, LedgerStorageError
from ledger.copying import backup
from ledger.recorders import file_identity

KEY = LeaseKey.parse("dev:openai:work")
PAGE_BYTES = 4096


def _open(path: Path) -> LeaseLedger:
    return LeaseLedger.open(f"sqlite:///{path}?synchronous=normal")


def _append(ledger: LeaseLedger, events: range) -> None:
    for number in events:
        ledger.acquire_lease(LeaseKey("dev", f"key-{number}"), number)


def _checkpoint(path: Path, mode: str = "RESTART") -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        ((busy, *_),) = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
        assert not busy


# Under an open ledger


def _remove(path: Path) -> None:
    path.unlink()


def _replace(path: Path) -> None:
    copy = path.with_name("copy")
    shutil.copy(path, copy)
    copy.rename(path)


@pytest.mark.parametrize(("change", "words"), [(_remove, "is gone"), (_replace, "was replaced")])
@pytest.mark.parametrize("endings", [("-wal",), ("-shm",), ("-wal", "-shm")])
def test_a_log_that_goes_from_under_an_open_ledger_is_noticed_before_the_next_acknowledgement(
    tmp_path: Path, change: Callable[[Path], None], words: str, endings: Sequence[str]
) -> None:
    path = tmp_path / "auth.db"
    with _open(path) as ledger:
        _append(ledger, range(5))
        for ending in endings:
            change(Path(f"{path}{ending}"))
        uses: list[Callable[[], object]] = [
            lambda: ledger.acquire_lease(KEY, 1),
            lambda: ledger.begin_refresh(LeaseKey("dev", "key-1")),
            lambda: ledger.snapshot(KEY),
            ledger.keys,
        ]
        for use in uses:
            with pytest.raises(LedgerStorageError, match=f"{words}.*open it again"):
                use()
    with _open(path) as ledger:
        assert len(ledger.keys()) == 5
        assert ledger.verify().ok


def test_a_log_that_is_put_back_is_the_same_log(tmp_path: Path) -> None:
    path = tmp_path / "auth.db"
    with _open(path) as ledger:
        _append(ledger, range(5))
        Path(f"{path}-wal").rename(tmp_path / "aside")
        with pytest.raises(LedgerStorageError, match="is gone"):
            ledger.acquire_lease(KEY, 1)
        (tmp_path / "aside").rename(f"{path}-wal")
        assert ledger.acquire_lease(KEY, 1).generation == 1


def test_checkpoints_of_whoever_makes_them_disturb_nobody(tmp_path: Path) -> None:
    path = tmp_path / "auth.db"
    with _open(path) as ledger, _open(path) as other:
        for number, mode in enumerate(["PASSIVE", "FULL", "RESTART", "TRUNCATE"] * 3):
            _append(ledger, range(10 * number, 10 * number + 10))
            _checkpoint(path, mode)
            assert len(other.keys()) == 10 * number + 10
        assert ledger.verify().ok


# A file that its log does not fit


class Left(NamedTuple):
    """What a killed process left, and other files of before and after.

    Attributes:
        path: The ledger, the first 50 of its events moved from the log into the file.
        events: How many it has. Some more make the log hold the schema's page and the root of the table.
        earlier: A plain copy of the closed ledger with 20 events.
        backup_of_earlier: A backup with 20 events.
        backup_of_later: A backup with 50 events.
        later: A plain copy with 50 events, as a checkpoint would make it.
        little_newer: The same, gone on by three events.
        newer: The closed ledger, gone on to 200 events.
        other: The closed file of another ledger.
    """

    path: Path
    events: int
    earlier: Path
    backup_of_earlier: Path
    backup_of_later: Path
    later: Path
    little_newer: Path
    newer: Path
    other: Path


@pytest.fixture(params=[60, 75])
def left(request: pytest.FixtureRequest, tmp_path: Path) -> Left:
    used, events = tmp_path / "used" / "auth.db", request.param
    made = Left(tmp_path / "auth.db", events, *(tmp_path / f"{name}.db" for name in Left._fields[2:]))
    used.parent.mkdir()
    with _open(used) as ledger:
        _append(ledger, range(20))
        backup(ledger, made.backup_of_earlier)
    shutil.copy(used, made.earlier)
    with _open(used) as ledger:
        _append(ledger, range(20, 40))
        _checkpoint(used)
        _append(ledger, range(40, 50))
        backup(ledger, made.backup_of_later)
        _checkpoint(used, "PASSIVE")
        shutil.copy(used, made.later)
        _append(ledger, range(50, events))
        # Between two checkpoints the file and its log are what a kill leaves.
        shutil.copy(used, made.path)
        shutil.copy(f"{used}-wal", f"{made.path}-wal")
        _append(ledger, range(events, events + 3))
        _checkpoint(used)
        shutil.copy(used, made.little_newer)
        _append(ledger, range(events + 3, 200))
    shutil.copy(used, made.newer)
    with _open(made.other) as ledger:
        _append(ledger, range(45))
    return made


def _contents(path: Path) -> tuple[bytes, bytes]:
    return path.read_bytes(), Path(f"{path}-wal").read_bytes()


def test_what_a_kill_leaves_is_opened_with_every_event(left: Left) -> None:
    with _open(left.path) as ledger:
        assert len(ledger.keys()) == left.events
        assert ledger.verify().ok


@pytest.mark.parametrize("name", ["earlier", "backup_of_earlier", "little_newer", "newer", "other"])
def test_a_file_copied_over_a_ledger_whose_log_is_still_there_is_noticed_and_nothing_is_changed(
    left: Left, name: str
) -> None:
    shutil.copyfile(getattr(left, name), left.path)
    before = _contents(left.path)
    for _ in range(2):
        with pytest.raises(LedgerStorageError, match=r"do not belong together.*keep all its files aside") as noticed:
            _open(left.path)
        assert str(noticed.value).isprintable()
    assert _contents(left.path) == before
    Path(f"{left.path}-wal").unlink()
    Path(f"{left.path}-shm").unlink()
    with _open(left.path) as ledger:
        assert ledger.verify().ok


def test_another_ledgers_file_under_the_log_of_a_new_one_is_named(tmp_path: Path) -> None:
    with _open(tmp_path / "other.db") as other, _open(tmp_path / "auth.db") as ledger:
        _append(other, range(3))
        _append(ledger, range(3))
        _checkpoint(tmp_path / "other.db")
        shutil.copy(tmp_path / "other.db", tmp_path / "left.db")
        shutil.copy(tmp_path / "auth.db-wal", tmp_path / "left.db-wal")
        with pytest.raises(LedgerStorageError, match=f"is of ledger {other.ledger_id}, the log of {ledger.ledger_id}"):
            _open(tmp_path / "left.db")


@pytest.mark.parametrize("content", [b"", b"no database " * 1000], ids=["nothing", "no database"])
def test_a_log_beside_what_is_no_ledger_any_more_is_kept(left: Left, content: bytes) -> None:
    left.path.write_bytes(content)
    before = _contents(left.path)
    with pytest.raises(LedgerStorageError, match="do not belong together"):
        _open(left.path)
    assert _contents(left.path) == before


def test_a_copy_of_what_a_checkpoint_would_have_made_is_led_to_the_last_event(left: Left) -> None:
    """No file says that it was put there to undo something; nothing is lost or mixed."""
    shutil.copyfile(left.later, left.path)
    with _open(left.path) as ledger:
        assert len(ledger.keys()) == left.events
        assert ledger.verify().ok


def test_a_backup_under_a_later_log_is_noticed_when_the_log_has_the_schemas_page_and_else_loses_nothing(
    left: Left,
) -> None:
    shutil.copyfile(left.backup_of_later, left.path)
    if left.events == 75:
        with pytest.raises(LedgerStorageError, match="the file was written by a backup"):
            _open(left.path)
        return
    with _open(left.path) as ledger:
        assert len(ledger.keys()) == left.events
        assert ledger.verify().ok


def test_a_checkpoint_killed_at_any_page_is_no_file_that_was_put_there(left: Left, tmp_path: Path) -> None:
    before, log = _contents(left.path)
    with contextlib.closing(sqlite3.connect(left.path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        after = left.path.read_bytes()
    assert after != before
    for number in range(1, len(after) // PAGE_BYTES):
        written = number * PAGE_BYTES
        torn = tmp_path / f"torn-{number}.db"
        torn.write_bytes(after[:written] + before[written:])
        Path(f"{torn}-wal").write_bytes(log)
        with _open(torn) as ledger:
            assert len(ledger.keys()) == left.events
            assert ledger.verify().ok


@pytest.mark.parametrize("name", ["earlier", "backup_of_earlier", "other"])
def test_a_file_copied_over_an_open_ledger_is_noticed_before_the_next_acknowledgement(
    tmp_path: Path, left: Left, name: str
) -> None:
    path = tmp_path / "open.db"
    shutil.copy(left.newer, path)
    with _open(path) as ledger:
        _append(ledger, range(200, 205))
        shutil.copyfile(getattr(left, name), path)
        uses: list[Callable[[], object]] = [lambda: ledger.acquire_lease(KEY, 1), ledger.keys, ledger.verify]
        for use in uses:
            with pytest.raises(LedgerStorageError, match="do not belong together"):
                use()
        shutil.copyfile(left.newer, path)
        assert ledger.acquire_lease(KEY, 1).generation == 1
        assert len(ledger.keys()) == 206


def test_a_copy_of_the_same_size_and_time_is_compared_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, compared = tmp_path / "auth.db", list[Path]()
    with _open(path) as ledger:
        _append(ledger, range(3))

        def compare(path: Path) -> bool:
            compared.append(path)
            return True

        monkeypatch.setattr(file_identity, "refuse_unfitting_log", compare)
        before = path.stat()
        path.write_bytes(path.read_bytes())
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        ledger.acquire_lease(KEY, 1)
        assert compared == [path]
        ledger.acquire_lease(KEY, 2)
        assert compared == [path]


def test_a_file_emptied_under_an_open_ledger_keeps_its_log(tmp_path: Path) -> None:
    path = tmp_path / "auth.db"
    with _open(path) as ledger:
        _append(ledger, range(5))
        path.write_bytes(b"")
        with pytest.raises(LedgerStorageError, match="the file is empty"):
            ledger.acquire_lease(KEY, 1)
        with pytest.raises(LedgerStorageError, match="the file is empty"):
            _open(path)
        assert Path(f"{path}-wal").stat().st_size > 0


def test_a_log_without_its_file_is_kept_and_no_ledger_is_made_in_its_place(left: Left) -> None:
    left.path.unlink()
    log = Path(f"{left.path}-wal").read_bytes()
    with pytest.raises(LedgerStorageError, match="the file is gone"):
        _open(left.path)
    assert not left.path.exists()
    assert Path(f"{left.path}-wal").read_bytes() == log
