"""Fixtures shared by all tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with real images (``tiny_coco`` and ``bccd``), kept beside a development checkout.

    The images are links; annotation files are copies, so that their indices are built in the test's folder.
    """
    original = SHARED / "data"
    if not original.is_dir():
        pytest.skip("the folder of real images, ../shared/data, is not beside this checkout")
    folder = tmp_path_factory.mktemp("data")
    for data_set in filter(Path.is_dir, original.iterdir()):
        (folder / data_set.name).mkdir()
        for part in filter(Path.is_dir, data_set.iterdir()):
            if part.name == "annotations":
                shutil.copytree(part, folder / data_set.name / part.name, ignore=shutil.ignore_patterns(".*"))
            else:
                (folder / data_set.name / part.name).symlink_to(part)
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, driven by Playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    path = next((found for name in _BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"no browser is installed: none of {', '.join(_BROWSERS)}")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()
