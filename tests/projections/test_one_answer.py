"""One question has one answer, whichever command or method is asked."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ledger import ANY, Credentials, FileTokenStore, LeaseKey, LeaseLedger, PersistedTokens
from ledger.marker import mark_tokens_lifecycle_published_for_generation
from ledger.recovery import marked_for
from ledger.store_errors import (
    KeyringUnavailable,
    TokenIOError,
    TokenPermissionDenied,
    TokenSerializationError,
    TokenStoreUnavailable,
)
from ledger.stores.base import Expectation
from projections import AuditLog
from projections.cli.app import lease_ledger
from projections.doctor import examine
from projections.explain import explain_tokens
from projections.export import Selection, export_lines, selected
from projections.report.model import build_model
from projections.report.verdicts import LeaseVerdict
from projections.stale_markers import find_stale_markers
from projections.time_travel import At, LedgerStreams, as_of

START_MS = time.time_ns() // 1_000_000
KEY = LeaseKey.parse("dev:openai:work")
TOKENS = PersistedTokens("external_tokens", primary_secret="s", refresh_token="r", expires_at=2_000_000_000)


class Using:
    """A ledger and a store in one folder, and the commands that are asked about them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "tokens").mkdir(mode=0o700)
        self.store = FileTokenStore(folder / "tokens")
        self.back_ms = 0
        self.ledger = LeaseLedger.open(
            f"sqlite:///{folder}/auth.db?synchronous=normal", clock=lambda: START_MS - self.back_ms, actor="agent"
        )
        self.credentials = Credentials(self.ledger, self.store)

    def run(self, *arguments: str) -> tuple[int, list[Any], str]:
        """Exit code, JSON answers and standard error of a command."""
        paths = ["--db", str(self.folder / "auth.db"), "--store", str(self.folder / "tokens")]
        result = CliRunner().invoke(lease_ledger, [*paths, *arguments])
        return result.exit_code, [json.loads(line) for line in result.stdout.splitlines()], result.stderr


@pytest.fixture
def using(tmp_path: Path) -> Iterator[Using]:
    found = Using(tmp_path)
    with found.ledger:
        yield found


# What are the stored tokens to the lease?


class DiesBeforeSave(FileTokenStore):
    def save(self, key: LeaseKey, tokens: PersistedTokens, *, expect: Expectation = ANY) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def in_a_process_that_dies(using: Using) -> None:
    if os.fork() == 0:
        ledger = LeaseLedger.open(f"sqlite:///{using.folder}/auth.db?synchronous=normal")
        Credentials(ledger, DiesBeforeSave(using.folder / "tokens")).login(KEY, TOKENS)
        os._exit(1)
    os.wait()


def a_first_login_that_died_before_its_save(using: Using) -> None:
    in_a_process_that_dies(using)


def a_second_login_that_died_before_its_save(using: Using) -> None:
    using.credentials.login(KEY, TOKENS)
    in_a_process_that_dies(using)


def a_lease_with_nothing_stored(using: Using) -> None:
    using.ledger.acquire_lease(KEY, 2_000_000_000)


def older_tokens(using: Using) -> None:
    using.credentials.login(KEY, TOKENS)
    using.ledger.acquire_lease(KEY, 2_000_000_000)


def tokens_of_a_refresh_without_its_event(using: Using) -> None:
    using.credentials.login(KEY, TOKENS)
    attempt = using.ledger.begin_refresh(KEY, duration_ms=10**9)
    using.store.save(KEY, marked_for(using.ledger.plan_publication(KEY), attempt.id, TOKENS))


def tokens_of_a_lease_given_up(using: Using) -> None:
    using.credentials.login(KEY, TOKENS)
    using.ledger.release_lease(KEY)


def tokens_of_another_ledger(using: Using) -> None:
    with LeaseLedger.open("memory://") as other:
        Credentials(other, using.store).login(KEY, TOKENS)
    using.ledger.acquire_lease(KEY, 2_000_000_000)


def tokens_beyond_this_ledger(using: Using) -> None:
    using.ledger.acquire_lease(KEY, 2_000_000_000)
    using.store.save(KEY, mark_tokens_lifecycle_published_for_generation(TOKENS, 7))


def half_a_token_file(using: Using) -> None:
    using.credentials.login(KEY, TOKENS)
    using.store.path_of(KEY).write_bytes(b"{")


def tokens_in_force(using: Using) -> None:
    using.credentials.login(KEY, TOKENS)


def an_api_key(using: Using) -> None:
    using.credentials.login(KEY, PersistedTokens.api_key("secret"))


