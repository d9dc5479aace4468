"""The reference runtime's audit trail becomes a ledger that can be replayed, and nothing in it is made up."""

import json
from pathlib import Path
from typing import Any

import pytest

from ledger import (
    AuthLeasePhase,
    LeaseKey,
    LeaseLedger,
    LeaseRefreshed,
    LeaseRefreshFailed,
    LeaseRefreshStarted,
    LeaseRestored,
    LeaseState,
    RecordedEvent,
)
from projections.export import export_lines
from projections.importing import IMPORT_ACTOR, AlreadyThere, ImportReport, KeptOut, import_trail, is_imported

KEY = LeaseKey.parse("dev:openai:work")
AT = "2026-02-03T04:05:06.789012345Z"
AT_MS = 1770091506789


def line(
    action: str,
    before: Any,
    after: Any,
    *,
    key: str = "dev:openai:work",
    at: Any = AT,
    target: str = "meerkat::auth::audit",
    **changed: Any,
) -> str:
    """One line as the runtime's subscriber writes it: phases as Rust shows them, no profile where there is none."""
    realm, binding, *profile = key.split(":")
    fields = {
        "message": "auth lease transition",
        "lease_key": key,
        "realm": realm,
        "binding": binding,
        "action": action,
        "from_phase": before,
        "to_phase": after,
    }
    if profile:
        fields["profile"] = profile[0]
    fields |= changed
    fields = {name: value for name, value in fields.items() if value is not ...}
    return json.dumps({"timestamp": at, "level": "INFO", "fields": fields, "target": target})


def imported(tmp_path: Path, *lines: str | bytes) -> tuple[ImportReport, list[RecordedEvent], dict[str, LeaseState]]:
    """Import these lines; the report, and the events."""
    trail, target = tmp_path / "trail.jsonl", tmp_path / "imported.db"
    trail.write_bytes(b"".join((text if isinstance(text, bytes) else text.encode()) + b"\n" for text in lines))
    report = import_trail(trail, target)
    with LeaseLedger.open(f"sqlite:///{target}") as ledger:
        assert ledger.verify().ok
        return report, list(ledger.read_all()), {str(key): ledger.state(key) for key in ledger.keys()}  # noqa: SIM118  # no mapping


WHOLE_LIFE = (
    line("acquire_lease", "Valid", "Valid"),
    line("mark_expiring", "Valid", "Expiring"),
    line("begin_refresh", "Expiring", "Refreshing"),
    line("refresh_failed_transient", "Refreshing", "Expiring"),
    line("begin_refresh", "Expiring", "Refreshing"),
    line("complete_refresh", "Refreshing", "Valid", at="2026-02-03T04:05:09Z"),
    line("begin_refresh", "Valid", "Refreshing"),
    line("refresh_failed_permanent", "Refreshing", "ReauthRequired"),
    line("acquire_lease", "ReauthRequired", "Valid"),
    line("mark_reauth_required", "Valid", "ReauthRequired"),
    line("restore_auth_lifecycle_snapshot", "ReauthRequired", "Valid"),
    line("release_lease", "Valid", "Released"),
)


def test_a_whole_life_becomes_events_one_a_line_at_the_times_of_the_lines(tmp_path: Path) -> None:
    report, events, _ = imported(tmp_path, *WHOLE_LIFE)
    assert (report.lines, report.imported, report.events, report.leases, report.kept_out) == (12, 12, 12, 1, 0)
    assert [recorded.event.tag.removeprefix("lease.") for recorded in events] == [
        "acquired",
        "expiring",
        "refresh_started",
        "refresh_failed",
        "refresh_started",
        "refreshed",
        "refresh_started",
        "refresh_failed",
        "acquired",
        "reauth_required",
        "restored",
        "released",
    ]
    assert [recorded.event.at for recorded in events] == [AT_MS] * 5 + [1770091509000] + [AT_MS] * 6


