"""What there is in a data set, in numbers: images, boxes, classes, sizes against the strides of a model."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.inspection.class_checks import images_of_classes
from rtdetrv2_train.data.inspection.findings import Parts
from rtdetrv2_train.data.inspection.object_sizes import STRIDES, sides_at


def part_contents(table: AnnotationTable, image_size: Sequence[int]) -> dict[str, Any]:
    """A part in numbers, as plain data.

    Args:
        table: of the part.
        image_size: (height, width) of the input in pixels, at which objects are measured.
    """
    boxes = np.diff(table.offsets)
    sides = sides_at(table, image_size, usable_boxes(table))
    bounds = [0, *STRIDES, np.inf]
    shares = np.histogram(sides, bounds)[0] / max(len(sides), 1)
    names = [f"below {STRIDES[0]}", *(f"{a} to {b}" for a, b in pairwise(STRIDES))]
    return {
        "annotations": str(table.annotation_file),
        "image_folder": str(table.image_folder),
        "images": len(table),
        "images_without_boxes": int((boxes == 0).sum()),
        "boxes": len(table.boxes),
        "boxes_left_out": len(table.problems),
        "crowd_regions": int(table.raw_crowd.sum()),
        "classes": table.num_classes,
        "boxes_per_image": _spread(boxes),
        "image_widths": _spread(table.widths),
        "image_heights": _spread(table.heights),
        "box_sides_at_input": _spread(sides),
        "boxes_by_side_at_input": dict(
            zip([*names, f"{STRIDES[-1]} and more"], np.round(shares, 4).tolist(), strict=True)
        ),
    }


def class_contents(parts: Parts, image_size: Sequence[int]) -> list[dict[str, Any]]:
    """Every class in numbers: boxes and images in each part, and how large its objects are at the input size.

    Args:
        parts: each with its own classes, which are told by their names.
        image_size: (height, width) of the input in pixels.
    """
    rows: dict[str, dict[str, Any]] = {}
    for part, table in parts.items():
        images, boxes = images_of_classes(table), np.bincount(table.labels, minlength=table.num_classes)
        medians = _median_sides(table, image_size)
        for label, name in enumerate(table.class_names):
            row = rows.setdefault(name, {"name": name, "boxes": {}, "images": {}, "median_side_at_input": None})
            row["boxes"][part] = row["boxes"].get(part, 0) + int(boxes[label])
            row["images"][part] = row["images"].get(part, 0) + int(images[label])
            if row["median_side_at_input"] is None and np.isfinite(medians[label]):
                row["median_side_at_input"] = round(float(medians[label]), 1)
    return list(rows.values())


def usable_boxes(table: AnnotationTable) -> NDArray[np.int64]:
    """The annotations that are trained on, but for those outside of their image."""
    return np.flatnonzero(~table.raw_crowd & (table.raw_boxes[:, 2:] > 0).all(axis=1))


def _median_sides(table: AnnotationTable, image_size: Sequence[int]) -> NDArray[np.float64]:
    """For each class ``[C]``; NaN where it has no box."""
    kept = usable_boxes(table)
    sides, labels = sides_at(table, image_size, kept), table.raw_labels[kept]
    order = np.lexsort((sides, labels))
    ends = np.cumsum(np.bincount(labels, minlength=table.num_classes))
    starts = np.concatenate([[0], ends[:-1]])
    medians = np.full(table.num_classes, np.nan)
    filled = ends > starts
    medians[filled] = sides[order][((starts + ends - 1) // 2)[filled]]
    return medians


def _spread(values: NDArray[Any]) -> dict[str, float]:
    """Smallest, median, mean and largest."""
    if not len(values):
        return {}
    found = {"least": values.min(), "median": np.median(values), "mean": values.mean(), "most": values.max()}
    return {name: round(float(value), 2) for name, value in found.items()}
