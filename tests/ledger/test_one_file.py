"""One file is one ledger, whatever path leads to it; and what is no file is no ledger."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from ledger import LeaseKey, LeaseLedger, LedgerStorageError, NotALedger, acquire_auth_login_lifecycle_guard
from ledger.copying import backup, copy
from ledger.recorders.sqlite_address import SQLiteAddress, sqlite_url
from projections.audit import AuditLog

KEY = LeaseKey.parse("dev:openai:work")

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links and bytes of POSIX")


def _open(path: Path) -> LeaseLedger:
    return LeaseLedger.open(f"{sqlite_url(path)}?synchronous=normal")


def _refused(path: Path, words: str) -> str:
    with pytest.raises(LedgerStorageError, match=words) as refused:
        _open(path)
    assert str(refused.value).isprintable()
    return str(refused.value)


@pytest.fixture
def ledger_file(tmp_path: Path) -> Path:
    folder = tmp_path / "real"
    folder.mkdir()
    with _open(folder / "auth.db") as ledger:
        ledger.acquire_lease(KEY, 1)
    return folder / "auth.db"


def _link(file: Path) -> Path:
    link = file.parents[1] / "link.db"
    link.symlink_to(file)
    return link


def _link_to_link(file: Path) -> Path:
    link = file.parents[1] / "second.db"
    link.symlink_to(_link(file).name)
    return link


def _linked_folder(file: Path) -> Path:
    (file.parents[1] / "folder").symlink_to(file.parent)
    return file.parents[1] / "folder" / file.name


def _dots(file: Path) -> Path:
    return file.parents[1] / "real" / ".." / "real" / file.name


other_path = pytest.mark.parametrize("other_path", [_link, _link_to_link, _linked_folder, _dots])


@other_path
def test_every_path_to_a_file_is_the_same_ledger_with_the_same_locks_and_files_beside(
    ledger_file: Path, other_path: Callable[[Path], Path]
) -> None:
    with _open(ledger_file) as ledger, _open(other_path(ledger_file)) as other:
        assert other.recorder.sidecar("fingerprint-key") == ledger.recorder.sidecar("fingerprint-key")
        assert AuditLog.open(other).path == AuditLog.open(ledger).path
        assert ledger.fingerprint("token") == other.fingerprint("token")
        one, same = ledger.recorder.guard_lock(str(KEY)), other.recorder.guard_lock(str(KEY))
        assert one is not None and same is not None
        assert (one.try_acquire("one"), same.try_acquire("other")) == (True, False)
        one.release()
        assert ledger.acquire_lease(KEY, 2).generation == 2
        assert other.acquire_lease(KEY, 3).generation == 3
    assert {path.parent for path in ledger_file.parents[1].rglob("*") if path.is_file() and not path.is_symlink()} <= {
        ledger_file.parent,
        ledger_file.parent / "auth.db.locks",
    }


def test_a_link_that_leads_elsewhere_now_does_not_move_an_open_ledger(ledger_file: Path, tmp_path: Path) -> None:
    link = _link(ledger_file)
    with _open(link) as ledger:
        link.unlink()
        link.symlink_to(tmp_path / "other.db")
        assert ledger.acquire_lease(KEY, 2).generation == 2
        with acquire_auth_login_lifecycle_guard(KEY, ledger=ledger):
            pass
    with _open(ledger_file) as ledger:
        assert ledger.snapshot(KEY).generation == 2


def test_a_link_to_nothing_makes_no_ledger(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to("missing.db")
    assert "missing.db" in _refused(tmp_path / "link.db", "symbolic link leads to")
    assert not (tmp_path / "missing.db").exists()


def test_links_that_lead_round_in_a_circle_are_one_error(tmp_path: Path) -> None:
    (tmp_path / "a.db").symlink_to("b.db")
    (tmp_path / "b.db").symlink_to("a.db")
    _refused(tmp_path / "a.db", "circle")


# Hard links


def test_a_file_with_a_second_name_is_refused_by_both(ledger_file: Path) -> None:
    second = ledger_file.with_name("second.db")
    second.hardlink_to(ledger_file)
    for name in (ledger_file, second):
        _refused(name, "2 names .hard links.")
    second.unlink()
    with _open(ledger_file) as ledger:
        assert ledger.snapshot(KEY).generation == 1


def test_a_second_name_given_to_an_open_ledger_is_noticed_before_anything_is_acknowledged(ledger_file: Path) -> None:
    with _open(ledger_file) as ledger:
        second = ledger_file.with_name("second.db")
        second.hardlink_to(ledger_file)
        uses: list[Callable[[], object]] = [lambda: ledger.acquire_lease(KEY, 2), lambda: ledger.release_lease(KEY)]
        for use in uses:
            with pytest.raises(LedgerStorageError, match="2 names"):
                use()
        second.unlink()
        assert ledger.acquire_lease(KEY, 3).generation == 2


# What is no file


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))


@pytest.mark.parametrize(("make", "words"), [(Path.mkdir, "a folder"), (_pipe, "a pipe"), (_socket, "a socket")])
def test_what_is_no_file_is_refused_by_its_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], object], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make(Path("auth.db"))
    for name in ("auth.db", "link.db"):
        with pytest.raises(NotALedger, match=words):
            LeaseLedger.open(f"sqlite:///{name}")
        (tmp_path / "link.db").unlink(missing_ok=True)
        (tmp_path / "link.db").symlink_to("auth.db")


@pytest.mark.parametrize("device", ["/dev/null", "/dev/zero", "/dev/full"])
def test_a_device_is_refused(device: str) -> None:
    with pytest.raises(NotALedger, match="a device"):
        LeaseLedger.open(f"sqlite:///{device}")


# Names


NAMES = [
    b"a\xe9.db",
    b"a\xe8.db",
    b"\xff",
    b"new\nline.db",
    b"tab\tand\rreturn.db",
    b"100%25.db",
    b"a?b#c.db",
    b" .db ",
]


def test_names_of_any_bytes_are_as_many_ledgers(tmp_path: Path) -> None:
    paths = [tmp_path / os.fsdecode(name) for name in NAMES]
    for number, path in enumerate(paths, 1):
        with _open(path) as ledger:
            assert ledger.acquire_lease(LeaseKey("dev", f"key-{number}"), 1).generation == 1
            assert AuditLog.open(ledger).catch_up() == 1
    for number, path in enumerate(paths, 1):
        assert path.stat().st_size > 0
        with _open(path) as ledger:
            assert ledger.keys() == [LeaseKey("dev", f"key-{number}")]


def test_a_name_of_any_bytes_can_be_backed_up_and_copied_to(tmp_path: Path) -> None:
    source, made = tmp_path / os.fsdecode(b"\xe9\n.db"), tmp_path / os.fsdecode(b"\xe8\n.db")
    with _open(source) as ledger:
        ledger.acquire_lease(KEY, 1)
        assert backup(ledger, made).position == 1
        made.unlink()
        assert copy(ledger, sqlite_url(made)).position == 1
    with _open(made) as ledger:
        assert ledger.keys() == [KEY]


@pytest.mark.parametrize("name", NAMES)
def test_a_url_leads_back_to_the_name_it_was_made_of(name: bytes) -> None:
    address = SQLiteAddress.parse(sqlite_url(os.fsdecode(name)))
    assert address is not None and os.fsencode(address.path) == name


@pytest.mark.parametrize("raw", ["new\nline.db", "tab\t.db", os.fsdecode(b"\xe9.db"), "größe.db"])
def test_what_needs_no_escape_may_stand_in_a_url_as_it_is(raw: str) -> None:
    address = SQLiteAddress.parse(f"sqlite:///{raw}?synchronous=normal")
    assert address == (Path(raw), {"synchronous": "normal"})


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite:///a%00b.db", "NUL"),
        ("sqlite:///a\0b.db", "NUL"),
        ("sqlite:///a#b.db", "%23"),
        ("sqlite:///a\ud800.db", "no file name can hold"),
        ("sqlite:///a?b.db", "unknown option"),
        ("sqlite:auth.db", "unknown ledger URL"),
        ("sqlite://host/auth.db", "unknown ledger URL"),
    ],
)
def test_a_url_that_names_no_file_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=words) as refused:
        LeaseLedger.open(url)
    assert str(refused.value).isprintable()
    assert list(tmp_path.iterdir()) == []


def test_paths_that_are_too_long_are_refused_in_one_line_and_make_nothing(tmp_path: Path) -> None:
    _refused(tmp_path / ("x" * 252 + ".db"), "too long")
    _refused(tmp_path / ("x" * 250), "too long")
    _refused(tmp_path.joinpath(*["d" * 150] * 30, "x.db"), "too long")
    deep = tmp_path.joinpath(*["d" * 150] * 4)
    deep.mkdir(parents=True)
    _refused(deep / "x.db", "longer than the 504 bytes")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_the_longest_path_that_is_not_refused_works(tmp_path: Path) -> None:
    folder = tmp_path.joinpath("d" * 150, "d" * (504 - len(str(tmp_path)) - 150 - 3 - 200))
    folder.mkdir(parents=True)
    path = folder / ("x" * 200)
    assert len(str(path)) == 504
    with LeaseLedger.open(f"sqlite:///{quote(str(path))}") as ledger:
        assert ledger.acquire_lease(KEY, 1).generation == 1
