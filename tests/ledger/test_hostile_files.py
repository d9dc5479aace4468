"""The file under an open ledger is replaced, removed or inherited by a fork."""

import os
import shutil
from pathlib import Path

import pytest

from ledger import LeaseKey, LeaseLedger, LedgerStorageError

KEY = LeaseKey.parse("dev:openai:work")


def url(folder: Path, name: str = "auth.db") -> str:
    return f"sqlite:///{folder}/{name}?synchronous=normal"


def test_a_file_replaced_under_a_running_process_ends_in_one_clear_error_and_loses_nothing(tmp_path: Path) -> None:
    with LeaseLedger.open(url(tmp_path, "other.db")) as other:
        other.acquire_lease(KEY, 5)
    with LeaseLedger.open(url(tmp_path)) as ledger:
        ledger.acquire_lease(KEY, 6)
        (tmp_path / "auth.db").rename(tmp_path / "kept.db")
        shutil.copy(tmp_path / "other.db", tmp_path / "auth.db")
        for use in (lambda: ledger.acquire_lease(KEY, 7), lambda: ledger.snapshot(KEY), ledger.keys):
            with pytest.raises(LedgerStorageError, match="replaced while it was open"):
                use()
        (tmp_path / "auth.db").unlink()
        (tmp_path / "kept.db").rename(tmp_path / "auth.db")
        assert ledger.acquire_lease(KEY, 8).generation == 2
        assert ledger.verify().ok


def test_a_file_removed_under_a_running_process_is_named_and_can_be_put_back(tmp_path: Path) -> None:
    with LeaseLedger.open(url(tmp_path)) as ledger:
        ledger.acquire_lease(KEY, 6)
        (tmp_path / "auth.db").rename(tmp_path / "aside.db")
        with pytest.raises(LedgerStorageError, match="the file is gone"):
            ledger.release_lease(KEY)
        (tmp_path / "aside.db").rename(tmp_path / "auth.db")
        assert ledger.snapshot(KEY).generation == 1


def test_a_forked_child_and_its_parent_both_go_on_with_one_open_ledger(tmp_path: Path) -> None:
    with LeaseLedger.open(url(tmp_path)) as ledger:
        ledger.acquire_lease(KEY, 1)
        children = []
        for _ in range(4):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    for _ in range(20):
                        ledger.acquire_lease(KEY, 2)
                    code = 0
                finally:
                    os._exit(code)
            children.append(child)
        for _ in range(20):
            ledger.acquire_lease(KEY, 3)
        assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
        assert ledger.snapshot(KEY).generation == 101
        assert ledger.verify().ok
