"""What a data set suggests to begin with: model, input size, tiles, and how often rare classes are shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.inspection.class_checks import images_of_classes
from rtdetrv2_train.data.inspection.contents import usable_boxes
from rtdetrv2_train.data.inspection.object_sizes import (
    SIDE_STEP,
    STRIDES,
    enlarged,
    share_of_small,
    sides_at,
    useful_factor,
)
from rtdetrv2_train.data.loading.samplers import repeat_factors

# Names under conf/model, by the images to train on that they ask for.
_MODELS = ((20_000, "r50vd"), (2_000, "r50vd_m"), (0, "r18vd"))
_SHAPE_SHARED, _SAME_SHAPE, _NEARLY_SQUARE = 0.8, 0.1, 1.4  # share of images; in log; ratio of the sides
_MANY_SMALL, _TOO_MANY_SMALL, _LARGEST_FACTOR = 0.1, 0.25, 2.0
_MUCH_SMALLER, _LEAST_INPUT = 0.6, 128
_RARE, _LEAST_IMAGES = 10, 3  # times rarer than the typical class; images of a class that are worth repeating
_THRESHOLDS = (0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
_LONGEST = 1.5  # times the length of an epoch without


@dataclass(frozen=True)
class Recommendation:
    """A setting to begin with.

    Attributes:
        key: of the setting, such as ``model.image_size``.
        value: plain data.
        override: as it stands on the command line; empty where it is none of training.
        reason: from the data, in a line.
    """

    key: str
    value: Any
    override: str
    reason: str


def recommendations(train: AnnotationTable, image_size: Sequence[int]) -> list[Recommendation]:
    """What to begin with on a training set; empty where it has no box.

    Args:
        train: the training set.
        image_size: (height, width) of the configured input in pixels, whose area is kept where nothing speaks against.
    """
    kept = usable_boxes(train)
    if not len(kept):
        return []
    return [_model(train), *_sizes(train, image_size, kept), *_repeats(train)]


def _model(train: AnnotationTable) -> Recommendation:
    name = next(name for least, name in _MODELS if len(train) >= least)
    reasons = {
        "r18vd": "few, and a small model is quick to try; start from COCO's weights, init_from=",
        "r50vd_m": "enough for a medium model",
        "r50vd": "enough for the paper's main model",
    }
    return Recommendation("model", name, f"model={name}", f"{len(train):,} images to train on are {reasons[name]}")


def _sizes(train: AnnotationTable, image_size: Sequence[int], kept: NDArray[np.int64]) -> Iterator[Recommendation]:
    shape = _shape(train, image_size)
    height, width = shape
    of_shape = f"as the images are about {np.median(train.widths / train.heights):.2f} times as wide as high; "
    why = of_shape if shape != list(image_size) else ""
    sides = sides_at(train, shape, kept)
    small = share_of_small(sides)
    smaller = _smaller(train, shape, sides)
    if smaller is not None:
        shape, reason = smaller, f"{why}the images themselves are no larger, and objects keep {STRIDES[1]} pixels"
    elif small <= _MANY_SMALL:
        reason = f"{why}{1 - small:.0%} of the boxes have {STRIDES[0]} x {STRIDES[0]} pixels or more there"
    else:
        factor = min(useful_factor(train, shape, sides), _LARGEST_FACTOR)
        shape = enlarged(shape, factor)
        after = share_of_small(factor * sides)
        reason = (
            f"{why}{small:.0%} of the boxes have fewer than {STRIDES[0]} x {STRIDES[0]} pixels at {height} x {width}, "
            f"{after:.0%} at {shape[0]} x {shape[1]}"
        )
    yield _size_of(shape, reason)
    if small > _MANY_SMALL:
        yield from _tiles(train, kept, shape)


def _size_of(shape: Sequence[int], reason: str) -> Recommendation:
    return Recommendation(
        "model.image_size",
        list(shape),
        f"model.image_size=[{','.join(map(str, shape))}]",
        reason,
    )


def _shape(train: AnnotationTable, image_size: Sequence[int]) -> list[int]:
    """The input with the shape of the images, where nearly all are of one that is far from square; of equal area."""
    ratios = np.log(train.widths / train.heights)
    typical = float(np.median(ratios))
    alike = float(np.mean(np.abs(ratios - typical) <= _SAME_SHAPE))
    square = image_size[0] == image_size[1]
    if not square or alike < _SHAPE_SHARED or abs(typical) < np.log(_NEARLY_SQUARE):
        return list(image_size)
    side = image_size[0]
    return [max(1, round(side * np.exp(sign * typical / 2) / SIDE_STEP)) * SIDE_STEP for sign in (-1, 1)]


def _smaller(train: AnnotationTable, shape: Sequence[int], sides: NDArray[np.float64]) -> list[int] | None:
    """A smaller input for images that are much smaller, where objects stay large enough; else None."""
    factor = float(np.sqrt(np.quantile(train.widths * train.heights, 0.9) / np.prod(shape)))
    if factor > _MUCH_SMALLER:
        return None
    found = [max(side, _LEAST_INPUT) for side in enlarged(shape, factor)]
    return found if np.quantile(sides, 0.05) * min(found) / min(shape) >= STRIDES[1] else None


def _tiles(train: AnnotationTable, kept: NDArray[np.int64], shape: Sequence[int]) -> Iterator[Recommendation]:
    """Tiles, where even a large input leaves many boxes small that have enough pixels in their images."""
    after = share_of_small(sides_at(train, shape, kept))
    in_image = share_of_small(np.sqrt(train.raw_boxes[kept, 2:].clip(min=0).prod(axis=1)))
    if after > _TOO_MANY_SMALL and in_image < after / 2:
        side = min(shape)
        yield Recommendation(
            "tile",
            side,
            "",
            f"at {shape[0]} x {shape[1]} {after:.0%} of the boxes are still too small, and in the images as they are "
            f"{in_image:.0%}: cut them into tiles of {side} x {side} before training, and predict with tile={side}",
        )


def _repeats(train: AnnotationTable) -> Iterator[Recommendation]:
    counts = images_of_classes(train)
    counts = counts[counts >= _LEAST_IMAGES]
    typical = float(np.median(counts))
    if len(counts) < 2 or counts.min() * _RARE > typical:
        return
    for threshold in _THRESHOLDS:
        factors = repeat_factors(train, threshold)
        if threshold <= typical / len(train) and 1 < factors.mean() <= _LONGEST:
            yield Recommendation(
                "data.repeat_threshold",
                threshold,
                f"data.repeat_threshold={threshold:g}",
                f"the rarest class is in {counts.min()} images, the typical one in {typical:.0f}: images of rare "
                f"classes come up to {factors.max():.1f} times in an epoch, which gets {factors.mean() - 1:.0%} longer",
            )
            return
