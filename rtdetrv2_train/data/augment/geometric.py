"""The geometric augmentations of the recipe: zoom-out, IoU crop and flip.

The first two come from SSD (Liu et al., arXiv 1512.02325, 2.2). They follow the distributions of torchvision's
``RandomZoomOut`` and ``RandomIoUCrop``, which the published models were trained with. Each returns a new window over
the image; `Window.render` makes the pixels. Boxes are rows of xyxy in pixels of the stored image, which only clipping
changes, followed by columns that are passed on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.data.augment.checks import checked_probability, checked_range
from rtdetrv2_train.data.augment.window import BoxArray, Window
from rtdetrv2_train.errors import UserError

# Bounds the search for a crop where no option leaves the image as it is; the odds of getting here otherwise are 2e-7.
_CROP_ROUNDS = 100


class GeometricTransform(ABC):
    """A random change of the window that a sample shows of its image.

    Args:
        p: probability that it is applied.
    """

    def __init__(self, p: float) -> None:
        self.p = p

    def __call__(self, window: Window, boxes: BoxArray, random: np.random.Generator) -> tuple[Window, BoxArray]:
        """The new window and the boxes that remain; both unchanged with probability 1 - p."""
        return self.apply(window, boxes, random) if random.random() < self.p else (window, boxes)

    @abstractmethod
    def apply(self, window: Window, boxes: BoxArray, random: np.random.Generator) -> tuple[Window, BoxArray]:
        """The new window and the boxes that remain."""


class ZoomOut(GeometricTransform):
    """Put the image at a random place on a larger, plain canvas of the same aspect ratio.

    Args:
        side_range: range of the canvas's side relative to the image's, at least 1.
        fill: value of the canvas in all channels, or one for each: red, green and blue.
        p: probability.

    Raises:
        UserError: if an argument is out of range.
    """

    def __init__(self, side_range: Sequence[float] = (1.0, 4.0), fill: int | Sequence[int] = 0, p: float = 0.5) -> None:
        super().__init__(checked_probability("zoom_out.p", p))
        self.side_range = checked_range("zoom_out.side_range", side_range, 1.0)
        self.fill: tuple[int, ...] = tuple(np.asarray(fill, dtype=np.uint8).reshape(-1).tolist())

    def apply(self, window: Window, boxes: BoxArray, random: np.random.Generator) -> tuple[Window, BoxArray]:
        """A larger frame."""
        ratio = random.uniform(*self.side_range)
        height, width = int(window.height * ratio), int(window.width * ratio)
        left_share, top_share = random.random(2)
        left = window.frame[0] - int((width - window.width) * left_share)
        top = window.frame[1] - int((height - window.height) * top_share)
        return window.framed((left, top, left + width, top + height), self.fill), boxes


class IoUCrop(GeometricTransform):
    """Crop a random part of the image that overlaps at least one box by a randomly chosen IoU.

    Kept are the boxes whose centre lies in the crop, clipped to it. An image without boxes stays as it is.

    Args:
        min_scale: smallest side of the crop relative to the image's.
        max_scale: largest side.
        min_aspect_ratio: smallest width by height of the crop.
        max_aspect_ratio: largest.
        sampler_options: one is drawn for each try, the least IoU between the crop and a box; 1 or more: no crop.
        trials: crops tried before another option is drawn.
        p: probability.

    Raises:
        UserError: if an argument is out of range.
    """

    def __init__(
        self,
        min_scale: float = 0.3,
        max_scale: float = 1.0,
        min_aspect_ratio: float = 0.5,
        max_aspect_ratio: float = 2.0,
        sampler_options: Sequence[float] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0),
        trials: int = 40,
        p: float = 0.8,
    ) -> None:
        super().__init__(checked_probability("iou_crop.p", p))
        self.scale = checked_range("iou_crop.min_scale and max_scale", (min_scale, max_scale), 0.0, 1.0)
        aspect_ratio = (min_aspect_ratio, max_aspect_ratio)
        self.aspect_ratio = checked_range("iou_crop.min_aspect_ratio and max_aspect_ratio", aspect_ratio, 0.0)
        if not sampler_options:
            raise UserError("augment.transforms.iou_crop.sampler_options is empty: give least overlaps, such as [0, 1]")
        self.sampler_options = tuple(sampler_options)
        self.trials = trials

    def apply(self, window: Window, boxes: BoxArray, random: np.random.Generator) -> tuple[Window, BoxArray]:
        """A smaller frame, with the boxes whose centre it holds."""
        if not len(boxes):
            return window, boxes
        corners = boxes[:, :4]
        centres = (corners[:, :2] + corners[:, 2:]) / 2
        for _ in range(_CROP_ROUNDS):
            least_overlap = self.sampler_options[random.integers(len(self.sampler_options))]
            if least_overlap >= 1:
                break
            crops = self._crops(window, random)
            inside = np.all((crops[:, None, :2] < centres) & (centres < crops[:, None, 2:]), axis=2)
            best = np.where(inside, _pairwise_iou(crops, corners), -1.0).max(axis=1, initial=-1.0)
            good = np.flatnonzero(best >= least_overlap)
            if len(good):
                left, top, right, bottom = crops[good[0]].tolist()
                kept = boxes[inside[good[0]]]
                kept[:, :4] = kept[:, :4].clip([left, top] * 2, [right, bottom] * 2)
                return window.framed((left, top, right, bottom)), kept
        return window, boxes

    def _crops(self, window: Window, random: np.random.Generator) -> NDArray[np.int64]:
        """Crops ``[T, 4]`` (left, top, right, bottom) of allowed shape, from ``trials`` tries at once."""
        whole = np.array([window.width, window.height])
        sides = (random.uniform(*self.scale, (self.trials, 2)) * whole).astype(np.int64)
        places = (random.random((self.trials, 2)) * (whole - sides)).astype(np.int64) + window.frame[:2]
        crops = np.concatenate([places, places + sides], axis=1)[(sides > 0).all(axis=1)]
        ratio = (crops[:, 2] - crops[:, 0]) / (crops[:, 3] - crops[:, 1])
        return crops[(self.aspect_ratio[0] <= ratio) & (ratio <= self.aspect_ratio[1])]


class HorizontalFlip(GeometricTransform):
    """Swap left and right.

    Args:
        p: probability.

    Raises:
        UserError: if it is not a probability.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(checked_probability("flip.p", p))

    def apply(self, window: Window, boxes: BoxArray, random: np.random.Generator) -> tuple[Window, BoxArray]:
        """The mirror image."""
        return window.flipped(), boxes


def _pairwise_iou(crops: NDArray[np.int64], boxes: BoxArray) -> NDArray[np.float64]:
    """IoU ``[T, N]`` of crops ``[T, 4]`` and boxes ``[N, 4]``, both xyxy in pixels."""
    low = np.maximum(crops[:, None, :2], boxes[:, :2])
    high = np.minimum(crops[:, None, 2:], boxes[:, 2:])
    shared = (high - low).clip(0).prod(axis=2)
    areas = (crops[:, 2:] - crops[:, :2]).prod(axis=1)[:, None] + (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return shared / (areas - shared)
