"""The window that a sample shows of an image: geometry is decided first, and applied to the pixels once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.data.images.decode import ImageArray, StoredImage, shrink_for, turned
from rtdetrv2_train.data.images.resize import resize_for_training

BoxArray = NDArray[np.float64]
Rectangle = tuple[int, int, int, int]  # left, top, right, bottom
Colour = tuple[int, ...]  # a value for each channel, or one for all

# Smaller boxes are dropped, after the augmentations and again after resizing; the tolerance is that of rounding.
MIN_BOX_SIDE = 1.0
_ROUNDING = 1e-6
_MIRRORED = 2  # as EXIF numbers orientations


class ColourChange(Protocol):
    """A change of colours that does not move anything."""

    def fitted_to(self, image: ImageArray) -> ColourChange:
        """The same change, with statistics of the whole image computed from this one."""

    def __call__(self, image: ImageArray) -> ImageArray:
        """The changed image, of the same shape."""


@dataclass(frozen=True)
class Window:
    """A frame laid over an image, whose pixels are the unit of everything here.

    Attributes:
        frame: what the sample shows; may reach beyond the image.
        content: the part of the image that is shown; the rest of the frame is plain.
        mirrored: whether left and right are swapped, last of all.
        fill: colour of the plain part; None as long as there is none.
    """

    frame: Rectangle
    content: Rectangle
    mirrored: bool = False
    fill: Colour | None = None

    @classmethod
    def whole(cls, height: int, width: int) -> Window:
        """The image as it is."""
        return cls((0, 0, width, height), (0, 0, width, height))

    @property
    def height(self) -> int:
        """Of the frame."""
        return self.frame[3] - self.frame[1]

    @property
    def width(self) -> int:
        """Of the frame."""
        return self.frame[2] - self.frame[0]

    def framed(self, frame: Rectangle, fill: Colour | None = None) -> Window:
        """Another frame over the same content, which is cut where it reaches out of the frame."""
        left, top, right, bottom = self.content
        content = (max(left, frame[0]), max(top, frame[1]), min(right, frame[2]), min(bottom, frame[3]))
        return replace(self, frame=frame, content=content, fill=self.fill if fill is None else fill)

    def flipped(self) -> Window:
        """The mirror image."""
        return replace(self, mirrored=not self.mirrored)

    def render(
        self, image: StoredImage, boxes: BoxArray, size: tuple[int, int], change: ColourChange | None = None
    ) -> tuple[ImageArray, BoxArray]:
        """The sample, resampled once from the image; boxes follow the pixels exactly.

        Content that does not fill the frame starts and ends on whole pixels of the sample.

        Args:
            image: what the window is laid over.
            boxes: ``[n, 4]``, xyxy in its pixels, within the content.
            size: (height, width) of the sample.
            change: of the colours of the image, not of the plain part.

        Returns:
            uint8 ``[height, width, C]``, and the boxes in its pixels.
        """
        left, right = _whole_pixels(self.content[0::2], self.frame[0::2], size[1])
        top, bottom = _whole_pixels(self.content[1::2], self.frame[1::2], size[0])
        factor = min(
            (self.content[2] - self.content[0]) / (right - left), (self.content[3] - self.content[1]) / (bottom - top)
        )
        pixels, shrink = image.decode(shrink_for(factor))
        first_column, first_row = self.content[0] // shrink, self.content[1] // shrink
        part = pixels[first_row : -(-self.content[3] // shrink), first_column : -(-self.content[2] // shrink)]
        scale = np.array([(right - left) / part.shape[1], (bottom - top) / part.shape[0]] * 2)
        boxes = (boxes / shrink - [first_column, first_row] * 2) * scale + [left, top] * 2
        if change is not None:
            change = change.fitted_to(pixels)
        fewer_before = part.shape[0] * part.shape[1] <= (right - left) * (bottom - top)
        if change is not None and fewer_before:
            part = change(part)
        part = resize_for_training(part, bottom - top, right - left)
        if change is not None and not fewer_before:
            part = change(part)
        if self.mirrored:
            part = turned(part, _MIRRORED)
            left, right = size[1] - right, size[1] - left
            boxes = np.column_stack([size[1] - boxes[:, 2], boxes[:, 1], size[1] - boxes[:, 0], boxes[:, 3]])
        boxes = boxes.clip([left, top] * 2, [right, bottom] * 2)
        if part.shape[:2] == size:
            return part, boxes
        canvas = np.zeros((*size, part.shape[2]), dtype=np.uint8)
        if self.fill is not None and any(self.fill):
            canvas[:] = self.fill
        canvas[top:bottom, left:right] = part
        return canvas, boxes


def without_small(rows: BoxArray) -> BoxArray:
    """Those of rows ``[n, 4 or more]``, xyxy in pixels first, whose box is large enough to be kept."""
    return rows[(rows[:, 2:4] - rows[:, :2] >= MIN_BOX_SIDE - _ROUNDING).all(axis=1)]


def _whole_pixels(content: tuple[int, ...], frame: tuple[int, ...], side: int) -> tuple[int, int]:
    """Where the content lies along one side of a sample: first pixel and the one after the last, never equal."""
    scale = side / (frame[1] - frame[0])
    first = min(round((content[0] - frame[0]) * scale), side - 1)
    return first, max(round((content[1] - frame[0]) * scale), first + 1)
