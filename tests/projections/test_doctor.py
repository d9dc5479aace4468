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
