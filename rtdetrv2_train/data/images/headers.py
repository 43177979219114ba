"""What an image file says of itself without being decoded."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from rtdetrv2_train.data.images.bands import is_npy, stored
from rtdetrv2_train.data.images.orientation import TRANSPOSED, orientation_of
from rtdetrv2_train.data.images.pillow_files import DECODER_ERRORS, HEAD, check_decoder, is_tiff, opened, reason_of
from rtdetrv2_train.data.images.reading import RGB, Exif, PixelRange, UnreadableImageError
from rtdetrv2_train.data.images.values import bands_in_tiff, is_colour_deep, is_grey_deep, is_misread

_WITH_ALPHA = ("LA", "RGBA")


class ImageHeader(NamedTuple):
    """What an image file says without being decoded.

    Attributes:
        height: in pixels, as stored.
        width: in pixels, as stored.
        orientation: of EXIF, 1 to 8; 1 is upright.
        deep: whether its values have more than 8 bits.
        bands: that it stores.
        animated: whether it holds more pictures than the first, which is the one that is read.
    """

    height: int
    width: int
    orientation: int
    deep: bool = False
    bands: int = RGB
    animated: bool = False

    @property
    def upright_size(self) -> tuple[int, int]:
        """(height, width) of the turned image."""
        return (self.width, self.height) if self.orientation >= TRANSPOSED else (self.height, self.width)

    def turn(self, exif: Exif, annotated: tuple[int, int] | None) -> int:
        """The orientation to turn the image by; 1 leaves it as it is.

        Args:
            exif: see `Reading`.
            annotated: (height, width) of the annotation file.
        """
        told = self.upright_size == annotated != (self.height, self.width)
        return self.orientation if exif == "apply" or (exif == "auto" and told) else 1


def read_header(path: Path, channels: int = RGB) -> ImageHeader:
    """What an image file says of itself.

    Args:
        path: the file.
        channels: that are wanted of it (see `Reading`).

    Raises:
        UnreadableImageError: if the file is missing or no image.
    """
    try:
        with Path(path).open("rb") as file:
            head = file.read(HEAD)
            file.seek(0)
            check_decoder(head)
            if channels != RGB or is_npy(head):
                with stored(file, head, channels, large=True) as image:
                    return ImageHeader(image.height, image.width, image.orientation, image.deep, image.bands)
            try:
                with opened(file, large=True) as picture:
                    return _of_picture(picture, head)
            except Image.UnidentifiedImageError:
                if not is_tiff(head):
                    raise
            file.seek(0)
            with stored(file, head, channels) as image:
                return ImageHeader(image.height, image.width, image.orientation, image.deep, image.bands)
    except DECODER_ERRORS as error:
        raise UnreadableImageError(reason_of(error)) from error


def _of_picture(image: Image.Image, head: bytes) -> ImageHeader:
    # Pillow would read a whole PNG to see whether EXIF comes last.
    orientation = 1 if image.format == "PNG" and "exif" not in image.info else orientation_of(image)
    deep = is_grey_deep(image) or is_colour_deep(image, head) or is_misread(image)
    bands = bands_in_tiff(image) if image.format == "TIFF" else len(image.getbands())
    animated = image.format != "TIFF" and bool(getattr(image, "is_animated", False))
    return ImageHeader(image.height, image.width, orientation, deep, bands, animated)


def deep_range(path: Path, percentiles: tuple[float, float], channels: int = RGB) -> PixelRange:
    """Percentiles of the values of an image of more than 8 bits, alpha aside where it becomes RGB.

    Args:
        path: the file.
        percentiles: two, ascending.
        channels: see `read_header`.

    Raises:
        UnreadableImageError: if the file is missing or damaged.
    """
    try:
        with Path(path).open("rb") as file:
            head = file.read(HEAD)
            file.seek(0)
            with stored(file, head, channels) as image:
                values = image.values()
    except DECODER_ERRORS as error:
        raise UnreadableImageError(reason_of(error)) from error
    if channels == RGB and values.shape[2] in (2, 4):
        values = values[..., :-1]
    low, high = np.nanpercentile(values, percentiles)
    return float(low), float(high)
