"""A copy of an annotation file with known errors in it: boxes dropped, moved and renamed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

KINDS = ("dropped", "moved", "renamed")
_MOST_OVERLAP, _LEAST_OVERLAP = 0.5, 0.05  # of a moved box with the true one
_TRIES = 1000

Annotation = dict[str, Any]


@dataclass(frozen=True)
class Planted:
    """An error that was made.

    Attributes:
        kind: one of :data:`KINDS`.
        image_id: where.
        true_box: xywh of the object, pixels.
        true_class: category id of the object.
        box: xywh that the annotation file has now; None where the box was dropped.
        given_class: category id that it has now; None where it was dropped.
    """

    kind: str
    image_id: int
    true_box: tuple[float, ...]
    true_class: int
    box: tuple[float, ...] | None
    given_class: int | None


def plant(source: Path, target: Path, share: float, seed: int) -> list[Planted]:
    """Write a COCO file with errors in a share of its usable boxes, as many of each kind.

    A moved box still touches its object: it overlaps the true box by an IoU of 0.05 to 0.5, within the image. A renamed
    one gets any other class.

    Args:
        source: the annotation file.
        target: the file to write.
        share: of boxes that become wrong.
        seed: of what becomes of which box.

    Returns:
        the errors.
    """
    content = json.loads(source.read_text())
    generator = np.random.default_rng(seed)
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    annotations: list[Annotation] = content["annotations"]
    usable = [i for i, entry in enumerate(annotations) if _is_usable(entry, sizes[entry["image_id"]])]
    chosen = generator.permutation(usable)[: round(share * len(usable))]
    classes = [entry["id"] for entry in content["categories"]]
    errors = []
    for number, index in enumerate(chosen.tolist()):
        entry, kind = annotations[index], KINDS[number % len(KINDS)]
        true_box, true_class = tuple(entry["bbox"]), entry["category_id"]
        box, label = true_box, true_class
        if kind == "dropped":
            box, label = None, None
        elif kind == "moved":
            box = _moved(true_box, sizes[entry["image_id"]], generator)
        else:
            label = int(generator.choice([k for k in classes if k != true_class]))
        errors.append(Planted(kind, entry["image_id"], true_box, true_class, box, label))
        annotations[index] = {} if box is None else {**entry, "bbox": list(box), "category_id": label}
    content["annotations"] = [entry for entry in annotations if entry]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(content))
    return errors


def iou(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """IoU of two boxes xywh."""
    sides = [max(min(one[k] + one[k + 2], other[k] + other[k + 2]) - max(one[k], other[k]), 0.0) for k in (0, 1)]
    inner = sides[0] * sides[1]
    return inner / max(one[2] * one[3] + other[2] * other[3] - inner, 1e-9)


def _is_usable(entry: Annotation, size: tuple[int, int]) -> bool:
    left, top, width, height = entry["bbox"]
    inside = left >= 0 and top >= 0 and left + width <= size[0] and top + height <= size[1]
    return not entry.get("iscrowd") and min(width, height) > 0 and inside


def _moved(box: tuple[float, ...], size: tuple[int, int], generator: np.random.Generator) -> tuple[float, ...]:
    """The box elsewhere, of the same size."""
    for _ in range(_TRIES):
        shift = generator.uniform(-1, 1, 2) * box[2:]
        corner = np.clip(np.array(box[:2]) + shift, 0, np.array(size) - box[2:]).round(1)
        moved = (*corner.tolist(), *box[2:])
        if _LEAST_OVERLAP <= iou(moved, box) <= _MOST_OVERLAP:
            return moved
    return (*box[:2], box[2] / 2, box[3] / 2)  # too large to be moved within the image
