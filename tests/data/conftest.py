"""Small data sets in COCO's format, made as tests need them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

MakeSet = Callable[..., tuple[Path, Path]]


@pytest.fixture
def make_set(tmp_path: Path) -> MakeSet:
    """Writes images of noise with two boxes each; returns the annotation file and the image folder."""

    def make(count: int = 4, size: tuple[int, int] = (48, 64), name: str = "set", **changes: Any) -> tuple[Path, Path]:
        height, width = size
        folder = tmp_path / name
        folder.mkdir()
        generator = np.random.default_rng(0)
        images, annotations = [], []
        for number in range(count):
            pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
            images.append({"id": 10 + number, "file_name": f"{number}.png", "height": height, "width": width})
            for box, category_id in (([4.0, 6.0, 20.0, 10.0], 3), ([30.5, 12.25, 25.0, 30.0], 7)):
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": 10 + number, "category_id": category_id, "bbox": box}
                )
        content = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
            **changes,
        }
        annotation_file = tmp_path / f"{name}.json"
        annotation_file.write_text(json.dumps(content))
        return annotation_file, folder

    return make
