"""A finished file gets a name that nobody has, on file systems with hard links and without."""

import errno
import os
from pathlib import Path

import pytest

from ledger import LeaseLedger, LedgerStorageError
from ledger.copying import backup, new_ledger_file


@pytest.fixture(params=["links", "no links"], autouse=True)
def file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    if request.param == "no links":
        monkeypatch.setattr(os, "link", refuse)


def test_a_copy_takes_the_place_of_nothing_that_came_meanwhile(tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    with pytest.raises(LedgerStorageError, match="by somebody else meanwhile"), new_ledger_file(target) as unfinished:
        unfinished.write_bytes(b"a copy")
        target.write_bytes(b"somebody else's")
    assert target.read_bytes() == b"somebody else's"
    assert [file.name for file in tmp_path.iterdir()] == ["copy.db"]


def test_a_backup_is_made_under_its_name_alone(tmp_path: Path) -> None:
    with LeaseLedger.open(f"sqlite:///{tmp_path}/auth.db") as ledger:
        made = backup(ledger, tmp_path / "copy.db")
    assert (tmp_path / "copy.db").stat().st_nlink == 1
    with LeaseLedger.open(f"sqlite:///{tmp_path}/copy.db") as copied:
        assert copied.ledger_id == made.ledger_id


def test_a_name_that_could_not_be_given_is_left_to_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "the disk fails")

    monkeypatch.setattr(os, "link", fail)
    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(LedgerStorageError, match="the disk fails"), new_ledger_file(tmp_path / "copy.db") as unfinished:
        unfinished.write_bytes(b"a copy")
    assert not list(tmp_path.iterdir())
