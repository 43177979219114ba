"""Make the pictures of README.md from the report of a run: ``make pictures``, after ``make quickstart``.

Needs Chromium and Playwright, as the tests of pages do.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
from pathlib import Path

from PIL import Image

from rtdetrv2_train.runs.folder import newest_run

FOLDER = Path(__file__).parent / "pictures"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUALITY = 85
# Name of the picture, width and height of the window, colour scheme, section to begin with.
SHOTS = (
    ("report", 1200, 1010, "light", "header"),
    ("curves", 1200, 1060, "light", "#curves"),
    ("phone", 390, 844, "dark", "header"),
)


def main() -> None:
    """Open the report in a browser and save what is seen of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", default="runs/quickstart", help="folder of a run, or of runs: the newest")
    report = newest_run(parser.parse_args().run) / "report.html"
    if not report.is_file():
        sys.exit(f"error: there is no '{report}': run `make quickstart` first")
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        sys.exit(f"error: no browser is installed: none of {', '.join(BROWSERS)}")
    from playwright.sync_api import sync_playwright

    FOLDER.mkdir(exist_ok=True)
    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        for name, width, height, scheme, section in SHOTS:
            context = opened.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
            page = context.new_page()
            page.goto(report.resolve().as_uri())
            page.add_style_tag(content="html { scroll-behavior: auto !important; scroll-padding-top: 1rem }")
            page.get_by_role("tab", name="Typical").click()
            page.evaluate(f"document.querySelector('{section}').scrollIntoView()")
            page.wait_for_timeout(300)
            path = FOLDER / f"{name}.webp"
            Image.open(io.BytesIO(page.screenshot())).save(path, quality=QUALITY)
            sys.stdout.write(f"written {path}\n")
            context.close()
        opened.close()


if __name__ == "__main__":
    main()
