"""The audit file: where it lies, what it holds, and when it makes itself anew."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

import projections
from ledger.errors import CorruptHistory, LedgerStorageError, UnknownEventTag
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.snapshot import MAX_U64, AuthLeasePhase, AuthLeaseSnapshot
from projections.audit import AuditLog
from projections.audit_file import AuditFileError
from projections.history import HistoryEntry
from projections.read_model import PAGE

WORK = LeaseKey.parse("dev:openai:work")

OpenLedger = Callable[[Path], LeaseLedger]
Live = Callable[..., None]
Contents = Callable[[AuditLog], dict[str, list[tuple[Any, ...]]]]


def _tables(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as raw:
        return {name for (name,) in raw.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}


def test_the_file_lies_beside_the_ledger(ledger: LeaseLedger, path: Path, live: Live) -> None:
    live(ledger)
    with AuditLog.open(ledger) as audit:
        assert not path.with_name("auth.audit.db").exists()
        audit.leases()
        assert audit.path == path.with_name("auth.audit.db")
        assert path.with_name("auth.audit.db").exists()


def test_ledgers_whose_names_differ_only_in_the_suffix_have_files_of_their_own(
    tmp_path: Path, open_ledger: OpenLedger
) -> None:
    names = {AuditLog.open(open_ledger(tmp_path / name)).path for name in ("auth", "auth.db", "auth.db.db")}
    assert {name.name for name in names if name} == {"auth.audit", "auth.audit.db", "auth.db.audit.db"}


def test_a_ledger_in_memory_is_audited_in_memory(live: Live) -> None:
    ledger = LeaseLedger.open("memory://")
    live(ledger)
    audit = AuditLog.open(ledger)
    assert audit.path is None
    assert len(audit.leases()) == 3


def test_a_person_with_sqlite_alone_can_read_it(ledger: LeaseLedger, path: Path, live: Live) -> None:
    live(ledger)
    with AuditLog.open(ledger) as audit:
        audit.catch_up()
    with closing(sqlite3.connect(path.with_name("auth.audit.db"))) as raw:
        found = raw.execute(
            "SELECT at_utc, tag, summary, actor, phase, generation, expires_utc FROM events "
            "WHERE realm = 'dev' AND binding = 'openai' AND profile = 'work' ORDER BY version"
        ).fetchall()
        (comments,) = raw.execute("SELECT sql FROM sqlite_schema WHERE name = 'events'").fetchone()
    assert found[0] == (
        "2023-11-14T22:13:26.000Z",
        "lease.acquired",
        "logged in: generation 1",
        "agent one",
        "valid",
        1,
        "2033-05-18T03:33:20Z",
    )
    assert [row[2] for row in found[1:]] == [
        "refresh started, may take 60 s",
        "refreshed: generation 2",
        "refresh started, may take 60 s",
        "refresh failed, may be tried again: TimeoutError, HTTP 503",
    ]
    assert "-- of the lease after the event" in comments


def test_every_question_takes_in_what_others_recorded(path: Path, open_ledger: OpenLedger) -> None:
    one, other = open_ledger(path), open_ledger(path)
    audit = AuditLog.open(one)
    assert audit.history(WORK) == []
    other.acquire_lease(WORK, 5)
    assert [entry.tag for entry in audit.history(WORK)] == ["lease.acquired"]
    other.release_lease(WORK)
    assert [lease.phase for lease in audit.leases()] == [None]


def test_the_newest_events_of_a_lease_can_be_asked_for_alone(ledger: LeaseLedger, live: Live) -> None:
    live(ledger, 3)
    audit = AuditLog.open(ledger)
    everything = audit.history(WORK)
    assert len(everything) > 5
    assert audit.history(WORK, last=2) == everything[-2:]
    assert audit.history(WORK, last=0) == []
    assert audit.history(LeaseKey.parse("no:such")) == []
    with pytest.raises(ValueError, match="last is a number of events"):
        audit.history(WORK, last=-1)


def test_an_answer_encodes_as_json_and_leaves_out_what_its_event_does_not_carry(ledger: LeaseLedger) -> None:
    ledger.acquire_lease(WORK, 5, correlation_id="ticket 7")
    (entry,) = AuditLog.open(ledger).history(WORK)
    encoded = msgspec.json.encode(entry)
    assert msgspec.json.decode(encoded, type=HistoryEntry) == entry
    fields = msgspec.json.decode(encoded)
    assert (fields["correlation_id"], fields["phase"], fields["expires_at"]) == ("ticket 7", "valid", 5)
    assert "error" not in fields
    assert "attempt" not in fields


def test_integers_up_to_the_largest_come_back_exact_and_in_order(path: Path) -> None:
    largest = [5, 2**53 + 1, 2**63 - 1, 2**63, 10**19, MAX_U64 - 1]
    keys = [LeaseKey("dev", f"b{n}") for n in range(len(largest))]
    with LeaseLedger.open(f"sqlite:///{path}", clock=lambda: 2**63, actor="a") as ledger:
        for key, number in zip(keys, largest, strict=True):
            snapshot = AuthLeaseSnapshot(AuthLeasePhase.VALID, number, True, number, number)
            ledger.restore_auth_lifecycle_snapshot(key, snapshot)
        with AuditLog.open(ledger) as audit:
            for key, number in zip(keys, largest, strict=True):
                (entry,) = audit.history(key)
                assert (entry.expires_at, entry.generation, entry.published_at, entry.at_ms) == (
                    number,
                    number,
                    number,
                    2**63,
                )
                assert entry.at_utc is None
            assert [lease.generation for lease in audit.leases()] == largest
    with closing(sqlite3.connect(path.with_name("auth.audit.db"))) as raw:
        by_size = raw.execute("SELECT key FROM leases ORDER BY expires_at").fetchall()
        above = raw.execute("SELECT COUNT(*) FROM leases WHERE generation > 9223372036854775807").fetchone()
    assert [key for (key,) in by_size] == [str(key) for key in keys]
    assert above == (3,)


def test_deleting_the_file_loses_nothing(ledger: LeaseLedger, live: Live, contents: Contents) -> None:
    live(ledger, 2)
    with AuditLog.open(ledger) as audit:
        audit.catch_up()
        before = contents(audit)
    assert audit.path is not None
    for file in audit.path.parent.glob("auth.audit.db*"):
        file.unlink()
    with AuditLog.open(ledger) as again:
        again.catch_up()
        assert contents(again) == before


def test_a_long_log_is_first_filled_and_then_indexed(ledger: LeaseLedger, live: Live, contents: Contents) -> None:
    live(ledger, PAGE // 15)
    audit = AuditLog.open(ledger)
    audit.catch_up()
    live(ledger)
    audit.catch_up()
    grown = contents(audit)
    assert len(grown["events"]) == ledger.recorder.last_position() > PAGE
    audit.rebuild()
    assert contents(audit) == grown


def test_progress_is_told_up_to_the_last_event(ledger: LeaseLedger, live: Live) -> None:
    live(ledger, 30)
    events = ledger.recorder.last_position()
    audit, told = AuditLog.open(ledger), []
    assert audit.catch_up(lambda done, total: told.append((done, total))) == events
    assert told[-1] == (events, events)
    told.clear()
    assert audit.rebuild(lambda done, total: told.append((done, total))) == events
    assert told[-1] == (events, events)


def test_the_file_of_another_ledger_is_made_anew(
    tmp_path: Path, open_ledger: OpenLedger, live: Live, contents: Contents
) -> None:
    one, other = open_ledger(tmp_path / "one.db"), open_ledger(tmp_path / "other.db")
    live(one, 2)
    other.acquire_lease(WORK, 5)
    audit = AuditLog.open(one)
    audit.catch_up()
    audit.close()
    assert audit.path is not None
    with AuditLog.open(other, audit.path) as misplaced:
        assert [entry.expires_at for entry in misplaced.history(WORK)] == [5]
        assert [lease.key for lease in misplaced.leases()] == [str(WORK)]
        assert misplaced.verify().ok
        with AuditLog.open(other) as own:
            own.catch_up()
            assert contents(misplaced) == contents(own)


def test_the_file_notices_an_older_copy_of_its_ledger(
    path: Path, tmp_path: Path, open_ledger: OpenLedger, live: Live
) -> None:
    ledger = open_ledger(path)
    live(ledger)
    ledger.close()
    backup = tmp_path / "backup.db"
    shutil.copy(path, backup)
    ledger = open_ledger(path)
    live(ledger)
    with AuditLog.open(ledger) as audit:
        newer = audit.catch_up()
    ledger.close()
    shutil.copy(backup, path)

    restored = open_ledger(path)
    older = restored.recorder.last_position()
    assert older < newer
    with AuditLog.open(restored) as audit:
        assert audit.catch_up() == older
        assert max(entry.position for lease in audit.leases() for entry in audit.history(_key(lease.key))) == older


def _key(text: str) -> LeaseKey:
    return LeaseKey.parse(text)


def test_a_file_of_another_version_is_made_anew(ledger: LeaseLedger, live: Live, contents: Contents) -> None:
    live(ledger)
    audit = AuditLog.open(ledger)
    audit.catch_up()
    before = contents(audit)
    for column in ("schema", "fold"):
        audit._file().db.execute(f"UPDATE checkpoint SET {column} = {column} + 1")
        audit._file().db.execute("UPDATE events SET summary = 'in the words of another version'")
        audit.leases()
        assert contents(audit) == before
    assert "set_aside_1_events" not in audit._file().db.table_names()


@pytest.mark.parametrize("version", ["'x'", "x'00'", "1.5"])
def test_a_lease_whose_row_says_no_version_is_made_anew(
    version: str, ledger: LeaseLedger, live: Live, contents: Contents
) -> None:
    live(ledger)
    key = next(iter(ledger.keys()))
    with AuditLog.open(ledger) as audit:
        audit.catch_up()
        ((before,),) = audit._file().db.execute("SELECT state FROM leases WHERE key = ?", (str(key),)).fetchall()
        ledger.begin_refresh(key)
        audit.catch_up()
        audit._file().db.execute(f"UPDATE leases SET state = ?, version = {version} WHERE key = ?", (before, str(key)))
        ledger.complete_refresh(key, 2_000_000_200, 1_900_000_100)
        audit.leases()
        found = contents(audit)
        audit.rebuild()
        assert found == contents(audit)


def test_what_a_killed_rebuild_left_is_dropped_by_the_next(ledger: LeaseLedger, live: Live, path: Path) -> None:
    live(ledger)
    audit = AuditLog.open(ledger)
    audit.catch_up()
    audit._file().db.execute("CREATE TABLE events_being_rebuilt (position)")
    audit.rebuild()
    assert _tables(path.with_name("auth.audit.db")) == {"events", "leases", "checkpoint", "set_aside"}


def test_an_event_that_cannot_be_read_is_named_and_everything_before_it_kept(
    ledger: LeaseLedger, live: Live, contents: Contents, going_around_the_guards: Callable[[], Any]
) -> None:
    live(ledger)
    good = ledger.recorder.last_position()
    with going_around_the_guards() as raw:
        raw.execute("INSERT INTO stored_events VALUES ('dev:openai', 6, 'lease.released', '{broken')")
    audit = AuditLog.open(ledger)
    for _ in range(2):
        with pytest.raises(CorruptHistory) as caught:
            audit.leases()
        assert (caught.value.stream, caught.value.version) == ("dev:openai", 6)
        assert len(contents(audit)["events"]) == good
    with pytest.raises(CorruptHistory):
        audit.rebuild()
    assert len(contents(audit)["events"]) == good
    assert not [name for name in audit._file().db.table_names() if "being_rebuilt" in name]


@pytest.mark.parametrize("row", [("x", 1, "lease.released"), (None, 1, "lease.released"), (7, 1, "lease.released")])
def test_a_row_that_names_no_lease_is_corrupt_history(
    ledger: LeaseLedger, row: tuple[Any, ...], going_around_the_guards: Callable[[], Any]
) -> None:
    with going_around_the_guards() as raw:
        raw.execute("PRAGMA ignore_check_constraints = ON")
        try:
            raw.execute("INSERT INTO stored_events VALUES (?, ?, ?, '{}')", row)
        except sqlite3.IntegrityError:
            pytest.skip("the table itself refuses it")
    with pytest.raises(CorruptHistory):
        AuditLog.open(ledger).leases()


def test_events_of_a_newer_version_stop_an_answer_with_advice(
    ledger: LeaseLedger, live: Live, going_around_the_guards: Callable[[], Any]
) -> None:
    live(ledger)
    with going_around_the_guards() as raw:
        raw.execute("INSERT INTO stored_events VALUES ('dev:openai', 6, 'lease.teleported', '{}')")
    with pytest.raises(UnknownEventTag, match="upgrade"):
        AuditLog.open(ledger).leases()


def test_a_file_that_is_something_else_is_left_alone(ledger: LeaseLedger, path: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "diary.db")) as raw:
        raw.execute("CREATE TABLE diary (entry TEXT)")
    text = tmp_path / "notes.txt"
    text.write_text("no database at all, but long enough to be looked at " * 20)
    for wrong, reason in ((tmp_path / "diary.db", "something else"), (path, "something else"), (text, "no SQLite")):
        before = wrong.read_bytes()
        with pytest.raises(AuditFileError, match=reason):
            AuditLog.open(ledger, wrong).leases()
        assert wrong.read_bytes() == before
    with pytest.raises(AuditFileError, match="folder does not exist"):
        AuditLog.open(ledger, tmp_path / "nowhere" / "audit.db").leases()


def test_a_damaged_file_is_an_error_that_says_what_to_do(ledger: LeaseLedger, path: Path, live: Live) -> None:
    live(ledger, 40)
    with AuditLog.open(ledger) as audit:
        audit.catch_up()
    file = path.with_name("auth.audit.db")
    content = bytearray(file.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    file.write_bytes(content)
    with pytest.raises(AuditFileError, match="remove it and ask again") as caught, AuditLog.open(ledger) as audit:
        audit.leases()
    assert isinstance(caught.value, LedgerStorageError)


def test_the_package_offers_the_public_names() -> None:
    for name in projections.__all__:
        assert getattr(projections, name).__name__ == name
    with pytest.raises(AttributeError):
        _ = projections.no_such_name


def test_a_closed_audit_log_opens_again_when_asked(ledger: LeaseLedger, live: Live) -> None:
    live(ledger)
    audit = AuditLog.open(ledger)
    before = audit.leases()
    audit.close()
    assert audit.leases() == before
    audit.close()
    audit.close()
