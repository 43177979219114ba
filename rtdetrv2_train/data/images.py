"""Reading image files as RGB bytes, and resizing them."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

ImageArray = NDArray[np.uint8]

_JPEG_END = b"\xff\xd9"
# Some cameras and editors write a few bytes after the end marker.
_JPEG_TAIL = 1024
_DECODER_ERRORS = (OSError, EOFError, SyntaxError, ValueError, struct.error, zlib.error, Image.DecompressionBombError)


class UnreadableImageError(Exception):
    """An image file is missing, damaged, cut short, or not an image; the message is the reason."""


def read_image(path: Path) -> ImageArray:
    """Decode an image file.

    Whatever its kind (grey, palette, transparency, CMYK, 16 bits), the result is RGB with 8 bits; transparent parts
    appear on white. The orientation in EXIF is ignored, as COCO's tools do: boxes are annotated on the stored pixels.

    Args:
        path: the file.

    Returns:
        uint8 ``[H, W, 3]``.

    Raises:
        UnreadableImageError: if the file is missing or damaged.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UnreadableImageError(error.strerror or str(error)) from error
    try:
        with Image.open(io.BytesIO(content)) as image:
            # OpenCV gives the same pixels in two thirds of the time, but fills up what is missing of a cut file.
            if image.format == "JPEG" and image.mode in ("RGB", "L") and _JPEG_END in content[-_JPEG_TAIL:]:
                flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
                decoded = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
                if decoded is not None:
                    return as_bytes(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB))
            return np.array(as_rgb(image), dtype=np.uint8)
    except _DECODER_ERRORS as error:
        raise UnreadableImageError(str(error) or type(error).__name__) from error


def resize_for_training(image: ImageArray, height: int, width: int) -> ImageArray:
    """Resize fast and without aliasing: averaged over areas along sides that shrink, linearly along those that grow.

    Args:
        image: uint8 ``[H, W, 3]``.
        height: of the result.
        width: of the result.
    """
    shrunk = (min(width, image.shape[1]), min(height, image.shape[0]))
    if shrunk != (image.shape[1], image.shape[0]):
        image = as_bytes(cv2.resize(image, shrunk, interpolation=cv2.INTER_AREA))
    if shrunk != (width, height):
        image = as_bytes(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR))
    return image


def resize_for_evaluation(image: ImageArray, height: int, width: int) -> ImageArray:
    """Resize as the published figures were made: Pillow's antialiased bilinear filter, bit by bit.

    Args:
        image: uint8 ``[H, W, 3]``.
        height: of the result.
        width: of the result.
    """
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR), dtype=np.uint8)


def as_bytes(image: Any) -> ImageArray:
    """An array that OpenCV returned, which it does not type as bytes although it is; nothing is copied."""
    return np.asarray(image, dtype=np.uint8)


def as_rgb(image: Image.Image) -> Image.Image:
    """An image of any kind as RGB with 8 bits, transparent parts on white."""
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_squeezed(np.asarray(image))).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        opaque = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque).convert("RGB")
    return image.convert("RGB")


def _squeezed(pixels: NDArray[np.generic]) -> ImageArray:
    """Grey values of more than 8 bits; integers are taken for 16-bit ones, floats in [0, 1] are stretched."""
    values = np.nan_to_num(pixels.astype(np.float64))
    if np.issubdtype(pixels.dtype, np.floating):
        values = values * 255 if values.max(initial=0) <= 1 else values
    elif values.max(initial=0) > 255:
        values = values // 256
    return np.clip(values, 0, 255).astype(np.uint8)
