"""How large objects are at the size of a model's input, against the strides of its feature maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.data.annotations import AnnotationTable

STRIDES = (8, 16, 32)
"""Of the model's feature maps, in pixels of the input: of what is smaller than the first, a model sees one position."""

SIDE_STEP = 32
"""Sides of an input are multiples of this."""

_MOST_BOXES = 50_000  # of a large set, spread over it
_MANY_SMALL, _FEW_SMALL = 0.25, 0.1
_FACTORS = (1.5, 2, 3, 4)


def sides_at(
    annotations: AnnotationTable, image_size: Sequence[int], boxes: NDArray[np.int64] | None = None
) -> NDArray[np.float64]:
    """The sides of squares of the boxes' areas ``[n]`` in pixels of the input, to which images are stretched.

    Args:
        annotations: of a part.
        image_size: (height, width) of the input in pixels.
        boxes: which of its M annotations; None: all.
    """
    places = np.arange(len(annotations.raw_boxes)) if boxes is None else boxes
    sizes = np.column_stack([annotations.widths, annotations.heights])[annotations.raw_images[places]]
    shares = (annotations.raw_boxes[places, 2:].clip(min=0) / sizes).prod(axis=1)
    return np.asarray(np.sqrt(shares * np.prod(image_size)))


def sample_of_boxes(annotations: AnnotationTable) -> NDArray[np.int64]:
    """Annotations spread over a part, crowd regions aside; all of them where they are not many."""
    kept = np.flatnonzero(~annotations.raw_crowd)
    return kept[:: max(1, len(kept) // _MOST_BOXES)]


def size_advice(annotations: AnnotationTable, image_size: Sequence[int]) -> str:
    """A line on boxes that are too small for a model's finest feature map; empty where few are.

    Args:
        annotations: of the training set.
        image_size: (height, width) of the input in pixels, which images are stretched to.
    """
    sides = sides_at(annotations, image_size, sample_of_boxes(annotations))
    if not len(sides) or (share := share_of_small(sides)) < _MANY_SMALL:
        return ""
    height, width = image_size
    line = f"{share:.0%} of the boxes have fewer than {STRIDES[0]} x {STRIDES[0]} pixels at {height} x {width}"
    factor = useful_factor(annotations, image_size, sides)
    if factor == 1:
        return f"{line}, which is hard to learn; the images have no more pixels"
    larger = ",".join(map(str, enlarged(image_size, factor)))
    return f"{line}: with model.image_size=[{larger}] {share_of_small(factor * sides):.0%} would have"


def share_of_small(sides: NDArray[np.float64]) -> float:
    """The share of boxes that are below the finest stride."""
    return float(np.mean(sides < STRIDES[0]))


def useful_factor(annotations: AnnotationTable, image_size: Sequence[int], sides: NDArray[np.float64]) -> float:
    """The smallest enlargement of the input at which few boxes are small, or else the largest that images allow.

    Args:
        annotations: of the training set.
        image_size: (height, width) of the input in pixels.
        sides: of boxes at that size.

    Returns:
        1 where images have no more pixels.
    """
    sizes = np.column_stack([annotations.widths, annotations.heights])[annotations.raw_images]
    most = np.sqrt(np.median(sizes.prod(axis=1)) / np.prod(image_size))
    factors = [factor for factor in _FACTORS if factor <= most]
    return next((factor for factor in factors if share_of_small(factor * sides) < _FEW_SMALL), (1.0, *factors)[-1])


def enlarged(image_size: Sequence[int], factor: float) -> list[int]:
    """(height, width) times a factor, in multiples of 32."""
    return [max(1, round(side * factor / SIDE_STEP)) * SIDE_STEP for side in image_size]
