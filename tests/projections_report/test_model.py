"""What a report shows is what the ledger says, and what it embeds can do nothing else."""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from projections_export.sample import CI as SAMPLE
from projections_export.sample import HOSTILE, every_kind_of_event
from projections_export.test_import import WHOLE_LIFE
from projections_report.incident import CI, WORK, Clock, agents, incident, large

from ledger import LeaseLedger
from projections.explain import explain
from projections.export import Selection
from projections.importing import import_trail
from projections.report import LeaseVerdict, TooManyEvents, report_html, write_report
from projections.time_travel.streams import LedgerStreams


def found(pattern: str, page: str) -> str:
    """What the pattern's group finds in a page; the page has it."""
    match = re.search(pattern, page, re.DOTALL)
    assert match is not None
    return match[1]


def model_of(page: str) -> dict[str, Any]:
    """The model that a page embeds."""
    embedded: dict[str, Any] = json.loads(found(r'<script type="application/json" id="data">(.*?)</script>', page))
    return embedded


def report(ledger: LeaseLedger, *arguments: Any, **options: Any) -> dict[str, Any]:
    return model_of(report_html(ledger, *arguments, **options))


@pytest.mark.parametrize("make", [incident, every_kind_of_event, lambda: large(300, 9)])
def test_the_state_after_every_event_is_the_ledgers(make: Callable[[], LeaseLedger]) -> None:
    ledger = make()
    model = report(ledger)
    events = model["events"]
    for index, recorded in enumerate(ledger.read_all()):
        state = ledger.state(recorded.key, recorded.version)
        assert model["keys"][events["key"][index]] == str(recorded.key)
        assert (events["id"][index], events["version"][index]) == (recorded.event.id, recorded.version)
        assert events["phase"][index] == (state.phase or "")
        assert int(events["generation"][index]) == state.generation
        assert events["credential"][index] == state.credential_present
        for name, value in (("expires_at", state.expires_at), ("published_at", state.published_at)):
            shown = events[name][index]
            assert (None if shown is None else int(shown)) == value


def test_the_verdicts_are_those_of_explain_with_the_events_that_prove_them() -> None:
    ledger = incident()
    model = report(ledger)
    for verdict in model["verdicts"]:
        key = next(key for key in ledger.keys() if str(key) == model["keys"][verdict["key"]])  # noqa: SIM118
        expected = explain(LedgerStreams(ledger), key)
        assert (verdict["code"], verdict["phase"]) == (expected.code, expected.state.phase or "")
        assert verdict["text"].startswith(expected.text)
        assert [model["events"]["id"][index] for index in verdict["proof"]] == [
            recorded.event.id for recorded in expected.proof
        ]


def test_verdicts_can_come_from_elsewhere() -> None:
    model = report(incident(), verdicts=lambda key, at_ms: LeaseVerdict("mine", f"{key} at {at_ms}"))
    assert model["verdicts"][0] == {
        "key": 0,
        "code": "mine",
        "text": "dev:openai:work at None",
        "phase": "",
        "proof": [],
    }


def test_attempts_tell_how_long_they_took_and_how_they_ended() -> None:
    model = report(incident())
    ended = [(attempt["outcome"], attempt["duration_ms"]) for attempt in model["attempts"]]
    assert ended == [("refreshed", 140_000), ("failed", 240_000), ("refreshed", 150_000), ("refused", 200_000)]


def test_every_end_of_an_attempt_has_its_name() -> None:
    ledger = every_kind_of_event()
    outcomes = [attempt["outcome"] for attempt in report(ledger)["attempts"]]
    assert outcomes == ["recovered", "abandoned", "refused"]
    clock = Clock()
    planner, coder, _ = agents(clock)
    planner.acquire_lease(WORK, 0)
    planner.begin_refresh(WORK)
    coder.acquire_lease(WORK, 0)
    attempt = planner.begin_refresh(WORK)
    coder.refresh_failed(WORK, False, attempt=attempt, abandoned=True)
    planner.begin_refresh(WORK)
    assert [attempt["outcome"] for attempt in report(planner)["attempts"]] == ["overtaken", "abandoned", "open"]


def test_an_attempt_whose_end_is_filtered_away_is_not_called_open() -> None:
    model = report(incident(), Selection(tags=("lease.refresh_started",)))
    assert {(attempt["outcome"], attempt["end"]) for attempt in model["attempts"]} == {
        ("refreshed", None),
        ("failed", None),
        ("refused", None),
    }


def test_a_report_on_a_time_judges_as_of_its_end_and_folds_from_the_beginning() -> None:
    ledger = incident()
    moments = [recorded.event.at for recorded in ledger.read_all()]
    model = report(ledger, Selection(keys=(WORK,), since_ms=moments[3], until_ms=moments[5]))
    assert model["events"]["generation"] == [1, 1, 2]
    assert [verdict["phase"] for verdict in model["verdicts"]] == ["valid"]


def test_a_clock_that_went_back_is_told() -> None:
    clock = Clock()
    ledger = agents(clock)[0]
    ledger.acquire_lease(CI, 0)
    clock.forward(-60)
    ledger.release_lease(CI)
    assert report(ledger)["events"]["behind"] == [0, 60_000]


def test_an_expiry_that_an_import_does_not_know_is_not_shown_as_never(tmp_path: Path) -> None:
    (tmp_path / "trail.jsonl").write_text("\n".join(WHOLE_LIFE))
    import_trail(tmp_path / "trail.jsonl", tmp_path / "imported.db")
    with LeaseLedger.open(f"sqlite:///{tmp_path / 'imported.db'}") as ledger:
        assert report(ledger)["events"]["expires_at"] == [*["unknown"] * 11, None]
        assert "not known here" in report(ledger)["verdicts"][0]["text"]


def test_more_events_than_a_page_can_show_are_refused_with_what_to_do() -> None:
    with pytest.raises(TooManyEvents, match="choose leases or a time range"):
        report_html(incident(), limit=5)


def test_no_text_can_leave_the_data_or_the_markup() -> None:
    ledger = every_kind_of_event(actor=f"</script>{HOSTILE}")
    page = report_html(ledger, title=f"<b>{HOSTILE}</b>")
    assert page.count("</script>") == 2
    assert page.count("<script") == 2
    assert "<img" not in page
    assert "\u2028" not in page.split('id="data">')[1]
    assert f"<b>{HOSTILE}</b>" in unescape(page)
    assert HOSTILE in model_of(page)["events"]["more"][0]["cause"]


def test_the_policy_names_the_one_script_and_the_one_style_and_allows_nothing_else() -> None:
    page = report_html(incident())
    policy = unescape(found(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page))
    bodies = (
        found(r"<style>(.*?)</style>", page),
        found(r"<script>(.*?)</script>", page),
    )
    style, script = (base64.b64encode(hashlib.sha256(body.encode()).digest()).decode() for body in bodies)
    assert policy == (
        f"default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    assert not re.findall(r"https?://", page)


def test_a_report_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    ledger, path = incident(), tmp_path / "report.html"
    assert write_report(ledger, path, Selection(keys=(SAMPLE,))) == path
    assert model_of(path.read_text())["events"]["id"] == []
    with pytest.raises(TooManyEvents):
        write_report(ledger, path, limit=1)
    with pytest.raises(FileNotFoundError):
        write_report(ledger, tmp_path / "no folder" / "report.html")
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_a_report_of_5_000_events_is_small() -> None:
    assert len(report_html(large(5000, 40))) < 2_000_000
