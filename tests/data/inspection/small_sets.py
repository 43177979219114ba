"""Small data sets with and without faults, and what inspections find in them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.images.decode import Reading
from rtdetrv2_train.data.inspection.findings import Finding
from rtdetrv2_train.data.inspection.inspection import Inspected, inspect_set
from rtdetrv2_train.data.inspection.looks_file import LooksFile
from rtdetrv2_train.data.reading import SetReader
from rtdetrv2_train.data.shapes import draw_shapes_image
from rtdetrv2_train.data.table_builder import TableBuilder

WIDTH, HEIGHT = 200, 150
Row = tuple[str, Sequence[float]]
"""Name of a class, and a box as xywh."""

CLEAN: list[list[Row]] = [
    [("cat", (10, 10, 40, 30)), ("dog", (70, 20, 50, 60)), ("cat", (120, 90, 60, 40))],
    [("dog", (0, 0, 200, 150))],
    [("cat", (20.5, 30.25, 80, 50)), ("dog", (60, 50, 90, 70)), ("dog", (100, 5, 60, 40))],
    [],
]


def table(
    images: Sequence[Sequence[Row]],
    classes: Sequence[str] = ("cat", "dog"),
    size: tuple[int, int] = (HEIGHT, WIDTH),
    crowd: Iterable[Row] = (),
    names: Sequence[str] = (),
    folder: str = "images",
) -> AnnotationTable:
    """A table without any file; crowd regions are in the first image."""
    builder = TableBuilder(Path("annotations.json"), Path(folder), dict(enumerate(classes, start=1)))
    ids = {name: number for number, name in enumerate(classes, start=1)}
    number = 0
    for image, rows in enumerate(images):
        builder.add_image(image + 1, names[image] if names else f"{image}.jpg", *size)
        for name, box in rows:
            number += 1
            builder.add_annotation(image + 1, ids.get(name, 99), box, number)
    for name, box in crowd:
        builder.add_annotation(1, ids[name], box, crowd=True)
    return builder.table()


def by_check(findings: Iterable[Finding]) -> dict[str, Finding]:
    """Findings by the names of their checks, each of which may come once."""
    found: dict[str, Finding] = {}
    for each in findings:
        assert each.check not in found
        found[each.check] = each
    return found


def picture(seed: int, width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """Shapes on a background, in RGB; other seeds give other pictures."""
    side = max(width, height)
    return np.ascontiguousarray(draw_shapes_image(side, (seed, 11))[0][:height, :width])


def write_set(root: Path, parts: dict[str, dict[str, NDArray[np.uint8]]], **entries: dict[str, dict[str, Any]]) -> Path:
    """A set in COCO's format of pictures by their names; each has two boxes of its own.

    Args:
        root: its folder.
        parts: pictures of each part.
        entries: what is to be changed in the entry of an image, by its part and name.
    """
    (root / "annotations").mkdir(parents=True)
    seed = 0
    for part, pictures in parts.items():
        (root / part).mkdir()
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number, (name, pixels) in enumerate(pictures.items(), start=1):
            seed += 1
            generator = np.random.default_rng(seed)
            height, width = pixels.shape[:2]
            cv2.imwrite(str(root / part / name), pixels[..., ::-1] if pixels.ndim == 3 else pixels)
            entry = {"id": number, "file_name": name, "width": width, "height": height}
            images.append(entry | entries.get(part, {}).get(name, {}))
            for category in (1, 2):
                low, sides = generator.uniform(0, 0.4, 2), generator.uniform(0.2, 0.5, 2)
                box = [*(low * [width, height]), *(sides * [width, height])]
                annotations.append({"image_id": number, "category_id": category, "bbox": box})
        categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))
    return root


def inspected(root: Path, looks: Path, **reading: Any) -> Inspected:
    """An inspection of the set at a root, as the command does it for an input of 640 x 640."""
    reader = SetReader(root, {}, {}, None, Reading("auto", **reading), not reading, True, None)
    parts = reader.parts()
    with LooksFile(looks, "a set") as file:
        return inspect_set(parts, reader.further(), (640, 640), 300, file)
