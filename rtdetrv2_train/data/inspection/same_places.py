"""Pairs of boxes of an image that lie in the same place, found without comparing all with all."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.data.annotations import AnnotationTable

SAME_PLACE = 0.9
"""IoU of two boxes that can hardly be around two objects."""


class SamePlaces(NamedTuple):
    """Pairs of annotations, each pair once.

    Attributes:
        one: int64 ``[n]``, the annotation that comes first in the file.
        other: int64 ``[n]``, the one that comes later.
        iou: float64 ``[n]``.
    """

    one: NDArray[np.int64]
    other: NDArray[np.int64]
    iou: NDArray[np.float64]


def same_places(annotations: AnnotationTable, least: float = SAME_PLACE) -> SamePlaces:
    """All pairs of boxes of an image with at least an IoU; crowd regions and boxes of no area have none.

    Boxes are sorted by image and left border. The left borders of such a pair are no further apart than a small share
    of the first one's width, so that each box is compared with its next neighbours only.

    Args:
        annotations: M annotations.
        least: the IoU, near 1.
    """
    kept = np.flatnonzero(~annotations.raw_crowd & (annotations.raw_boxes[:, 2:] > 0).all(axis=1))
    kept = kept[np.lexsort((annotations.raw_boxes[kept, 0], annotations.raw_images[kept]))]
    left, top, width, height = np.ascontiguousarray(annotations.raw_boxes[kept].T)
    images, right, bottom = annotations.raw_images[kept], left + width, top + height
    areas, furthest = width * height, left + (1 - least) * width
    found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []
    active, step = np.arange(len(kept)), 1
    while len(active := active[active + step < len(kept)]):
        near = (left[active + step] <= furthest[active]) & (images[active + step] == images[active])
        active = active[near]
        other = active + step
        across = np.minimum(right[active], right[other]) - left[other]
        down = np.minimum(bottom[active], bottom[other]) - np.maximum(top[active], top[other])
        shared = across.clip(min=0) * down.clip(min=0)
        iou = shared / (areas[active] + areas[other] - shared)
        same = iou >= least
        found.append((kept[active[same]], kept[other[same]], iou[same]))
        step += 1
    if not found:
        return SamePlaces(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    one, other, iou = (np.concatenate(column) for column in zip(*found, strict=True))
    first, second = np.minimum(one, other), np.maximum(one, other)
    order = np.lexsort((second, first))
    return SamePlaces(first[order], second[order], iou[order])
