"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from absl import logging as absl_logging

from rtdetrv2_train import build_model
from rtdetrv2_train.checkpoints.model_folder import ModelCard, write_model_folder
from tests.support import ROOT, fill_with_scores

_BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
SHARED = ROOT.parent / "shared"


def pytest_configure() -> None:
    """Have the workers of pytest-xdist, and what they start, share the cores instead of fighting over them."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ["OMP_NUM_THREADS"] = "1"
        torch.set_num_threads(1)
    # OpenVINO imports absl, whose handler closes the stream that it found when logging is configured later: pytest's.
    absl_logging.get_absl_handler().python_handler.stream = sys.__stderr__


@pytest.fixture(autouse=True)
def _leave_no_trace() -> Iterator[None]:
    """No test leaves a file in the checkout, nor another number of threads or another folder to the next one."""
    threads, folder, names = torch.get_num_threads(), Path.cwd(), _names_in_checkout()
    yield
    torch.set_num_threads(threads)
    os.chdir(folder)
    left = _names_in_checkout() - names
    assert not left, f"this test, or somebody meanwhile, has left {sorted(left)} in the checkout"


def _names_in_checkout() -> set[str]:
    runs = ROOT / "runs"
    names = {path.name for path in ROOT.iterdir() if not path.name.startswith((".", "__"))}
    return names | ({f"runs/{path.name}" for path in runs.iterdir()} if runs.is_dir() else set())


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
    with playwright.sync_playwright() as driver:
        candidates = [*map(shutil.which, _BROWSERS), driver.chromium.executable_path]
        path = next((found for found in candidates if found and Path(found).exists()), None)
        if path is None:
            pytest.skip("no Chromium was found: install Debian's `chromium`, or run `playwright install chromium`")
        opened = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``nano`` model of three classes with made-up weights, which is never sure."""
    folder = tmp_path_factory.mktemp("nano") / "model"
    model = build_model("nano", num_classes=3)
    fill_with_scores(model)
    card = ModelCard(model.architecture, ("red", "green", "blue"), (3, 5, 7))
    write_model_folder(folder, model.state_dict(), card)
    return folder
