"""A real Chromium for tests, and a page in it that tells when anything went wrong."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Dialog, FloatRect, Page, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Chromium's own sandbox needs a user other than root.
    *(("--no-sandbox",) if os.geteuid() == 0 else ()),
)

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here; install it to test reports in a browser"
)


@contextlib.contextmanager
def running_chromium() -> Iterator[Browser]:
    """Chromium, headless, until the end of the block."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


class ReportPage:
    """A report opened from disk.

    Attributes:
        page: The page.
        complaints: What its console and its policy complained of.
        requests: Every address it asked for.
    """

    def __init__(self, page: Page, path: Path) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", self._dismiss)
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready=yes]")

    def _dismiss(self, dialog: Dialog) -> None:
        self.complaints.append(f"dialog {dialog.message}")
        dialog.dismiss()

    def snapshots(self) -> list[dict[str, str]]:
        """What the details show while the slider goes through every event in sight, its index included."""
        found: list[dict[str, str]] = self.page.evaluate("""() => {
            const slider = document.getElementById("slider"), found = [];
            for (let place = 0; place <= Number(slider.max); place += 1) {
                slider.value = place;
                slider.dispatchEvent(new Event("input"));
                const fields = [...document.querySelectorAll("#snapshot [data-field]")];
                const index = document.getElementById("details").dataset.index;
                const shown = fields.map((one) => [one.dataset.field, one.dataset.value]);
                found.push({ index, ...Object.fromEntries(shown) });
            }
            return found;
        }""")
        return found

    def chosen(self) -> int:
        """The chosen event, counted from 0 in the report."""
        return int(self.page.get_attribute("#details", "data-index") or -1)

    def slide(self, place: int) -> None:
        """Move the slider to the nth event in sight."""
        self.page.eval_on_selector(
            "#slider", "(slider, place) => { slider.value = place; slider.dispatchEvent(new Event('input')); }", place
        )

    def position(self, index: int) -> dict[str, float]:
        """Where an event is drawn; it is."""
        where: dict[str, float] | None = self.page.evaluate("index => window.leaseReport.positionOf(index)", index)
        assert where is not None
        return where

    def box(self, selector: str) -> FloatRect:
        """Where an element is."""
        box = self.page.locator(selector).bounding_box()
        assert box is not None
        return box

    def shown(self) -> str:
        """How many events are in sight, in the page's words."""
        return self.page.inner_text("#count")

    def picture(self) -> str:
        """What the timeline looks like, to compare."""
        drawn: str = self.page.evaluate("() => document.getElementById('canvas').toDataURL()")
        return drawn
