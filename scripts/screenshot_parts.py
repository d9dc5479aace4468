"""The picture of a report: the incident that the tests know too, at its end, in a window of 1280 x 800."""

import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]

from projections_report.browser import CHROMIUM, ReportPage, running_chromium  # noqa: E402
from projections_report.incident import incident  # noqa: E402

from projections.report import write_report  # noqa: E402


def main(picture: str) -> None:
    """Write the picture."""
    if CHROMIUM is None:
        sys.exit("screenshot_report: no Chromium here; install it")
    with tempfile.TemporaryDirectory() as folder, running_chromium() as browser:
        page = write_report(incident(), Path(folder) / "report.html", title="A login lost before noon")
        report = ReportPage(browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="light"), page)
        report.page.wait_for_timeout(300)
        report.page.screenshot(path=picture)
    print(f"{picture}: {Path(picture).stat().st_size:,} bytes")


main(sys.argv[1])
