"""The orientation in EXIF, and turning pixels by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rtdetrv2_train.data.images.pillow_files import DECODER_ERRORS
from rtdetrv2_train.data.images.reading import RGB, ImageArray

ORIENTATION, TRANSPOSED = 0x0112, 5  # EXIF's tag; from this value on height and width are swapped
_EXIF, _EXIF_WITHIN, _EXIF_SIZE = b"Exif\0\0", 4096, 2**16  # how a JPEG's block begins, and how far in; its most bytes
_FLIPS = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}  # OpenCV's code: 1 swaps left and right, 0 top and bottom, -1 both
_AXES: dict[int, tuple[int, ...]] = {1: (1,), 0: (0,), -1: (0, 1)}  # NumPy's


def as_bytes(image: Any) -> ImageArray:
    """An array that OpenCV returned, typed as the bytes that it holds; nothing is copied."""
    return np.asarray(image, dtype=np.uint8)


def turned(pixels: ImageArray, orientation: int) -> ImageArray:
    """Pixels ``[H, W, C]`` as EXIF says that they are to be seen."""
    if pixels.shape[2] != RGB:  # OpenCV does not transpose more than 4 channels, and leaves out the last axis of one
        return turned_values(pixels, orientation)
    if orientation >= TRANSPOSED:
        pixels = as_bytes(cv2.transpose(pixels))
    return as_bytes(cv2.flip(pixels, _FLIPS[orientation])) if orientation in _FLIPS else pixels


def turned_values(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """As `turned`, for values of any type."""
    values = values.swapaxes(0, 1) if orientation >= TRANSPOSED else values
    if orientation in _FLIPS:
        values = np.flip(values, _AXES[_FLIPS[orientation]])
    return np.ascontiguousarray(values)


def orientation_of(image: Image.Image) -> int:
    """Orientation in the EXIF of an image, 1 to 8; 1 where there is none, and for TIFF, which Pillow turns itself."""
    return 1 if image.format == "TIFF" else _orientation(image.getexif)


def orientation_of_jpeg(content: bytes) -> int:
    """As `orientation_of`, without opening the image: next to nothing where there is no EXIF."""
    start = content.find(_EXIF, 0, _EXIF_WITHIN)

    def exif() -> Image.Exif:
        block = Image.Exif()
        block.load(content[start : start + _EXIF_SIZE])
        return block

    return 1 if start < 0 else _orientation(exif)


def _orientation(exif: Callable[[], Image.Exif]) -> int:
    try:
        value = exif().get(ORIENTATION)
    except DECODER_ERRORS:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
