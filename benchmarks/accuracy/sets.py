"""The data sets of `benchmarks.accuracy`, and COCO's AP of detections on them."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

_ANNOTATIONS = ("annotations/instances_{part}.json", "annotations/{part}.json")
_IMAGES = ("{part}", "images/{part}", "JPEGImages", "images")


@dataclass(frozen=True)
class Part:
    """Images and annotations to train or to validate on.

    Attributes:
        annotations: file in COCO's format.
        images: folder that its file names are relative to.
    """

    annotations: Path
    images: Path

    @cached_property
    def content(self) -> dict[str, Any]:
        """The annotation file."""
        content: dict[str, Any] = json.loads(self.annotations.read_text())
        return content

    def __len__(self) -> int:
        """Number of images."""
        return len(self.content["images"])

    @property
    def classes(self) -> dict[int, str]:
        """Name of each category, in the order of their ids."""
        return {entry["id"]: entry["name"] for entry in sorted(self.content["categories"], key=lambda it: it["id"])}


@dataclass(frozen=True)
class DataSet:
    """A set of images with boxes.

    Attributes:
        name: what the results call it.
        train: what is trained on.
        val: what is measured on.
    """

    name: str
    train: Part
    val: Part

    @classmethod
    def find(cls, given: str) -> DataSet:
        """A set by its name and folder.

        Args:
            given: ``NAME=FOLDER``; the folder has ``annotations/instances_train.json`` and ``instances_val.json`` (or
                ``train.json`` and ``val.json``), and images in ``train`` and ``val`` or in one folder ``JPEGImages``.

        Raises:
            ValueError: if there is no such set.
        """
        name, equals, folder = given.partition("=")
        if not (name and equals and folder):
            raise ValueError(f"'{given}' is not NAME=FOLDER")
        return cls(name, _find_part(Path(folder).resolve(), "train"), _find_part(Path(folder).resolve(), "val"))


def _find_part(folder: Path, part: str) -> Part:
    files = [folder / pattern.format(part=part) for pattern in _ANNOTATIONS]
    annotations = next((path for path in files if path.is_file()), None)
    if annotations is None:
        raise ValueError(f"none of these is there: {', '.join(map(str, files))}")
    for pattern in _IMAGES:
        found = Part(annotations, folder / pattern.format(part=part))
        if len(found) and (found.images / found.content["images"][0]["file_name"]).is_file():
            return found
    raise ValueError(f"the images of '{annotations}' are in none of {', '.join(_IMAGES).format(part=part)}")


def average_precision(annotations: Path, detections: list[dict[str, Any]]) -> float:
    """COCO's AP by pycocotools, in percent.

    Args:
        annotations: file in COCO's format.
        detections: ``image_id``, ``category_id``, ``bbox`` (xywh in pixels) and ``score`` of each.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    if not detections:  # pycocotools cannot load them
        return 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = json.loads(annotations.read_text())
        for number, annotation in enumerate(truth.dataset["annotations"], 1):
            annotation["id"] = number  # pycocotools counts the box with id 0 as never found
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return 100 * max(float(evaluation.stats[0]), 0.0)
