"""Fixtures shared by all tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

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
