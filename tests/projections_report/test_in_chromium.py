"""The report in a real Chromium: looked at, clicked, slid, filtered, typed at, and compared with the ledger."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, BrowserContext
from projections_export.sample import HOSTILE, every_kind_of_event
from projections_report.browser import ReportPage, needs_chromium, running_chromium
from projections_report.incident import AGENTS, WORK, incident, large

from ledger import LeaseLedger, RecordedEvent
from projections.explain import explain
from projections.report import write_report
from projections.time_travel.streams import LedgerStreams

pytestmark = needs_chromium
OpenReport = Callable[..., ReportPage]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with running_chromium() as browser:
        yield browser


@pytest.fixture
def open_report(chromium: Browser, tmp_path: Path) -> Iterator[OpenReport]:
    """Opens a report on a ledger; at the end nothing may have been complained of or asked for."""
    opened: list[ReportPage] = []
    contexts: list[BrowserContext] = []

    def opening(ledger: LeaseLedger, **context: Any) -> ReportPage:
        path = write_report(ledger, tmp_path / "report.html")
        contexts.append(chromium.new_context(**{"viewport": {"width": 1280, "height": 800}, **context}))
        opened.append(ReportPage(contexts[-1].new_page(), path))
        return opened[-1]

    yield opening
    for report in opened:
        assert report.complaints == []
        assert [address.split("/")[0] for address in report.requests if not address.startswith("data:")] == ["file:"]
    for context in contexts:
        context.close()


def expected_snapshot(ledger: LeaseLedger, recorded: RecordedEvent) -> dict[str, str]:
    state = ledger.state(recorded.key, recorded.version)
    expiry = "" if not state.credential_present else "never" if state.expires_at is None else str(state.expires_at)
    return {
        "phase": state.phase or "",
        "generation": str(state.generation),
        "expires_at": expiry,
        "credential_present": str(state.credential_present).lower(),
        "published_at": "" if state.published_at is None else str(state.published_at),
    }


@pytest.mark.parametrize("make", [incident, every_kind_of_event, lambda: large(150, 9)])
def test_the_slider_shows_the_ledgers_own_snapshot_at_every_event(
    open_report: OpenReport, make: Callable[[], LeaseLedger]
) -> None:
    ledger = make()
    found = open_report(ledger).snapshots()
    assert found == [
        {"index": str(place), **expected_snapshot(ledger, recorded)} for place, recorded in enumerate(ledger.read_all())
    ]


def test_the_verdict_is_on_top_and_leads_to_its_proof(open_report: OpenReport) -> None:
    ledger = incident()
    report = open_report(ledger)
    first = report.page.locator("#verdicts li").first
    verdict = explain(LedgerStreams(ledger), WORK)
    assert first.locator(".key").inner_text() == str(WORK)
    assert first.locator(".code").inner_text() == verdict.code
    assert verdict.text in first.inner_text()
    first.locator("button").click()
    assert report.chosen() == verdict.proof[-1].position - 1


def test_a_click_on_a_mark_shows_that_event(open_report: OpenReport) -> None:
    report = open_report(incident())
    for index in range(len(list(incident().read_all()))):
        where = report.position(index)
        for _ in range(int(where["together"])):
            report.page.mouse.click(where["x"], where["y"])
            if report.chosen() == index:
                break
        assert report.chosen() == index
        assert report.page.locator("#rows .picked").count() == 1


def test_hovering_tells_what_a_mark_is(open_report: OpenReport) -> None:
    report = open_report(incident())
    where = report.position(0)
    report.page.mouse.move(where["x"], where["y"])
    assert "logged in: generation 1" in report.page.inner_text("#tip")
    report.page.mouse.move(report.box("#canvas")["x"] + 40, where["y"])
    assert report.page.inner_text("#tip") == str(WORK)
    report.page.mouse.move(5, 5)
    assert not report.page.locator("#tip").is_visible()


def test_filters_and_search_leave_what_matches(open_report: OpenReport) -> None:
    ledger = incident()
    events = list(ledger.read_all())
    report = open_report(ledger)
    page = report.page
    everything = f"{len(events)} events"
    assert report.shown() == everything
    page.select_option("#filter-key", label=str(WORK))
    assert report.shown() == f"{sum(one.key == WORK for one in events)} of {everything}"
    page.select_option("#filter-tag", label="refresh started")
    assert report.shown() == f"2 of {everything}"
    page.select_option("#filter-actor", label=AGENTS[1])
    assert report.shown() == f"1 of {everything}"
    page.click("#clear")
    assert report.shown() == everything
    for words, matching in (("INVALID_GRANT", 1), ("cleared", 1), (events[4].event.id, 2), ("browser dev:openai", 1)):
        page.fill("#search", words)
        assert report.shown() == f"{matching} of {everything}", words
    page.fill("#search", "nothing like it")
    assert report.shown() == f"0 of {everything}"
    assert page.inner_text("#details") == "No event matches."


def test_arrow_keys_step_through_the_events_wherever_the_focus_is(open_report: OpenReport) -> None:
    report = open_report(incident())
    page = report.page
    page.keyboard.press("Home")
    assert report.chosen() == 0
    page.focus("#canvas")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert report.chosen() == 2
    page.keyboard.press("ArrowLeft")
    assert report.chosen() == 1
    assert (page.text_content("#said") or "").endswith("prod:anthropic:ci, logged in: generation 1; then valid")
    page.focus("#rows")
    page.keyboard.press("ArrowDown")
    assert report.chosen() == 2
    assert page.get_attribute("#rows", "aria-activedescendant") == "event-2"
    page.focus("#slider")
    page.keyboard.press("ArrowRight")
    assert report.chosen() == 3
    assert "dev:openai:work" in (page.get_attribute("#slider", "aria-valuetext") or "")
    page.keyboard.press("End")
    assert report.chosen() == len(list(incident().read_all())) - 1


def test_up_and_down_change_the_lane(open_report: OpenReport) -> None:
    report = open_report(incident())
    report.slide(0)
    report.page.focus("#canvas")
    keys = [report.page.locator("#details > div").nth(1).inner_text()]
    for key in ("ArrowDown", "ArrowUp", "ArrowUp"):
        report.page.keyboard.press(key)
        keys.append(report.page.locator("#details > div").nth(1).inner_text())
    assert [key.split(" · ")[0] for key in keys] == [
        "dev:openai:work",
        "prod:anthropic:ci",
        "dev:openai:work",
        "dev:google:docs",
    ]


def test_the_tab_key_reaches_everything_in_order_and_the_focus_is_seen(open_report: OpenReport) -> None:
    page = open_report(incident()).page
    found = []
    while "rows" not in found:
        page.keyboard.press("Tab")
        found.append(page.evaluate("document.activeElement.id"))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", found
    order = ["theme", "search", "filter-key", "filter-actor", "filter-tag", "clear", "zoom-out", "zoom-in", "zoom-fit"]
    order += ["canvas", "before", "slider", "after", "rows"]
    assert [name for name in found if name in order] == order


def test_slash_goes_to_the_search(open_report: OpenReport) -> None:
    page = open_report(incident()).page
    page.keyboard.press("/")
    page.keyboard.type("504")
    assert page.input_value("#search") == "504"


def test_the_time_axis_zooms_and_pans(open_report: OpenReport) -> None:
    report = open_report(incident())
    page = report.page
    report.slide(7)

    def apart() -> float:
        return report.position(9)["x"] - report.position(4)["x"]

    whole = apart()
    page.click("#zoom-in")
    assert apart() == pytest.approx(2 * whole, rel=0.2)
    page.keyboard.press("-")
    page.keyboard.press("+")
    assert apart() == pytest.approx(2 * whole, rel=0.2)
    page.keyboard.press("0")
    assert apart() == whole
    report.slide(1)
    for _ in range(8):
        page.keyboard.press("+")
    assert report.position(1)
    report.slide(7)
    page.click("#zoom-fit")
    where = report.position(7)
    page.mouse.move(where["x"], where["y"])
    page.keyboard.down("Control")
    page.mouse.wheel(0, -200)
    page.keyboard.up("Control")
    assert report.position(7)["x"] == pytest.approx(where["x"], abs=4)
    assert apart() > 1.5 * whole
    box = report.box("#canvas")
    below = box["y"] + box["height"] - 8
    page.mouse.move(where["x"], below)
    page.mouse.down()
    page.mouse.move(where["x"] - 60, below, steps=5)
    page.mouse.up()
    assert report.position(7)["x"] == pytest.approx(where["x"] - 60, abs=8)


def test_lanes_are_of_leases_or_of_actors(open_report: OpenReport) -> None:
    report = open_report(incident())
    by_lease = [report.position(index)["y"] for index in (0, 1, 2)]
    report.page.get_by_label("By actor").check()
    by_actor = [report.position(index)["y"] for index in (0, 1, 2)]
    # Of leases sorted by name, that of work lies between the two others; of actors, the planner comes last.
    assert by_lease[2] < by_lease[0] < by_lease[1]
    assert by_actor[1] < by_actor[2] < by_actor[0]


def test_the_page_follows_the_preferred_theme_and_the_button(open_report: OpenReport) -> None:
    ledger = incident()
    dark, light = open_report(ledger, color_scheme="dark"), open_report(ledger, color_scheme="light")
    colour = "getComputedStyle(document.body).backgroundColor"
    first, second = dark.page.evaluate(colour), light.page.evaluate(colour)
    assert first != second
    before = light.picture()
    light.page.click("#theme")
    assert light.page.evaluate(colour) == first
    light.page.wait_for_function("was => document.getElementById('canvas').toDataURL() !== was", arg=before)
    schemes: tuple[tuple[Literal["dark", "light"], str], ...] = (("dark", first), ("light", second))
    for scheme, expected in schemes:
        light.page.emulate_media(color_scheme=scheme)
        light.page.wait_for_function(f"expected => {colour} === expected", arg=expected)


def test_text_that_means_harm_is_shown_as_text(open_report: OpenReport) -> None:
    report = open_report(every_kind_of_event(actor=f"</script>{HOSTILE}"))
    report.slide(0)
    assert "<img src=x onerror=alert(1)>" in report.page.inner_text("#details")
    assert report.page.locator("img").count() == 0
    assert report.page.locator("script").count() == 2


def test_the_policy_lets_nothing_out_and_nothing_else_run(chromium: Browser, tmp_path: Path) -> None:
    path = write_report(incident(), tmp_path / "report.html")
    context = chromium.new_context()
    report = ReportPage(context.new_page(), path)
    assert report.page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'out', () => 'held')") == "held"
    report.page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {text: 'window.ran = 1'}))"
    )
    assert report.page.evaluate("window.ran") is None
    assert all("Content Security Policy" in text for text in report.complaints)
    context.close()


def test_printing_shows_every_event_on_white(open_report: OpenReport) -> None:
    ledger = large(200, 5)
    report = open_report(ledger, color_scheme="dark")
    page = report.page
    assert page.locator("#rows .row").count() < 60
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.locator("#rows .row").count() == len(list(ledger.read_all()))
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("#slider").is_visible()
    page.emulate_media(media="null")
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.locator("#rows .row").count() < 60
    assert len(re.findall(rb"/Type /Page\b", page.pdf())) > 4


@pytest.mark.parametrize("width", [1280, 700, 400])
def test_nothing_hangs_over_the_side(open_report: OpenReport, width: int) -> None:
    page = open_report(incident(), viewport={"width": width, "height": 800}).page
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_report_on_nothing_says_so(open_report: OpenReport) -> None:
    report = open_report(LeaseLedger.open("memory://"))
    assert report.page.inner_text("#extent") == "No events"
    for key in ("ArrowRight", "ArrowUp", "+", "0"):
        report.page.keyboard.press(key)


def test_the_page_stays_quick_at_5_000_events(open_report: OpenReport) -> None:
    ledger = large(5000, 40)
    began = time.monotonic()
    report = open_report(ledger)
    assert time.monotonic() - began < 10
    timings = report.page.evaluate("""() => {
        const timed = (act) => { const began = performance.now(); act(); return performance.now() - began; };
        const slider = document.getElementById("slider"), search = document.getElementById("search");
        const slide = (place) => { slider.value = place; slider.dispatchEvent(new Event("input")); };
        const seek = (words) => { search.value = words; search.dispatchEvent(new Event("input")); };
        return {
            step: timed(() => { for (let place = 0; place < 50; place += 1) slide(place * 100); }) / 50,
            draw: timed(() => window.leaseReport.positionOf(0)),
            search: timed(() => seek("timeout")), clear: timed(() => seek("")),
        };
    }""")
    assert timings["step"] < 200, timings
    assert max(timings.values()) < 2000, timings
    assert report.shown().endswith("events")
