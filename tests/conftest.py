"""Fixtures shared by all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real images (``tiny_coco`` and ``bccd``), kept beside a development checkout."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("the folder of real images, ../shared/data, is not beside this checkout")
    return folder
