"""What the four numbers of a COCO file's boxes seem to mean, where not left, top, width, height in pixels."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.data.annotations import AnnotationTable

Convention = Literal["", "shares", "corners", "centres"]
"""Left, top, width, height in pixels; or shares of the image, two corners, centre and size."""

_MOST_BOXES = 50_000  # of a large set, spread over it
_NEARLY_ALL = 0.99
_SOME = 0.1
_LEAST_IN_IMAGE = 3  # boxes that tell the convention of a single image
_READ_WRONGLY = "many reach out of their images if read as left, top, width, height"
_WAYS_OUT: dict[Convention, str] = {
    "": "",
    "shares": "every bbox lies within 0 to 1, as shares of the image do: multiply them by its width and height",
    "corners": f"every bbox reads as two corners, and {_READ_WRONGLY}: subtract the first from the second",
    "centres": f"every bbox reads as centre and size, and {_READ_WRONGLY}: subtract half the size from the centre",
}


def other_convention(annotations: AnnotationTable) -> str:
    """How the boxes seem to be meant if not as left, top, width, height in pixels; empty where all looks well."""
    return _WAYS_OUT[convention_of(annotations)]


def convention_of(annotations: AnnotationTable) -> Convention:
    """What nearly all boxes of a table seem to be, crowd regions aside."""
    kept = np.flatnonzero(~annotations.raw_crowd)
    kept = kept[:: max(1, len(kept) // _MOST_BOXES)]
    boxes, sizes = annotations.raw_boxes[kept], sizes_of(annotations, kept)
    if not len(boxes):
        return ""
    low, last = boxes[:, :2], boxes[:, 2:]
    if boxes.min() >= 0 and boxes.max() <= 1 and sizes.min() > 2:
        return "shares"
    if np.mean((low + last > sizes + 1).any(axis=1)) < _SOME:
        return ""
    if np.mean(_within(low, last, sizes)) >= _NEARLY_ALL:
        return "corners"
    if np.mean(_within(low - last / 2, low + last / 2, sizes)) >= _NEARLY_ALL:
        return "centres"
    return ""


def boxes_in_shares(annotations: AnnotationTable) -> NDArray[np.bool_]:
    """Which boxes ``[M]`` lie within 0 to 1, in both directions: less than a pixel in the corner, or shares."""
    boxes = annotations.raw_boxes
    within = (boxes.min(axis=1) >= 0) & (boxes.max(axis=1) <= 1) & (boxes[:, 2:].min(axis=1) > 0)
    large = np.minimum(annotations.widths, annotations.heights)[annotations.raw_images] > 2
    return np.asarray(within & large & ~annotations.raw_crowd)


def boxes_as_corners(annotations: AnnotationTable) -> NDArray[np.bool_]:
    """Which boxes ``[M]`` are of an image whose boxes, at least three, all read as corners, half of them only so."""
    kept: NDArray[np.bool_] = np.asarray(~annotations.raw_crowd)
    low, last = annotations.raw_boxes[:, :2], annotations.raw_boxes[:, 2:]
    sizes = sizes_of(annotations)
    fits: NDArray[np.bool_] = np.asarray(_within(low, last, sizes) & (last > low).all(axis=1))
    reaching_out: NDArray[np.bool_] = np.asarray((low + last > sizes + 1).any(axis=1))

    def count(which: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.bincount(annotations.raw_images[kept & which], minlength=len(annotations))

    boxes = count(kept)
    as_corners = (boxes >= _LEAST_IN_IMAGE) & (count(fits) == boxes) & (2 * count(reaching_out) >= boxes)
    return np.asarray(as_corners[annotations.raw_images] & kept)


def as_xywh(boxes: NDArray[np.float64], convention: Convention, sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Boxes as left, top, width, height in pixels.

    Args:
        boxes: ``[n, 4]`` in a convention.
        convention: what they are.
        sizes: ``[n, 2]``, width and height of the image of each box in pixels.
    """
    first, last = boxes[:, :2], boxes[:, 2:]
    if convention == "shares":
        return boxes * np.tile(sizes, 2)
    if convention == "corners":
        return np.concatenate([first, last - first], axis=1)
    return np.concatenate([first - last / 2, last], axis=1) if convention == "centres" else boxes


def sizes_of(annotations: AnnotationTable, boxes: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Width and height ``[n, 2]`` of the image of each box, or of some."""
    sizes = np.column_stack([annotations.widths, annotations.heights])
    return np.asarray(sizes[annotations.raw_images if boxes is None else annotations.raw_images[boxes]])


def _within(low: NDArray[np.float64], high: NDArray[np.float64], sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether corners ``[n, 2]`` span boxes within images of (width, height) ``sizes``, but for a pixel."""
    return np.asarray(((low >= -1) & (high >= low) & (high <= sizes + 1)).all(axis=1))