def nothing_at_all(using: Using) -> None:
    using.ledger.release_lease(KEY)


STORED: dict[Callable[[Using], None], str] = {
    a_first_login_that_died_before_its_save: "unsaved_login",
    a_second_login_that_died_before_its_save: "unsaved_login",
    a_lease_with_nothing_stored: "missing",
    older_tokens: "superseded",
    tokens_of_a_refresh_without_its_event: "unrecorded",
    tokens_of_a_lease_given_up: "orphaned",
    tokens_of_another_ledger: "foreign",
    tokens_beyond_this_ledger: "ahead",
    half_a_token_file: "unreadable",
    tokens_in_force: "current",
    an_api_key: "unmarked",
    nothing_at_all: "none",
}
IN_ORDER = ("current", "unmarked", "none")


@pytest.mark.parametrize("situation", STORED, ids=lambda situation: situation.__name__)
def test_what_the_stored_tokens_are_has_one_name(using: Using, situation: Callable[[Using], None]) -> None:
    situation(using)
    expected = STORED[situation]
    assert explain_tokens(using.ledger, using.store, KEY).code == expected
    _, (explained,), _ = using.run("explain", str(KEY), "--json")
    assert explained["verdict"]["tokens"]["code"] == expected

    listed = [] if expected == "none" else [expected]
    assert [token.found for token in find_stale_markers(using.ledger, using.store, [KEY])] == listed
    with AuditLog.open(using.ledger) as audit:
        assert [token.found for token in audit.stale_markers(using.store)] == listed
    assert [row["found"] for row in using.run("stale", "--json")[1]] == listed

    found = [] if expected in IN_ORDER else [expected]
    assert [diagnosis.condition for diagnosis in examine(using.ledger, using.store)] == found
    code, rows, _ = using.run("doctor", "--json")
    assert ([row["condition"] for row in rows], code) == (found, 1 if found else 0)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TokenSerializationError("half a file"), "unreadable"),
        (TokenPermissionDenied("mode 0000"), "unreadable"),
        (TokenIOError("bad sector"), "unreadable"),
        (TokenStoreUnavailable("nobody answers"), "unavailable"),
        (KeyringUnavailable("locked"), "unavailable"),
        (RuntimeError("canary"), "unavailable"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_one_key_runs_into_is_one_row_of_one_name(using: Using, error: Exception, expected: str) -> None:
    class Failing(FileTokenStore):
        def load(self, key: LeaseKey) -> PersistedTokens | None:
            if key != KEY:
                return super().load(key)
            raise error

    other = LeaseKey.parse("dev:other")
    for key in (KEY, other):
        using.credentials.login(key, TOKENS)
    store = Failing(using.folder / "tokens")
    explained = explain_tokens(using.ledger, store, KEY)
    listed = find_stale_markers(using.ledger, store, [])
    (diagnosis,) = examine(using.ledger, store)
    assert (explained.code, diagnosis.condition) == (expected, expected)
    assert [(row.key, row.found) for row in listed] == [(str(KEY), expected), (str(other), "current")]
    told = f"{explained.text} {diagnosis.text} {listed[0].detail}"
    assert ("canary" in told, "RuntimeError" in told) == (False, isinstance(error, RuntimeError))


class LoggedInMeanwhile(FileTokenStore):
    """Somebody logs in between the look at the ledger and the look at the store."""

    def __init__(self, using: Using) -> None:
        super().__init__(using.folder / "tokens")
        self._using: Using | None = using

    def load(self, key: LeaseKey) -> PersistedTokens | None:
        using, self._using = self._using, None
        if using is not None:
            using.credentials.login(key, TOKENS)
        return super().load(key)


@pytest.mark.parametrize(
    "ask",
    [
        lambda using, store: explain_tokens(using.ledger, store, KEY).code == "current",
        lambda using, store: [row.found for row in find_stale_markers(using.ledger, store, [KEY])] == ["current"],
        lambda using, store: list(examine(using.ledger, store)) == [],
    ],
    ids=["explain", "stale", "doctor"],
)
def test_tokens_of_a_login_made_during_the_look_are_not_taken_for_strange_ones(
    using: Using, ask: Callable[[Using, FileTokenStore], bool]
) -> None:
    using.credentials.login(KEY, TOKENS)
    assert ask(using, LoggedInMeanwhile(using))


# How far did the clock go back?


def test_how_far_a_clock_went_back_counts_from_the_latest_time_before_everywhere(using: Using) -> None:
    for back_ms in (0, 5_000, 4_000):
        using.back_ms = back_ms
        using.ledger.acquire_lease(KEY, 2_000_000_000)
    expected = [0, 5_000, 4_000]
    with AuditLog.open(using.ledger) as audit:
        assert [entry.clock_back_ms for entry in audit.timeline([KEY]).entries] == expected
        assert [audit.as_of(KEY, version).clock_back_ms for version in (1, 2, 3)] == expected
        rows = audit.query("SELECT running_at_ms - at_ms AS back FROM events ORDER BY position")
        assert [row["back"] for row in rows] == expected
    _, (page,), _ = using.run("timeline", "--json")
    assert [entry.get("clock_back_ms", 0) for entry in page["entries"]] == expected
    _, steps, _ = using.run("replay", "--json")
    assert [step.get("clock_back_ms", 0) for step in steps] == expected
    report = using.folder / "report.html"
    using.run("report", str(report), "--json")
    assert '"behind":[0,5000,4000]' in report.read_text()


def test_a_time_that_a_clock_came_back_to_is_before_everything_recorded_since_everywhere(using: Using) -> None:
    for back_ms in (0, 5_000, 4_000):
        using.back_ms = back_ms
        using.ledger.acquire_lease(KEY, 2_000_000_000)
    came_back_to = START_MS - 4_500
    for at_ms, seen in ((came_back_to, 0), (START_MS, 3)):
        at, until = f"@{at_ms}", Selection(until_ms=at_ms)
        with AuditLog.open(using.ledger) as audit:
            assert audit.as_of(KEY, at=at_ms).version == seen
            assert len(audit.timeline(until=at_ms).entries) == seen
            assert [lease.version for lease in audit.leases(at=at_ms)] == [seen] * bool(seen)
            assert audit.explain(KEY, at=at_ms).version == seen
        assert as_of(LedgerStreams(using.ledger), KEY, At(at_ms)).version == seen
        assert len(list(selected(using.ledger, until))) == seen
        model = build_model(using.ledger, until, "", lambda key, at_ms: LeaseVerdict("", ""), 10)
        assert len(model.events.id) == seen
        (difference,) = using.run("diff", str(KEY), "0", at, "--json")[1]
        assert difference["after_version"] == seen


# Which events?


@pytest.mark.parametrize(
    "command",
    [
        ("timeline", "--tag", "nonsense"),
        ("export", "--tag", "nonsense"),
        ("report", "PAGE", "--tag", "nonsense"),
        ("timeline", "--tag", "lease.nonsense"),
        ("replay", "--where", "tag=nonsense"),
        ("replay", "--where", "tag=lease.nonsense,generation>=1"),
        ("replay", "--where", "tag!=nonsense"),
    ],
    ids=" ".join,
)
def test_a_kind_of_event_that_there_is_not_is_wrong_usage_and_the_kinds_are_named(
    using: Using, command: tuple[str, ...]
) -> None:
    using.ledger.acquire_lease(KEY, 2_000_000_000)
    arguments = [str(using.folder / "page.html") if part == "PAGE" else part for part in command]
    code, answers, error = using.run(*arguments)
    assert (code, answers) == (2, [])
    assert "nonsense" in error and "lease.refresh_failed" in error


# An integer in JSON


@pytest.mark.parametrize(
    ("number", "shown"), [(2**53 - 1, 2**53 - 1), (2**53, str(2**53)), (2**64 - 2, str(2**64 - 2))]
)
def test_an_integer_that_json_readers_round_is_written_as_its_digits_everywhere(
    using: Using, number: int, shown: int | str
) -> None:
    using.ledger.acquire_lease(KEY, number)
    using.ledger.mark_expiring(KEY)
    key = str(KEY)
    expiries = {
        command: using.run(*command.split(), "--json")[1]
        for command in (f"status {key}", "leases", f"history {key}", f"as-of {key}", f"explain {key}", "timeline")
    }
    (status,), (lease,) = expiries[f"status {key}"], expiries["leases"]
    (then,), (explained,), (page,) = expiries[f"as-of {key}"], expiries[f"explain {key}"], expiries["timeline"]
    told = [status, lease, *expiries[f"history {key}"], then["state"], explained["verdict"]["state"], *page["entries"]]
    assert [answer["expires_at"] for answer in told] == [shown] * len(told)
    assert explained["verdict"]["proof"][0]["expires_at"] == shown
    _, steps, _ = using.run("replay", "--json")
    assert [step["after"]["expires_at"] for step in steps] == [shown, shown]
    exported = [json.loads(line) for line in export_lines(using.ledger, "jsonl")]
    assert exported[0]["expires_at"] == shown
