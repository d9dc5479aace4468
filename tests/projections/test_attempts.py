"""How an attempt ended: one answer, whoever is asked."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger import AttemptEnd, LeaseKey, LeaseLedger, LeaseTransitionError
from ledger.commands import FailRefresh
from projections.audit import AuditLog
from projections.export import EVERYTHING, export_lines
from projections.report.model import build_model
from projections.report.verdicts import LeaseVerdict

KEYS = [LeaseKey.parse(text) for text in ("dev:openai", "dev:openai:work")]
KEY = KEYS[0]
COMMANDS = ("login", "late", "begin", "complete", "recover", *AttemptEnd, "refuse", "reauth", "logout", "back", "snap")


class Player:
    """Gives commands to a ledger as they come, with every snapshot and attempt it has seen at hand."""

    def __init__(self) -> None:
        self._now_ms = 1_700_000_000_000
        self.ledger = LeaseLedger.open("memory://", clock=lambda: self._now_ms, actor="agent")
        self._snapshots = {key: [self.ledger.snapshot(key)] for key in KEYS}
        self._attempts: dict[LeaseKey, list[str]] = {key: [] for key in KEYS}

    def play(self, key: LeaseKey, command: str, number: int) -> None:
        self._now_ms += (number - 3) * 1_000
        try:
            self._play(key, command, number)
        except LeaseTransitionError:
            return

    def _play(self, key: LeaseKey, command: str, number: int) -> None:
        ledger, attempts, snapshots = self.ledger, self._attempts[key], self._snapshots[key]
        match command:
            case "login":
                ledger.acquire_lease(key, 5)
            case "late":
                ledger.acquire_lease(key, 5, attempt=attempts[number % len(attempts)] if attempts else None)
            case "begin":
                attempts.append(ledger.begin_refresh(key).id)
            case "complete" | "recover":
                ledger.complete_refresh(key, 6, 5, recovered=command == "recover")
            case "refuse":
                ledger.refresh_failed(key, True, ended="answered")
            case "reauth":
                ledger.mark_reauth_required(key)
            case "logout":
                ledger.release_lease(key)
            case "back":
                ledger.restore_auth_lifecycle_snapshot(key, snapshots[number % len(snapshots)])
            case "snap":
                snapshots.append(ledger.snapshot(key))
            case _:
                ledger.refresh_failed(key, False, ended=command)


def of_the_view(ledger: LeaseLedger) -> list[tuple[Any, ...]]:
    with AuditLog.open(ledger) as audit:
        return [
            (row["started_position"], row["ended_version"], row["outcome"], row["ended"], row["took_ms"])
            for row in audit.attempts()
        ]


def of_the_report(ledger: LeaseLedger) -> list[tuple[Any, ...]]:
    model = build_model(ledger, EVERYTHING, "", lambda key, at_ms: LeaseVerdict("", ""), 1_000)
    versions, positions = model.events.version, model.events.position
    return [
        (
            positions[attempt.start],
            None if attempt.end is None else versions[attempt.end],
            attempt.outcome,
            attempt.ended,
            attempt.duration_ms,
        )
        for attempt in model.attempts
    ]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(COMMANDS), st.integers(0, 9)), max_size=40))
def test_whatever_happened_the_report_and_the_view_say_the_same(steps: list[tuple[LeaseKey, str, int]]) -> None:
    player = Player()
    for key, command, number in steps:
        player.play(key, command, number)
    assert of_the_report(player.ledger) == of_the_view(player.ledger)


@pytest.mark.parametrize("read", [of_the_view, of_the_report])
@pytest.mark.parametrize(("ended_ms", "took_ms"), [(1_005, 5), (1_000, 0), (999, None)])
def test_how_long_an_attempt_took_is_not_told_by_a_clock_that_went_back(
    read: Any, ended_ms: int, took_ms: int | None
) -> None:
    clock = [1_000]
    ledger = LeaseLedger.open("memory://", clock=lambda: clock[0], actor="agent")
    ledger.acquire_lease(KEY, 5)
    ledger.begin_refresh(KEY)
    clock[0] = ended_ms
    ledger.refresh_failed(KEY, False)
    ((_, _, _, _, took),) = read(ledger)
    assert took == took_ms


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[LeaseLedger]:
    with LeaseLedger.open(f"sqlite:///{tmp_path}/auth.db?synchronous=normal", actor="agent") as opened:
        opened.acquire_lease(KEY, 5)
        yield opened


@pytest.mark.parametrize("read", [of_the_view, of_the_report])
def test_an_attempt_whose_late_response_was_adopted_came_late(ledger: LeaseLedger, read: Any) -> None:
    attempt = ledger.begin_refresh(KEY)
    ledger.refresh_failed(KEY, False, attempt=attempt, abandoned=True)
    ledger.acquire_lease(KEY, 9, attempt=attempt.id)
    ((_, ended_version, outcome, ended, _),) = read(ledger)
    assert (ended_version, outcome, ended) == (4, "late", None)


@pytest.mark.parametrize("read", [of_the_view, of_the_report])
def test_an_attempt_that_a_restore_revived_after_its_failure_is_open(ledger: LeaseLedger, read: Any) -> None:
    attempt = ledger.begin_refresh(KEY)
    refreshing = ledger.snapshot(KEY)
    ledger.refresh_failed(KEY, False, attempt=attempt, ended="not_sent")
    ledger.restore_auth_lifecycle_snapshot(KEY, refreshing)
    ((_, ended_version, outcome, ended, _),) = read(ledger)
    assert (ended_version, outcome, ended) == (None, "open", None)


@pytest.mark.parametrize("ended", [*AttemptEnd, None])
def test_how_an_attempt_ended_is_in_every_list_and_export(ledger: LeaseLedger, ended: AttemptEnd | None) -> None:
    ledger.begin_refresh(KEY)
    ledger.refresh_failed(KEY, False, ended=ended)
    with AuditLog.open(ledger) as audit:
        assert [row["ended"] for row in audit.attempts(KEY)] == [ended]
        assert audit.history(KEY)[-1].ended == audit.timeline([KEY]).entries[-1].ended == ended
        assert audit.query("SELECT ended FROM events WHERE tag = 'lease.refresh_failed'") == [{"ended": ended}]
    last = {form: list(export_lines(ledger, form))[-1] for form in ("jsonl", "ocsf", "cloudevents")}
    told = {
        "jsonl": json.loads(last["jsonl"]),
        "ocsf": json.loads(last["ocsf"])["unmapped"],
        "cloudevents": json.loads(last["cloudevents"])["data"],
    }
    assert {form: fields.get("ended") for form, fields in told.items()} == dict.fromkeys(told, ended)
    rows = list(csv.DictReader(io.StringIO("".join(export_lines(ledger, "csv")))))
    assert rows[-1]["ended"] == (ended or "")


def test_a_way_of_ending_of_a_newer_version_is_shown_as_it_stands(ledger: LeaseLedger) -> None:
    attempt = ledger.begin_refresh(KEY)
    newer = FailRefresh(False, "", attempt.id, ended=AttemptEnd("eaten_by_proxy"))
    ledger._executor.execute(KEY, newer, cause=None, correlation_id=None)
    for read in (of_the_view, of_the_report):
        assert [row[2:4] for row in read(ledger)] == [("failed", "eaten_by_proxy")]
    with AuditLog.open(ledger) as audit:
        entry = audit.history(KEY)[-1]
    assert (entry.ended, entry.summary) == ("eaten_by_proxy", "refresh ended eaten_by_proxy")