def test_what_the_trail_does_not_tell_is_said_to_be_unknown(tmp_path: Path) -> None:
    _, events, _ = imported(tmp_path, *WHOLE_LIFE)
    causes = [recorded.event.cause or "" for recorded in events]
    assert causes[0] == (
        "imported from trail.jsonl:1 (acquire_lease); expiry unknown; generation counted from the trail, so at least "
        "that; published at the time of the line"
    )
    assert causes[1] == "imported from trail.jsonl:2 (mark_expiring)"
    assert "holder and duration unknown" in causes[2]
    assert "error unknown" in causes[3]
    assert "known by its phase alone; expiry unknown" in causes[10]
    assert all(is_imported(recorded.event) and recorded.event.actor == IMPORT_ACTOR for recorded in events)
    started = events[2].event
    assert isinstance(started, LeaseRefreshStarted)
    holder = started.holder
    assert (holder.host, holder.boot, holder.pid) == ("unknown", "unknown", 0)
    assert [
        getattr(recorded.event, "generation", None) for recorded in events if hasattr(recorded.event, "generation")
    ] == [
        1,
        2,
        3,
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"not json", "it is no JSON"),
        (b'{"target": "\xff"}', "it is no JSON"),
        (b"[1]", "it is no JSON object"),
        (b"[" * 20_000, "it is no JSON"),
        (b'{"target": "meerkat::auth::audit"}', "it has no fields"),
        (line("acquire_lease", "Valid", "Valid", at="yesterday"), "its timestamp is no RFC 3339"),
        (line("acquire_lease", "Valid", "Valid", at="2026-02-03T04:05:06"), "its timestamp is no RFC 3339"),
        (line("acquire_lease", "Valid", "Valid", at="2026-02-30T04:05:06Z"), "no date of the calendar"),
        (line("acquire_lease", "Valid", "Valid", at="1969-12-31T23:59:59Z"), "before 1970"),
        (line("acquire_lease", "Valid", "Valid", at=7), "its timestamp is no RFC 3339"),
        (line("acquire_lease", "Valid", "Valid", lease_key="dev"), "its lease key cannot be read"),
        (line("acquire_lease", "Valid", "Valid", lease_key=...), "its lease_key is missing"),
        (line("acquire_lease", "Valid", "Valid", realm="prod"), "contradicts its realm, binding and profile"),
        (line("acquire_lease", "Valid", "Valid", profile=3), "its profile is no text"),
        (line("acquire_lease", "Valid", "Gone"), "'Gone' is no phase"),
        (line("acquire_lease", "Valid", ...), "its to_phase is missing"),
        (line("guess", "Valid", "Valid"), "'guess' is no transition"),
        (line("complete_refresh", "Valid", "Valid"), "complete_refresh does not start from valid"),
        (line("begin_refresh", "Released", "Refreshing"), "begin_refresh does not start from released"),
        (line("begin_refresh", "Valid", "Expiring"), "begin_refresh does not lead from valid to expiring"),
        (line("mark_expiring", "Expiring", "Expiring"), "mark_expiring does not start from expiring"),
    ],
)
def test_a_line_that_cannot_be_used_is_kept_out_with_its_number_and_the_reason(
    tmp_path: Path, text: str | bytes, reason: str
) -> None:
    good = line("acquire_lease", "Valid", "Valid")
    report, events, _ = imported(tmp_path, good, text, good)
    assert (report.imported, len(events), report.kept_out) == (2, 2, 1)
    assert report.listed[0].line == 2
    assert reason in report.listed[0].reason


def test_a_line_that_contradicts_the_lines_before_it_is_kept_out(tmp_path: Path) -> None:
    report, events, states = imported(
        tmp_path,
        line("acquire_lease", "Valid", "Valid"),
        line("complete_refresh", "Refreshing", "Valid"),
        line("mark_expiring", "Valid", "Expiring"),
    )
    assert report.listed == (KeptOut(2, "the trail says from refreshing, but the lines before leave the lease valid"),)
    assert (len(events), states[str(KEY)].phase) == (2, AuthLeasePhase.EXPIRING)


def test_a_login_after_a_restart_of_the_runtime_is_taken_and_the_gap_is_told(tmp_path: Path) -> None:
    report, events, _ = imported(
        tmp_path,
        line("acquire_lease", "Valid", "Valid"),
        line("begin_refresh", "Valid", "Refreshing"),
        line("acquire_lease", "Valid", "Valid"),
    )
    assert report.kept_out == 0
    assert "the trail says from valid, but the lines before leave the lease refreshing" in (events[2].event.cause or "")


