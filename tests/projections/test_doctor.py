"""The doctor finds what a crash left, names it with its evidence, and mends it as the next use would."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from ledger import (
    ANY,
    Credentials,
    FileTokenStore,
    LeaseKey,
    LeaseLedger,
    LeaseRefreshed,
    PersistedTokens,
)
from ledger.commands import BeginRefresh
from ledger.events import Holder
from ledger.marker import mark_tokens_lifecycle_published_for_generation
from ledger.snapshot import AuthLeasePhase, AuthLeaseSnapshot
from ledger.stores.base import Expectation
from projections.doctor import Condition, Diagnosis, examine, fix

KEY = LeaseKey.parse("dev:openai:work")


def tokens(number: int = 1) -> PersistedTokens:
    return PersistedTokens(
        "claude_ai_oauth",
        primary_secret=f"secret-{number}",
        refresh_token=f"refresh-{number}",
        expires_at=int(time.time()) + 1,
    )


def credentials_in(folder: Path, store: type[FileTokenStore] = FileTokenStore) -> Credentials:
    ledger = LeaseLedger.open(f"sqlite:///{folder}/auth.db?synchronous=normal", actor="test")
    return Credentials(ledger, store(folder / "tokens"), refresh_deadline=60)


@pytest.fixture
def using(tmp_path: Path) -> Iterator[Credentials]:
    found = credentials_in(tmp_path)
    with found.ledger:
        yield found


def in_a_process_that_dies(work: Callable[[], object]) -> None:
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def die(*_: object) -> PersistedTokens:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


class DiesBeforeSave(FileTokenStore):
    def save(self, key: LeaseKey, tokens: PersistedTokens, *, expect: Expectation = ANY) -> None:
        die()


class DiesAfterSave(FileTokenStore):
    def save(self, key: LeaseKey, tokens: PersistedTokens, *, expect: Expectation = ANY) -> None:
        super().save(key, tokens, expect=expect)
        die()


def found(using: Credentials) -> list[Diagnosis]:
    before = [recorded.position for recorded in using.ledger.read_all()]
    result = list(examine(using.ledger, using.store))
    assert [recorded.position for recorded in using.ledger.read_all()] == before
    return result


def test_nothing_is_found_where_all_is_in_order(using: Credentials) -> None:
    using.login(KEY, tokens())
    assert found(using) == []


def test_tokens_saved_by_a_refresh_that_died_before_its_event_are_recorded(using: Credentials, tmp_path: Path) -> None:
    using.login(KEY, tokens())
    in_a_process_that_dies(lambda: credentials_in(tmp_path, DiesAfterSave).fresh(KEY, lambda old: tokens(2)))
    abandoned, unrecorded = found(using)
    assert (abandoned.condition, unrecorded.condition) == (Condition.ABANDONED, Condition.UNRECORDED)
    assert fix(using, unrecorded)
    assert found(using) == []
    event = list(using.ledger.read(KEY))[-1].event
    assert isinstance(event, LeaseRefreshed) and event.recovered and event.id == unrecorded.event_id


def test_an_attempt_whose_holder_died_before_sending_is_recorded_as_abandoned(
    using: Credentials, tmp_path: Path
) -> None:
    using.login(KEY, tokens())
    in_a_process_that_dies(lambda: credentials_in(tmp_path).fresh(KEY, die))
    (abandoned,) = found(using)
    assert abandoned.condition is Condition.ABANDONED and abandoned.attempt is not None
    assert fix(using, abandoned) and found(using) == []
    assert using.ledger.snapshot(KEY).phase == "expiring"


def test_tokens_left_by_a_released_lease_are_cleared(using: Credentials) -> None:
    using.login(KEY, tokens())
    using.ledger.release_lease(KEY)
    (orphaned,) = found(using)
    assert orphaned.condition is Condition.ORPHANED
    assert fix(using, orphaned) and found(using) == []
    assert using.store.load(KEY) is None


def test_a_login_that_died_before_its_save_is_undone(using: Credentials, tmp_path: Path) -> None:
    using.login(KEY, tokens())
    in_a_process_that_dies(lambda: credentials_in(tmp_path, DiesBeforeSave).login(KEY, tokens(2)))
    (unsaved,) = found(using)
    assert unsaved.condition is Condition.LOGIN_NOT_SAVED and unsaved.generation == 2
    assert fix(using, unsaved) and found(using) == []


def test_what_nobody_can_mend_is_named_and_left_alone(using: Credentials, tmp_path: Path) -> None:
    using.login(KEY, tokens())
    old = using.store.load(KEY)
    assert old is not None
    using.ledger.acquire_lease(KEY, 5)
    (superseded,) = found(using)
    assert superseded.condition is Condition.SUPERSEDED

    marker = {**old.metadata["meerkat_auth_lifecycle"], "event": "never seen", "generation": 9}
    using.store.save(KEY, msgspec.structs.replace(old, metadata={"meerkat_auth_lifecycle": marker}))
    (ahead,) = found(using)
    assert ahead.condition is Condition.AHEAD
    marker["generation"] = 1
    using.store.save(KEY, msgspec.structs.replace(old, metadata={"meerkat_auth_lifecycle": marker}))
    (foreign,) = found(using)
    assert foreign.condition is Condition.FOREIGN

    path = next((tmp_path / "tokens").glob("*.json"))
    path.write_text("{")
    (unreadable,) = found(using)
    assert unreadable.condition is Condition.UNREADABLE
    path.unlink()
    (missing,) = found(using)
    assert missing.condition is Condition.MISSING

    for diagnosis in (superseded, ahead, foreign, unreadable, missing):
        assert not diagnosis.mendable and not fix(using, diagnosis)
    assert using.ledger.snapshot(KEY).generation == 2


def test_tokens_of_a_key_the_ledger_never_saw_are_found_too(using: Credentials) -> None:
    other = LeaseKey.parse("dev:other")
    using.login(KEY, tokens())
    stored = using.store.load(KEY)
    assert stored is not None
    using.store.save(other, stored)
    (foreign,) = found(using)
    assert (foreign.key, foreign.condition) == ("dev:other", Condition.AHEAD)


def in_another_place(pid: int = 7) -> Holder:
    return Holder("another host", "another boot", pid, "1", "instance")


def begun(using: Credentials, holder: Holder, duration_ms: int) -> str:
    """An attempt as a process elsewhere began it."""
    command = BeginRefresh(duration_ms, holder)
    event, _ = using.ledger._executor.execute(KEY, command, cause=None, correlation_id=None)
    return event.id


@pytest.mark.parametrize(
    ("duration_ms", "moved_ms", "conditions"),
    [
        (60_000, 0, []),
        (60_000, 59_000, []),
        (60_000, 60_000, ["overdue"]),
        (0, 0, ["overdue"]),
        (60_000, -61_000, ["overdue"]),
    ],
)
def test_an_attempt_open_for_longer_than_it_may_take_is_not_in_order(
    tmp_path: Path, duration_ms: int, moved_ms: int, conditions: list[str]
) -> None:
    start_ms = 1_700_000_000_000
    clock = [start_ms]
    url = f"sqlite:///{tmp_path}/auth.db?synchronous=normal"
    with LeaseLedger.open(url, clock=lambda: clock[0], actor="agent-a") as ledger:
        using = Credentials(ledger, FileTokenStore(tmp_path / "tokens"))
        using.login(KEY, tokens())
        attempt = begun(using, in_another_place(), duration_ms)
        clock[0] += moved_ms
        rows = found(using)
        assert [row.condition for row in rows] == conditions
        for row in rows:
            assert (row.attempt, row.since_ms, row.overdue_from_ms) == (attempt, start_ms, start_ms + duration_ms)
            assert (
                f"attempt {attempt[:8]} of agent-a (process 7 on another host) is open since 2023-11-14T22:13"
                in row.text
            )
            assert "takes over" in row.text
            assert not row.mendable and not fix(using, row)


def test_a_refresh_that_a_restore_brought_back_and_nobody_knows_is_not_in_order_for_ever(using: Credentials) -> None:
    using.login(KEY, tokens())
    using.ledger.restore_auth_lifecycle_snapshot(KEY, AuthLeaseSnapshot(AuthLeasePhase.REFRESHING, 5, True, 9, 7))
    assert Condition.OVERDUE not in [row.condition for row in found(using)]
    later = LeaseLedger(using.ledger.recorder, clock=lambda: time.time_ns() // 1_000_000 + 61_000)
    rows = list(examine(later, using.store))
    assert rows[0].condition is Condition.OVERDUE and rows[0].attempt is None
    assert "a refresh that nobody here began is open since" in rows[0].text


def test_an_open_attempt_whose_holder_is_gone_says_since_when_whose_and_that_it_can_be_taken_over(
    using: Credentials,
) -> None:
    using.login(KEY, tokens())
    attempt = using.ledger.begin_refresh(KEY)
    (row,) = examine(using.ledger, using.store, is_gone=lambda holder: True)
    assert (row.condition, row.attempt, row.since_ms) == (Condition.ABANDONED, attempt.id, attempt.started_at_ms)
    assert f"attempt {attempt.id[:8]} of test (process {os.getpid()} on" in row.text
    assert "takes over at once" in row.text and row.mendable


def test_tokens_that_name_no_event_are_not_said_to_be_cleared_by_the_next_use(using: Credentials) -> None:
    using.login(KEY, tokens())
    using.ledger.release_lease(KEY)
    using.store.save(KEY, mark_tokens_lifecycle_published_for_generation(tokens(), 0))
    (orphaned,) = found(using)
    assert orphaned.condition is Condition.ORPHANED and not orphaned.mendable
    assert "they name no event" in orphaned.text


class Failing(FileTokenStore):
    def load(self, key: LeaseKey) -> PersistedTokens | None:
        raise RuntimeError("canary")


def test_a_store_that_fails_in_a_way_of_its_own_is_one_row_and_is_not_quoted(
    using: Credentials, tmp_path: Path
) -> None:
    using.login(KEY, tokens())
    (unavailable,) = examine(using.ledger, Failing(tmp_path / "tokens"))
    assert unavailable.condition is Condition.UNAVAILABLE
    assert "RuntimeError" in unavailable.text and "canary" not in unavailable.text
