"""Photometric distortion: brightness, contrast, saturation, hue and the order of channels, each at random.

From SSD (Liu et al., arXiv 1512.02325, 2.2), with the distribution of torchvision's ``RandomPhotometricDistort``, which
the published models were trained with. What one value decides is done by a table, what needs all three by a matrix.

Images of other channels than red, green and blue have no hue, no saturation and no order: of these only brightness and
contrast change, by the same factors in all channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.data.augment.checks import checked_probability, checked_range
from rtdetrv2_train.data.images.decode import ImageArray, as_bytes
from rtdetrv2_train.data.images.reading import RGB

# Weights of red, green and blue in luminance (ITU-R BT.601).
_LUMINANCE = np.array([0.299, 0.587, 0.114])
# The mean of an image is that of a grid of its pixels, at least so many along a side: at most tenths of a level off.
_LEAST_GRID = 100


class PhotometricDistortion:
    """Change brightness, contrast, saturation and hue, and swap channels, each at random.

    Args:
        brightness: range of the factor that multiplies all values.
        contrast: range of the factor on the distance from the mean grey; comes before or after the others at
            random.
        saturation: range of the factor on the distance from each pixel's own grey.
        hue: range of the shift, in turns of the colour circle, within [-0.5, 0.5].
        p: probability of each of the five operations, independently.

    Raises:
        UserError: if a range or the probability is out of range.
    """

    def __init__(
        self,
        brightness: Sequence[float] = (0.875, 1.125),
        contrast: Sequence[float] = (0.5, 1.5),
        saturation: Sequence[float] = (0.5, 1.5),
        hue: Sequence[float] = (-0.05, 0.05),
        p: float = 0.5,
    ) -> None:
        self.ranges = {
            "brightness": checked_range("photometric.brightness", brightness, 0.0),
            "contrast": checked_range("photometric.contrast", contrast, 0.0),
            "saturation": checked_range("photometric.saturation", saturation, 0.0),
            "hue": checked_range("photometric.hue", hue, -0.5, 0.5),
        }
        self.p = checked_probability("photometric.p", p)

    def draw(self, random: np.random.Generator) -> Distortion:
        """One distortion."""
        drawn: dict[str, Any] = {
            name: random.uniform(*limits) if random.random() < self.p else None for name, limits in self.ranges.items()
        }
        drawn["contrast_first"] = bool(random.random() < 0.5)
        drawn["channels"] = tuple(random.permutation(3).tolist()) if random.random() < self.p else None
        return Distortion(**drawn)


@dataclass(frozen=True)
class Distortion:
    """What was drawn; None for an operation that is left out.

    Attributes:
        brightness, contrast, saturation, hue: see `PhotometricDistortion`.
        contrast_first: whether contrast comes before saturation and hue.
        channels: which channel each one is replaced by.
        mean_grey: of the whole image when contrast's turn comes; None until `fitted_to` has computed it.
    """

    brightness: float | None = None
    contrast: float | None = None
    saturation: float | None = None
    hue: float | None = None
    contrast_first: bool = True
    channels: tuple[int, ...] | None = None
    mean_grey: float | None = None

    def fitted_to(self, image: ImageArray) -> Distortion:
        """The distortion with the mean grey of this image, which contrast needs, uint8 ``[H, W, C]``."""
        if self.contrast is None:
            return self
        step = max(1, min(image.shape[:2]) // _LEAST_GRID)
        before = replace(self, contrast=None, channels=None)
        if self.contrast_first:
            before = replace(before, saturation=None, hue=None)
        return replace(self, mean_grey=mean_grey(before(np.ascontiguousarray(image[::step, ::step]))))

    def __call__(self, image: ImageArray) -> ImageArray:
        """The distorted image, uint8 ``[H, W, C]``; it may be any part of the image that it was fitted to."""
        first, last = np.arange(256.0), None
        if self.brightness is not None:
            first = _levels(first * self.brightness)
        if self.contrast is not None:
            if self.mean_grey is None:
                raise ValueError("contrast depends on the whole image: call fitted_to first")
            if self.contrast_first:
                first = contrast_table(first, self.contrast, self.mean_grey)
            else:
                last = contrast_table(np.arange(256.0), self.contrast, self.mean_grey)
        if self.brightness is not None or (self.contrast is not None and self.contrast_first):
            image = _looked_up(image, first)
        if image.shape[2] != RGB:
            return image if last is None else _looked_up(image, last)
        channels = self.channels
        if self.saturation is not None:
            # Tables treat all channels alike, so that only hue keeps the swap from joining the matrix.
            image = adjust_saturation(image, self.saturation, channels if self.hue is None else None)
            channels = None if self.hue is None else channels
        if self.hue is not None:
            image = adjust_hue(image, self.hue)
        if last is not None:
            image = _looked_up(image, last)
        if channels is not None:
            image = as_bytes(cv2.transform(image, np.eye(3)[list(channels)]))
        return image


def mean_grey(image: ImageArray) -> float:
    """Mean luminance; of other channels than red, green and blue the mean of them all."""
    if image.shape[2] != RGB:
        return float(image.mean())
    return float(cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0])


def contrast_table(levels: NDArray[np.float64], factor: float, grey: float) -> NDArray[np.float64]:
    """Distances of levels from ``grey`` times ``factor``, cut to bytes."""
    return _levels(levels * factor + grey * (1 - factor))


def adjust_saturation(image: ImageArray, factor: float, channels: Sequence[int] | None = None) -> ImageArray:
    """Distances from each pixel's own grey times ``factor``, then channels swapped."""
    # The last column makes OpenCV's rounding the truncation that the reference's operators do; it is not quite a half
    # because halves would be rounded to even numbers.
    matrix = np.column_stack([factor * np.eye(3) + (1 - factor) * _LUMINANCE, np.full(3, -0.49)])
    return as_bytes(cv2.transform(image, matrix if channels is None else matrix[list(channels)]))


def adjust_hue(image: ImageArray, shift: float) -> ImageArray:
    """Hue turned by ``shift`` of a full circle."""
    hsv = as_bytes(cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL))
    # Whole rows at once are added several times as fast as every third byte; bytes wrap around as the circle does.
    rows = hsv.reshape(len(hsv), -1)
    rows += np.tile(np.array([round(shift * 256) % 256, 0, 0], dtype=np.uint8), image.shape[1])
    return as_bytes(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL))


def _looked_up(image: ImageArray, table: NDArray[np.float64]) -> ImageArray:
    return as_bytes(cv2.LUT(image, table.astype(np.uint8))).reshape(image.shape)  # OpenCV drops the axis of one channel


def _levels(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.floor(np.clip(values, 0, 255))
