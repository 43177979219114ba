"""How image files are to be read, and the error where one cannot be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

ImageArray = NDArray[np.uint8]
Exif = Literal["auto", "apply", "ignore"]
PixelRange = tuple[float, float]

RGB = 3
MOST_CHANNELS = 16


class UnreadableImageError(Exception):
    """An image file is missing, damaged, cut short, or not an image; the message is the reason.

    Attributes:
        part: which of the images that make up a sample it is, from 0.
    """

    part = 0


@dataclass(frozen=True)
class Reading:
    """How image files are read.

    Attributes:
        exif: what becomes of the orientation in EXIF. ``apply``: images are turned as it says. ``auto``: where the
            annotated size is that of the turned image, and not that of the stored one.
        pixel_range: values of more than 8 bits that become 0 and 255; None: integers are taken for 16-bit ones, floats
            up to 1 are stretched.
        large: whether images beyond Pillow's limit are read, as far as they fit into memory.
        channels: 3: images of any kind become RGB. Another number: files must have as many bands, which are read as
            they are.
    """

    exif: Exif = "ignore"
    pixel_range: PixelRange | None = None
    large: bool = False
    channels: int = RGB


PLAIN = Reading()


def check_bands(found: int, wanted: int, what: str = "it") -> None:
    """Check that an image has the bands that are wanted.

    Args:
        found: of the image.
        wanted: ``data.channels``.
        what: the image, for the message.

    Raises:
        UnreadableImageError: if it has another number.
    """
    if found != wanted:
        bands = "1 band" if found == 1 else f"{found} bands"
        raise UnreadableImageError(f"{what} has {bands}, and data.channels is {wanted}")
