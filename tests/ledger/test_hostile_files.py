"""The file under an open ledger is replaced, removed or inherited by a fork."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ledger import (
    Credentials,
    FileTokenStore,
    LeaseKey,
    LeaseLedger,
    LedgerStorageError,
    PersistedTokens,
    TokensElsewhere,
)
from projections.audit import AuditLog

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


def test_what_a_forked_child_is_told_is_stored_outlives_the_parent_closing_its_ledger(tmp_path: Path) -> None:
    ledger = LeaseLedger.open(url(tmp_path))
    second = LeaseLedger.open(url(tmp_path))
    ledger.acquire_lease(KEY, 1)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for number in range(200):
                ledger.acquire_lease(KEY, 2)
                if number == 20:
                    os.write(writing, b"x")
            code = 0
        finally:
            os._exit(code)
    os.read(reading, 1)
    for _ in range(50):
        second.acquire_lease(KEY, 3)
    ledger.close()
    second.close()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.close(reading)
    os.close(writing)
    with LeaseLedger.open(url(tmp_path)) as reopened:
        assert reopened.snapshot(KEY).generation == 251
        assert reopened.verify().ok


def test_threads_that_fork_at_once_leave_the_ledger_usable(tmp_path: Path) -> None:
    with LeaseLedger.open(url(tmp_path)) as ledger:

        def fork_often(number: int) -> list[int]:
            codes = []
            for _ in range(15):
                child = os.fork()
                if child == 0:
                    os._exit(0)
                codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
                ledger.acquire_lease(LeaseKey("dev", f"thread-{number}"), 1)
            return codes

        with ThreadPoolExecutor(4) as threads:
            futures = [threads.submit(fork_often, number) for number in range(4)]
            assert [future.result(timeout=60) for future in futures] == [[0] * 15] * 4
        assert ledger.verify().checkpoint.position == 60
        assert ledger.acquire_lease(KEY, 2).generation == 1


def test_an_audit_log_goes_on_in_a_forked_child_and_in_its_parent(tmp_path: Path) -> None:
    with LeaseLedger.open(url(tmp_path)) as ledger, AuditLog.open(ledger) as audit:
        ledger.acquire_lease(KEY, 1)
        assert len(audit.history(KEY)) == 1
        child = os.fork()
        if child == 0:
            code = 1
            try:
                ledger.release_lease(KEY)
                code = 0 if len(audit.history(KEY)) == 2 else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert [entry.version for entry in audit.history(KEY)] == [1, 2]
        assert audit.verify().ok


@pytest.mark.parametrize("left_bytes", [0, 100, 4096, 6000])
def test_a_file_truncated_under_a_running_process_ends_in_one_clear_error(tmp_path: Path, left_bytes: int) -> None:
    ledger = LeaseLedger.open(url(tmp_path))
    with ledger:
        for _ in range(200):
            ledger.acquire_lease(KEY, 6)
    with LeaseLedger.open(url(tmp_path)) as damaged:
        os.truncate(tmp_path / "auth.db", left_bytes)
        with pytest.raises(
            LedgerStorageError, match=r"damaged|no SQLite database|holds no lease ledger|failed|no such"
        ):
            damaged.acquire_lease(LeaseKey.parse("dev:other"), 7)
            list(damaged.read_all())


def test_a_token_folder_that_is_gone_is_no_logout(tmp_path: Path) -> None:
    with LeaseLedger.open(url(tmp_path)) as ledger:
        credentials = Credentials(ledger, FileTokenStore(tmp_path / "tokens"))
        credentials.login(KEY, PersistedTokens("claude_ai_oauth", primary_secret="a", refresh_token="b"))
        ledger.mark_expiring(KEY)
        (tmp_path / "tokens").rename(tmp_path / "unmounted")
        with pytest.raises(TokensElsewhere):
            credentials.fresh(KEY, lambda tokens: tokens)
        assert ledger.snapshot(KEY).credential_present
        (tmp_path / "unmounted").rename(tmp_path / "tokens")
        assert credentials.fresh(KEY, lambda tokens: tokens).primary_secret == "a"


def test_after_a_sleep_of_a_day_an_open_attempt_of_somebody_else_still_gets_its_time(tmp_path: Path) -> None:
    now_ms, passed_s = 1_000_000_000_000, 0.0

    def monotonic() -> float:
        nonlocal passed_s
        passed_s += 0.05
        return passed_s

    def refresh(old: PersistedTokens) -> PersistedTokens:
        return PersistedTokens("claude_ai_oauth", primary_secret="new", refresh_token="c", expires_at=2_000_000_000)

    with LeaseLedger.open(url(tmp_path), clock=lambda: now_ms) as ledger, LeaseLedger.open(url(tmp_path)) as other:
        store = FileTokenStore(tmp_path / "tokens")
        credentials = Credentials(ledger, store, monotonic=monotonic, is_gone=lambda holder: False)
        credentials.login(
            KEY, PersistedTokens("claude_ai_oauth", primary_secret="a", refresh_token="b", expires_at=1_000_000_000)
        )
        other.begin_refresh(KEY, duration_ms=2_000)
        now_ms += 86_400_000
        assert credentials.fresh(KEY, refresh).primary_secret == "new"
        assert passed_s >= 2.0
        tags = [recorded.event.tag for recorded in ledger.read(KEY)]
        assert tags == [
            "lease.acquired",
            "lease.refresh_started",
            "lease.refresh_failed",
            "lease.refresh_started",
            "lease.refreshed",
        ]
