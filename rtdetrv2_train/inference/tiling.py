"""Tiles of a large image, on which small objects keep their pixels, and merging the detections of all tiles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.errors import check_number

Tile = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""

_SAME_BY_IOU = 0.5
_SAME_BY_COVER = 0.7
_NEAR_EDGE = 2.0


def tiles_of(height: int, width: int, side: int, overlap: float) -> list[Tile]:
    """Square tiles that cover an image, the last of a row or column moved back to end with the image.

    Args:
        height: of the image in pixels.
        width: of the image in pixels.
        side: of a tile in pixels.
        overlap: least share of a tile that its neighbour shows too.

    Raises:
        UserError: if the side is too small or the overlap is out of range.
    """
    check_number("tile", side, 32)
    check_number("overlap", overlap, 0, 0.9, whole=False)
    return [
        (left, top, min(left + side, width), min(top + side, height))
        for top in _starts(height, side, overlap)
        for left in _starts(width, side, overlap)
    ]


def cut_by_tile(boxes: NDArray[np.float32], tile: Tile, height: int, width: int) -> NDArray[np.bool_]:
    """Whether boxes ``[n, 4]`` (xyxy in pixels of the image) end at an edge of the tile inside the image."""
    left, top, right, bottom = tile
    cut = np.zeros(len(boxes), dtype=bool)
    for edge, border, column in ((left, 0, 0), (top, 0, 1), (right, width, 2), (bottom, height, 3)):
        if edge != border:
            cut |= np.abs(boxes[:, column] - edge) <= _NEAR_EDGE
    return cut


def without_repeats(
    boxes: NDArray[np.float32],
    labels: NDArray[np.int64],
    scores: NDArray[np.float32],
    cut: NDArray[np.bool_],
    origin: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Merge detections of the same object in several tiles, best score first.

    A detection of the whole object is kept rather than one of a part, then the one with the higher score. Two
    detections of one tile are never merged.

    Args:
        boxes: ``[n, 4]`` xyxy.
        labels: ``[n]`` class indices.
        scores: ``[n]``.
        cut: ``[n]`` whether an object is cut by the edge of its tile.
        origin: ``[n]`` number of the tile.

    Returns:
        indices of those to keep.
    """
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    left = np.lexsort((-scores, cut))
    kept = []
    while len(left):
        first, left = left[0], left[1:]
        kept.append(first)
        low, high = np.maximum(boxes[first, :2], boxes[left, :2]), np.minimum(boxes[first, 2:], boxes[left, 2:])
        shared = (high - low).clip(min=0).prod(1)
        iou = shared / np.maximum(areas[first] + areas[left] - shared, 1e-9)
        cover = shared / np.maximum(np.minimum(areas[first], areas[left]), 1e-9)
        same = (iou >= _SAME_BY_IOU) | (cut[left] & (cover >= _SAME_BY_COVER))
        left = left[~(same & (labels[left] == labels[first]) & (origin[left] != origin[first]))]
    chosen = np.array(kept, dtype=np.int64)
    return chosen[np.argsort(-scores[chosen], kind="stable")]


def _starts(length: int, side: int, overlap: float) -> list[int]:
    if length <= side:
        return [0]
    count = int(np.ceil((length - side) / (side * (1 - overlap)))) + 1
    return np.linspace(0, length - side, count).round().astype(int).tolist()
