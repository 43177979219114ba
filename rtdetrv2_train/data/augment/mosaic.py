"""Mosaic: four images on one canvas, which is then turned, shifted and scaled; the first half of DEIM's dense O2O.

With the distribution of DEIM's code (Huang et al., arXiv 2412.04234, 3.1): each image at the top left of one of four
equal cells, with its shorter side at 320 pixels for samples of 640. Nothing but the places is decided here; each image
is resampled once, straight to its place in the sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.data.augment.checks import checked_probability, checked_range
from rtdetrv2_train.data.augment.placement import Affine, corners_of, drawn, moved, scaling
from rtdetrv2_train.data.augment.window import BoxArray, ColourChange, Window, without_small
from rtdetrv2_train.data.images.decode import ImageArray, StoredImage
from rtdetrv2_train.errors import check_number

Labelled = tuple[StoredImage, NDArray[np.float32], NDArray[np.int64]]

_CELLS = ((0, 0), (1, 0), (0, 1), (1, 1))  # column and row; the sample's own image comes first
_LEAST_SCALE = 0.01


class Mosaic:
    """Put the image and three others on one canvas. They are drawn with repetition, from the whole set.

    Args:
        max_degrees: that the canvas is rotated by, to either side.
        max_shift: that it is shifted by in each direction, as a share of its width and height.
        scale: range of the factor that it is scaled by, about its centre.
        p: probability.

    Raises:
        UserError: if an argument is out of range.
    """

    def __init__(
        self, max_degrees: float = 10.0, max_shift: float = 0.1, scale: Sequence[float] = (0.5, 1.5), p: float = 0.5
    ) -> None:
        check_number("augment.transforms.mosaic.max_degrees", max_degrees, 0, 180, whole=False)
        check_number("augment.transforms.mosaic.max_shift", max_shift, 0, 1, whole=False)
        self.max_degrees = max_degrees
        self.max_shift = max_shift
        self.scale = checked_range("mosaic.scale", scale, _LEAST_SCALE)
        self.p = checked_probability("mosaic.p", p)

    def draw(self, random: np.random.Generator, num_images: int) -> MosaicPlan | None:
        """What a sample is made of, or None if it is no mosaic.

        Args:
            random: decides everything.
            num_images: of the set, at least 1.
        """
        if random.random() >= self.p:
            return None
        others = random.integers(num_images, size=len(_CELLS) - 1).tolist()
        x, y = random.uniform(-self.max_shift, self.max_shift, 2).tolist()
        degrees = random.uniform(-self.max_degrees, self.max_degrees)
        return MosaicPlan(tuple(others), degrees, (x, y), random.uniform(*self.scale))


@dataclass(frozen=True)
class MosaicPlan:
    """What was drawn for one mosaic.

    Attributes:
        others: numbers of the three other images.
        degrees: that the canvas is rotated by, clockwise.
        shift: (x, y) that it is shifted by, in shares of its width and height.
        scale: that it is scaled by.
    """

    others: tuple[int, ...]
    degrees: float
    shift: tuple[float, float]
    scale: float

    def laid_out(
        self, images: Sequence[Labelled], size: tuple[int, int]
    ) -> tuple[MosaicImage, BoxArray, NDArray[np.int64]]:
        """The four images at their places. Before the canvas is scaled their shorter sides are half of the sample's.

        Args:
            images: with their boxes (xyxy, pixels of the image) and labels.
            size: (height, width) of the sample.

        Returns:
            The image, and boxes ``[n, 4]`` in its pixels with labels ``[n]``. A box bounds the corners of the moved one
            and is clipped to the canvas; small ones are left out.
        """
        sizes = np.array([_resized(image, min(size) // 2) for image, _, _ in images])
        cell = sizes.max(axis=0)
        height, width = (2 * cell).tolist()
        turn = self._moves(height, width)
        placements, rows = [], []
        for (image, boxes, labels), size, place in zip(images, sizes, _CELLS, strict=True):
            offset = (float(cell[1] * place[0]), float(cell[0] * place[1]))
            placement = turn @ scaling(size[1] / image.width, size[0] / image.height, offset)
            corners = moved(corners_of(boxes.astype(np.float64)), placement).clip(0, [width, height])
            rows.append(np.column_stack([corners.min(axis=1), corners.max(axis=1), labels]))
            placements.append(placement)
        kept = without_small(np.concatenate(rows))
        canvas = MosaicImage(height, width, [image for image, _, _ in images], placements)
        return canvas, kept[:, :4], kept[:, 4].astype(np.int64)

    def _moves(self, height: int, width: int) -> Affine:
        """Of a canvas: rotated and scaled about its centre, then shifted."""
        centre = np.array([width / 2, height / 2])
        angle = np.deg2rad(self.degrees)
        linear = self.scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        affine = np.eye(3)
        affine[:2, :2] = linear
        affine[:2, 2] = centre + np.multiply(self.shift, [width, height]) - linear @ centre
        return affine


class MosaicImage:
    """Images at their places on a black canvas, decoded when the pixels are needed.

    Args:
        height: of the canvas, in pixels.
        width: of the canvas.
        images: what lies on it.
        placements: from the pixels of each to those of the canvas.
    """

    def __init__(self, height: int, width: int, images: Sequence[StoredImage], placements: Sequence[Affine]) -> None:
        self.height = height
        self.width = width
        self._images = images
        self._placements = placements

    def render(
        self, window: Window, boxes: BoxArray, size: tuple[int, int], change: ColourChange | None = None
    ) -> tuple[ImageArray, BoxArray]:
        """What a window over the canvas shows, as `Window.render` does; resampled once if that is the whole canvas.

        Args:
            window: laid over the canvas.
            boxes: ``[n, 4]``, xyxy in pixels of the canvas, within it.
            size: (height, width) of the sample.
            change: of the colours, those of the plain parts of the canvas among them.

        Returns:
            uint8 ``[height, width, C]``, and the boxes in its pixels.

        Raises:
            UnreadableImageError: if an image is damaged; ``part`` is its number.
        """
        whole = (0, 0, self.width, self.height)
        if (window.frame, window.content) != (whole, whole):
            pixels = self._drawn((self.height, self.width), scaling(1, 1))
            return window.render(StoredImage.of_pixels(pixels), boxes, size, change)
        x, y = size[1] / self.width, size[0] / self.height
        boxes = boxes * [x, y, x, y]
        if window.mirrored:
            boxes = boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [size[1], 0, size[1], 0]
        pixels = self._drawn(size, scaling(-x, y, (size[1], 0)) if window.mirrored else scaling(x, y))
        return (pixels if change is None else change.fitted_to(pixels)(pixels)), boxes

    def _drawn(self, size: tuple[int, int], to_sample: Affine) -> ImageArray:
        placements = [to_sample @ placement for placement in self._placements]
        return drawn(size, self._images[0].channels, self._images, placements)


def _resized(image: StoredImage, side: int) -> tuple[int, int]:
    """(height, width) of an image whose shorter side is ``side``."""
    shorter = min(image.height, image.width)
    return max(image.height * side // shorter, 1), max(image.width * side // shorter, 1)
