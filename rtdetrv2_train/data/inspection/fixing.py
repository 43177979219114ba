"""Annotations without what can safely be mended, as a table to be written to a new file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.inspection.box_checks import no_area, outside, reaching_out
from rtdetrv2_train.data.inspection.class_checks import same_classes
from rtdetrv2_train.data.inspection.conventions import as_xywh, sizes_of
from rtdetrv2_train.data.inspection.duplicates import same_boxes
from rtdetrv2_train.data.inspection.findings import Finding, Parts
from rtdetrv2_train.data.inspection.image_checks import sizes_of_images
from rtdetrv2_train.data.inspection.looks import Look

_SAME_AREA = 0.01  # of the box's: else the area is that of an outline
_LEAKS = ("shared_files", "shared_versions", "leaked_copies")


@dataclass(frozen=True)
class Mended:
    """A part whose annotations were mended.

    Attributes:
        table: to be written; its arrays of boxes to train on are those from before.
        changes: what was done, and how often.
    """

    table: AnnotationTable
    changes: Mapping[str, int]


def mended(parts: Parts, looks: Mapping[str, Sequence[Look]], findings: Sequence[Finding]) -> dict[str, Mended]:
    """All parts without what is wrong beyond doubt.

    Args:
        parts: ``train``, and perhaps ``val``.
        looks: at each image of each part.
        findings: about them.
    """
    return {part: _mended(part, table, looks[part], findings) for part, table in parts.items()}


def _mended(part: str, table: AnnotationTable, looks: Sequence[Look], findings: Sequence[Finding]) -> Mended:
    own = {each.check: each for each in findings if each.part == part}
    changes: Counter[str] = Counter()
    changes["annotations that cannot be used left out"] = _count(own, "unusable_annotations")
    changes["unreadable images left out"] = len(table.unreadable)
    table = _with_sizes(table, looks, changes)
    table = _with_usual_boxes(table, own, changes)
    table = _without_boxes(table, own, changes)
    table = _with_united_classes(table, changes)
    table = _without_images(part, table, looks, findings, changes)
    return Mended(table, {what: count for what, count in changes.items() if count})


def _count(own: Mapping[str, Finding], check: str) -> int:
    return own[check].count if check in own else 0


def _with_sizes(table: AnnotationTable, looks: Sequence[Look], changes: Counter[str]) -> AnnotationTable:
    """Swap swapped sizes where all boxes fit the image as it is."""
    swapped = sizes_of_images(table, looks).swapped
    out = (table.raw_boxes[:, :2] + table.raw_boxes[:, 2:] > sizes_of(table)[:, ::-1] + 1).any(axis=1)
    swapped[np.unique(table.raw_images[out])] = False
    changes["widths and heights swapped"] = int(swapped.sum())
    heights, widths = table.heights, table.widths
    return replace(
        table, heights=np.where(swapped, widths, heights), widths=np.where(swapped, heights, widths), index=None
    )


def _with_usual_boxes(table: AnnotationTable, own: Mapping[str, Finding], changes: Counter[str]) -> AnnotationTable:
    """Boxes as left, top, width, height in pixels, within their images."""
    boxes, areas = table.raw_boxes.copy(), table.raw_areas.copy()
    for convention in ("shares", "corners", "centres"):
        if finding := own.get(f"boxes_as_{convention}"):
            which = finding.boxes
            boxes[which] = as_xywh(boxes[which], convention, sizes_of(table, which))
            areas[which] = boxes[which, 2:].prod(axis=1)
            changes["boxes meant in another way converted"] += len(which)
    table = replace(table, raw_boxes=boxes, raw_areas=areas)
    cut = np.flatnonzero(reaching_out(table))
    low = boxes[cut, :2].clip(min=0)
    high = np.minimum(boxes[cut, :2] + boxes[cut, 2:], sizes_of(table, cut))
    plain = np.abs(areas[cut] - boxes[cut, 2:].prod(axis=1)) <= _SAME_AREA * areas[cut]
    boxes[cut] = np.concatenate([low, high - low], axis=1)
    within = boxes[cut, 2:].prod(axis=1)
    areas[cut] = np.where(plain, within, np.minimum(areas[cut], within))
    changes["boxes cut at the border of their image"] = len(cut)
    return table


def _without_boxes(table: AnnotationTable, own: Mapping[str, Finding], changes: Counter[str]) -> AnnotationTable:
    empty, elsewhere = no_area(table), outside(table)
    doubled = np.zeros(len(table.raw_boxes), dtype=bool)
    if "doubled_boxes" in own:
        doubled[own["doubled_boxes"].boxes] = True
    changes["boxes of no area removed"] = int(empty.sum())
    changes["boxes outside of their image removed"] = int(elsewhere.sum())
    changes["second boxes of an object removed"] = int((doubled & ~empty & ~elsewhere).sum())
    return _with_annotations(table, ~(empty | elsewhere | doubled))


def _with_annotations(table: AnnotationTable, kept: NDArray[np.bool_]) -> AnnotationTable:
    return replace(
        table,
        raw_images=table.raw_images[kept],
        raw_labels=table.raw_labels[kept],
        raw_boxes=table.raw_boxes[kept],
        raw_areas=table.raw_areas[kept],
        raw_crowd=table.raw_crowd[kept],
    )


def _with_united_classes(table: AnnotationTable, changes: Counter[str]) -> AnnotationTable:
    """Classes whose names differ in spelling only as the one of them with the most boxes."""
    boxes = np.bincount(table.raw_labels, minlength=table.num_classes)
    meant = np.arange(table.num_classes)
    for labels in same_classes(table.class_names):
        meant[labels] = max(labels, key=lambda label: boxes[label])
    kept = np.unique(meant)
    changes["classes of the same name united"] = table.num_classes - len(kept)
    return replace(
        table,
        category_ids=tuple(table.category_ids[label] for label in kept.tolist()),
        class_names=tuple(table.class_names[label] for label in kept.tolist()),
        raw_labels=np.searchsorted(kept, meant[table.raw_labels]),
    )


def _without_images(
    part: str, table: AnnotationTable, looks: Sequence[Look], findings: Sequence[Finding], changes: Counter[str]
) -> AnnotationTable:
    """Leave out images that cannot be read, copies, and of the training part those that are evaluated on, too."""
    absent = np.array([bool(look.error) for look in looks], dtype=bool)
    copies, leaked = np.zeros_like(absent), np.zeros_like(absent)
    for each in findings:
        if each.check == "duplicates" and each.part == part:
            pairs = zip(each.images.tolist(), each.beside_images.tolist(), strict=True)
            copies[[image for image, other in pairs if same_boxes(table, image, table, other)]] = True
        elif each.check in _LEAKS and each.other_part == part:
            leaked[each.beside_images] = True
    changes["unreadable images left out"] += int(absent.sum())
    changes["copies of images left out"] = int((copies & ~absent).sum())
    changes["images left out that are evaluated on, too"] = int((leaked & ~absent & ~copies).sum())
    kept = np.flatnonzero(~(absent | copies | leaked))
    return table.subset(kept) if len(kept) else table