def test_a_trail_that_begins_in_the_middle_of_a_life_says_so_in_an_event_of_its_own(tmp_path: Path) -> None:
    report, events, states = imported(tmp_path, line("complete_refresh", "Refreshing", "Valid"))
    assert (report.imported, report.events) == (1, 2)
    restored, refreshed = (recorded.event for recorded in events)
    assert isinstance(restored, LeaseRestored) and isinstance(refreshed, LeaseRefreshed)
    assert (restored.snapshot.phase, restored.snapshot.generation) == ("refreshing", 1)
    assert (restored.cause or "").startswith(
        "the trail begins here: trail.jsonl:1 finds the lease refreshing; how it came "
    )
    assert (refreshed.generation, states[str(KEY)].phase) == (2, "valid")


def test_other_lines_are_skipped_and_counted(tmp_path: Path) -> None:
    report, events, _ = imported(
        tmp_path,
        b"",
        line("acquire_lease", "Valid", "Valid", target="meerkat::session"),
        b'{"level":"INFO"}',
        line("admit_oauth_browser_flow", "ReauthRequired", "ReauthRequired"),
        line("create_profile", ..., ..., lease_key=..., binding_key="dev:openai"),
    )
    assert events == []
    assert (report.skipped_blank, report.skipped_other_targets) == (1, 2)
    assert (report.skipped_login_flows, report.skipped_other_records, report.kept_out) == (1, 1, 0)


def test_actions_of_later_versions_of_the_runtime_are_understood(tmp_path: Path) -> None:
    report, events, states = imported(
        tmp_path,
        line("acquire_lease", "Valid", "Valid"),
        line("begin_refresh", "Valid", "Refreshing"),
        line("refresh_failed", "Refreshing", "Expiring"),
        line("begin_refresh", "Expiring", "Refreshing"),
        line("refresh_failed", "Refreshing", "ReauthRequired"),
        line("clear_credential_lifecycle", "ReauthRequired", "ReauthRequired"),
        line("rollback_release_lease", "Released", "Valid"),
    )
    assert (report.kept_out, states[str(KEY)].phase) == (0, "valid")
    failed = [recorded.event for recorded in events if isinstance(recorded.event, LeaseRefreshFailed)]
    assert [event.permanent for event in failed] == [False, True]


def test_leases_of_one_trail_are_kept_apart(tmp_path: Path) -> None:
    _, _, states = imported(
        tmp_path,
        line("acquire_lease", "Valid", "Valid", key="dev:openai"),
        line("acquire_lease", "Valid", "Valid", key="dev:openai:work"),
        line("release_lease", "Valid", "Released", key="dev:openai"),
    )
    assert {key: state.phase for key, state in states.items()} == {"dev:openai": None, "dev:openai:work": "valid"}


def test_a_second_import_into_the_same_ledger_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    imported(tmp_path, *WHOLE_LIFE)
    before = (tmp_path / "imported.db").read_bytes()
    with pytest.raises(AlreadyThere, match="name another file"):
        import_trail(tmp_path / "trail.jsonl", tmp_path / "imported.db")
    assert (tmp_path / "imported.db").read_bytes() == before


def test_a_trail_that_is_not_there_makes_no_ledger(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        import_trail(tmp_path / "none.jsonl", tmp_path / "imported.db")
    assert not (tmp_path / "imported.db").exists()


def test_a_line_too_long_for_memory_is_kept_out_and_the_next_one_read(tmp_path: Path) -> None:
    report, events, _ = imported(tmp_path, b"x" * (5 << 19), line("acquire_lease", "Valid", "Valid"))
    assert (report.lines, report.listed[0].reason, len(events)) == (2, "it is longer than 1,048,576 bytes", 1)


def test_a_last_line_without_its_end_is_read(tmp_path: Path) -> None:
    (tmp_path / "trail.jsonl").write_text(WHOLE_LIFE[0])
    assert import_trail(tmp_path / "trail.jsonl", tmp_path / "imported.db").imported == 1


def test_a_file_name_that_is_no_text_is_still_named(tmp_path: Path) -> None:
    trail = tmp_path / b"\xff\xfe.jsonl".decode(errors="surrogateescape")
    trail.write_text(WHOLE_LIFE[0] + "\n")
    assert import_trail(trail, tmp_path / "imported.db").imported == 1


def test_an_imported_ledger_exports_like_any_other(tmp_path: Path) -> None:
    imported(tmp_path, *WHOLE_LIFE)
    with LeaseLedger.open(f"sqlite:///{tmp_path / 'imported.db'}") as ledger:
        assert len(list(export_lines(ledger, "ocsf"))) == 12
