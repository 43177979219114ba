"""Images on a canvas, each by any affine map: resampled once, from the scale that is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.data.images.decode import ImageArray, StoredImage, UnreadableImageError, as_bytes, shrink_for
from rtdetrv2_train.data.images.reading import RGB
from rtdetrv2_train.data.images.resize import in_fours, resize_for_training

# [3, 3]: where points (x, y, 1) come to lie. Whole numbers are edges of pixels, halves are their centres.
Affine: TypeAlias = NDArray[np.float64]

_MOST_CHANGE = 2.0  # of a side, by the warp alone: bilinear, so that a pixel of less than half the size would be missed
# What an image may be enlarged by because it was decoded smaller, in the mean of both sides. So samples are as sharp as
# those of the published code, which makes all images small first.
_MOST_ENLARGED = 4 / 3
_CENTRE = np.array([0.5, 0.5])
_WITH_ALPHA = 4  # channels that OpenCV warps in half the time of three


def moved(points: NDArray[np.float64], by: Affine) -> NDArray[np.float64]:
    """Points ``[..., 2]`` (x, y) at their new places."""
    return points @ by[:2, :2].T + by[:2, 2]


def scaling(x: float, y: float, shift: tuple[float, float] = (0.0, 0.0)) -> Affine:
    """Scale from the origin, then shift."""
    return np.array([[x, 0.0, shift[0]], [0.0, y, shift[1]], [0.0, 0.0, 1.0]])


def corners_of(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """The four corners ``[n, 4, 2]`` of boxes ``[n, 4]``, xyxy."""
    return boxes[:, [[0, 1], [2, 1], [0, 3], [2, 3]]]


def drawn(
    size: tuple[int, int], channels: int, images: Sequence[StoredImage], placements: Sequence[Affine]
) -> ImageArray:
    """Images at their places on a black canvas; where two lie over each other they are added.

    Edges fade within a pixel. So where two images touch, the seam is that of one canvas with both.

    Args:
        size: (height, width) of the canvas.
        channels: of the images.
        images: what to draw; those of which nothing is on the canvas are not decoded.
        placements: from the pixels of each to those of the canvas.

    Returns:
        uint8 ``[height, width, channels]``.

    Raises:
        UnreadableImageError: if an image is damaged; ``part`` is its number.
    """
    canvas = np.zeros((*size, _WITH_ALPHA if channels == RGB else channels), dtype=np.uint8)
    for part, (image, placement) in enumerate(zip(images, placements, strict=True)):
        try:
            _add(canvas, image, placement)
        except UnreadableImageError as error:
            error.part = part
            raise
    return as_bytes(cv2.cvtColor(canvas, cv2.COLOR_RGBA2RGB)) if channels == RGB else canvas


def _add(canvas: ImageArray, image: StoredImage, placement: Affine) -> None:
    """Add an image to a canvas, in place.

    Sides that shrink to less than half, after decoding, are averaged over areas first.
    """
    corners = moved(corners_of(np.array([[0.0, 0.0, image.width, image.height]])), placement)[0]
    low = np.floor(corners.min(axis=0) - 1).clip(0).astype(int)
    high = np.ceil(corners.max(axis=0) + 1).clip(None, canvas.shape[1::-1]).astype(int)
    if (high <= low).any():
        return
    scale = np.hypot(placement[0, :2], placement[1, :2])
    pixels, shrink = image.decode(shrink_for(_MOST_ENLARGED / float(np.sqrt(scale.prod()))))
    # A last column that is part image and part padding counts if it is half of an image.
    sides = np.array([max(round(image.width / shrink), 1), max(round(image.height / shrink), 1)])
    change = scale * shrink
    far = (change * _MOST_CHANGE < 1) | (change > _MOST_CHANGE)
    columns, rows = np.where(far, np.round(sides * change).clip(1), sides).astype(int).tolist()
    pixels = resize_for_training(pixels[: sides[1], : sides[0]], rows, columns)
    if pixels.shape[2] == RGB:
        pixels = as_bytes(cv2.cvtColor(pixels, cv2.COLOR_RGB2RGBA))
    warp = placement[:2].copy()
    warp[:, :2] *= sides * shrink / [columns, rows]
    # OpenCV's whole numbers are centres of pixels.
    warp[:, 2] += warp[:, :2] @ _CENTRE - _CENTRE - low
    shown = (high - low).tolist()
    part = in_fours(pixels, lambda some: cv2.warpAffine(some, warp, shown, flags=cv2.INTER_LINEAR))
    region = canvas[low[1] : high[1], low[0] : high[0]]
    region[:] = cv2.add(region, part).reshape(region.shape)
