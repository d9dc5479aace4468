"""A login whose process died between its event and its save is undone by whoever uses the key next."""

import os
import signal
import time
from pathlib import Path

import pytest

from ledger import (
    ANY,
    Credentials,
    FileTokenStore,
    LeaseKey,
    LeaseLedger,
    LeaseRestored,
    PersistedTokens,
    ReauthRequired,
    TokensElsewhere,
)
from ledger.stores.base import Expectation

KEY = LeaseKey.parse("dev:openai:work")


class DiesOnSave(FileTokenStore):
    """Kills its process where the save of a login would begin."""

    def save(self, key: LeaseKey, tokens: PersistedTokens, *, expect: Expectation = ANY) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def tokens(secret: str) -> PersistedTokens:
    return PersistedTokens(
        "claude_ai_oauth", primary_secret=secret, refresh_token=f"r-{secret}", expires_at=int(time.time()) + 3600
    )


def credentials(folder: Path, store: type[FileTokenStore] = FileTokenStore, place: str = "tokens") -> Credentials:
    ledger = LeaseLedger.open(f"sqlite:///{folder}/auth.db?synchronous=normal", actor="test")
    return Credentials(ledger, store(folder / place))


def die_in_login(folder: Path) -> None:
    child = os.fork()
    if child == 0:
        try:
            credentials(folder, DiesOnSave).login(KEY, tokens("lost"))
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def unexpected_refresh(_: PersistedTokens) -> PersistedTokens:
    raise AssertionError("nothing here may be refreshed")


def test_the_login_before_it_counts_again_and_the_restore_names_what_it_undoes(tmp_path: Path) -> None:
    with credentials(tmp_path).ledger as ledger:
        using = Credentials(ledger, FileTokenStore(tmp_path / "tokens"))
        using.login(KEY, tokens("kept"))
        die_in_login(tmp_path)
        assert using.fresh(KEY, unexpected_refresh).primary_secret == "kept"
        assert using.fresh(KEY, unexpected_refresh).primary_secret == "kept"
        events = list(ledger.read(KEY))
        restored = events[-1].event
        assert [recorded.event.tag for recorded in events] == ["lease.acquired", "lease.acquired", "lease.restored"]
        assert isinstance(restored, LeaseRestored) and restored.compensates == 2
        assert restored.published_by == events[0].event.id
        assert ledger.verify().ok


def test_a_first_login_that_was_never_saved_leaves_nobody_logged_in(tmp_path: Path) -> None:
    die_in_login(tmp_path)
    with credentials(tmp_path).ledger as ledger:
        assert ledger.snapshot(KEY).credential_present
        with pytest.raises(ReauthRequired):
            Credentials(ledger, FileTokenStore(tmp_path / "tokens")).fresh(KEY, unexpected_refresh)
        assert not ledger.snapshot(KEY).credential_present
        assert ledger.snapshot(KEY).generation == 1


def test_from_another_place_nobody_can_tell_whether_it_was_saved_and_nothing_is_undone(tmp_path: Path) -> None:
    die_in_login(tmp_path)
    with credentials(tmp_path).ledger as ledger:
        with pytest.raises(TokensElsewhere):
            Credentials(ledger, FileTokenStore(tmp_path / "another place")).fresh(KEY, unexpected_refresh)
        assert [recorded.event.tag for recorded in ledger.read(KEY)] == ["lease.acquired"]


def test_a_login_that_something_followed_is_not_undone(tmp_path: Path) -> None:
    die_in_login(tmp_path)
    with credentials(tmp_path).ledger as ledger:
        ledger.mark_expiring(KEY)
        with pytest.raises(TokensElsewhere):
            Credentials(ledger, FileTokenStore(tmp_path / "tokens")).fresh(KEY, unexpected_refresh)
        assert ledger.snapshot(KEY).phase == "expiring"


def test_a_new_login_over_the_unsaved_one_leaves_both_on_record(tmp_path: Path) -> None:
    die_in_login(tmp_path)
    with credentials(tmp_path).ledger as ledger:
        using = Credentials(ledger, FileTokenStore(tmp_path / "tokens"))
        using.login(KEY, tokens("new"))
        assert using.fresh(KEY, unexpected_refresh).primary_secret == "new"
        assert [recorded.event.tag for recorded in ledger.read(KEY)] == [
            "lease.acquired",
            "lease.restored",
            "lease.acquired",
        ]
