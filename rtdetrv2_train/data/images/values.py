"""The values that an image file holds, of 1 to 64 bits, and those as bytes."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rtdetrv2_train.data.images.reading import ImageArray, PixelRange

Values = NDArray[Any]

_BITS, _PHOTOMETRIC, _SAMPLES, _PLANAR, _EXTRA, _FORMAT = 258, 262, 277, 284, 338, 339  # TIFF's tags
_WHITE_IS_ZERO, _SEPARATE, _PREMULTIPLIED, _UNSIGNED = 0, 2, 1, 1  # and their values
_SIZ = b"\xff\x4f\xff\x51"  # how a JPEG 2000's description begins, and where in it the bits of a value are
_SIZ_BITS = 42


def is_grey_deep(image: Image.Image) -> bool:
    """Whether an image has one band of more than 8 bits."""
    return image.mode.startswith("I") or image.mode == "F"


def is_colour_deep(image: Image.Image, head: bytes = b"") -> bool:
    """Whether an image has bands of 16 bits, of which Pillow keeps 8.

    Args:
        image: opened.
        head: first bytes of its file, for JPEG 2000; Pillow takes the brightest values of one of 16 bits for black.
    """
    if image.format == "JPEG2000":
        start = head.find(_SIZ)
        bits = (head[start + _SIZ_BITS] & 0x7F) + 1 if 0 <= start < len(head) - _SIZ_BITS else 8
        return image.mode in ("RGB", "RGBA", "LA") and bits == 16
    return image.mode[:2] in ("RG", "LA") and ";16" in str(getattr(image, "tile", ""))  # how its values are packed


def is_misread(image: Image.Image) -> bool:
    """Whether Pillow gives wrong values: those of a TIFF of 16 bits whose bands lie one after the other."""
    tags: Any = getattr(image, "tag_v2", {})
    return tags.get(_PLANAR) == _SEPARATE and max(tags.get(_BITS, (8,))) > 8 and tags.get(_SAMPLES, 1) > 1


def bands_in_tiff(image: Image.Image) -> int:
    """Bands that a TIFF stores, which may be more than Pillow shows."""
    tags: Any = getattr(image, "tag_v2", {})
    return int(tags.get(_SAMPLES, 1))


def grey_values(image: Image.Image) -> Values:
    """One band of more than 8 bits ``[H, W]``, as it is meant: Pillow minds neither a sign nor that 0 is white."""
    values: Values = np.asarray(image)
    tags: Any = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS, (16,))[0]
    if values.dtype.kind == "i" and bits == 32 and tags.get(_FORMAT, (1,))[0] == _UNSIGNED:
        values = values.view(np.uint32)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO and values.dtype.kind == "u":
        values = values.dtype.type(2**bits - 1) - values
    return values


def colour_values(content: bytes, image: Image.Image) -> Values:
    """Bands of 16 bits ``[H, W, n]`` as OpenCV reads them, where Pillow keeps 8; n is that of the image's mode.

    Args:
        content: the file.
        image: opened from it.
    """
    bands = len(image.getbands())
    tags: Any = getattr(image, "tag_v2", {})
    # OpenCV does not turn a TIFF, fails on one that says that it is turned, and leaves colours multiplied by alpha.
    plain = tags.get(0x0112, 1) == 1 and _PREMULTIPLIED not in tags.get(_EXTRA, ())
    found: Any = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) if plain else None
    fits = found is not None and found.dtype == np.uint16 and found.ndim == 3 and found.shape[2] >= 3
    if fits and found.shape[:2] == (image.height, image.width) and (bands in (1, 3) or found.shape[2] == 4):
        blue_first = {1: [2], 2: [2, 3], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[bands]
        return np.ascontiguousarray(found[..., blue_first])
    return np.asarray(image).reshape(image.height, image.width, bands).astype(np.uint16) * np.uint16(257)


def squeezed(values: Values, pixel_range: PixelRange | None) -> ImageArray:
    """Values of any type as bytes of the same shape; bytes stay as they are. See `Reading` for the range."""
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind == "u" and values.itemsize == 2:  # each value once: much faster
        table = _squeezed(np.arange(2**16, dtype=np.uint16), int(values.max(initial=0)), pixel_range)
        return np.take(table, values)
    return _squeezed(values, None, pixel_range)


def _squeezed(values: Values, highest: float | None, pixel_range: PixelRange | None) -> ImageArray:
    """As bytes; ``highest``: of the image, where these are not its values."""
    numbers = np.nan_to_num(values.astype(np.float64))
    highest = float(numbers.max(initial=0)) if highest is None else highest
    if pixel_range is not None:
        low, high = pixel_range
        numbers = np.rint((numbers - low) * (255 / (high - low)))
    elif values.dtype.kind == "f":
        numbers = numbers * 255 if highest <= 1 else numbers
    elif highest > 255:
        numbers = numbers // 256
    return np.clip(numbers, 0, 255).astype(np.uint8)


def as_rgb(image: Image.Image, pixel_range: PixelRange | None = None, content: bytes = b"") -> Image.Image:
    """An image of any kind as RGB with 8 bits, transparent parts on white.

    Args:
        image: opened.
        pixel_range: see `Reading`.
        content: its file, where colours of 16 bits are to be read in full.
    """
    if is_grey_deep(image):
        return Image.fromarray(squeezed(grey_values(image), pixel_range)).convert("RGB")
    if content and is_colour_deep(image, content[:256]):
        image = _with_8_bits(colour_values(content, image), pixel_range)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        opaque = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque).convert("RGB")
    return image.convert("RGB")


def _with_8_bits(values: Values, pixel_range: PixelRange | None) -> Image.Image:
    """Colours squeezed into a range, alpha divided by what it can be."""
    if values.shape[2] in (1, 3):
        return Image.fromarray(squeezed(values, pixel_range))
    colours, alpha = squeezed(values[..., :-1], pixel_range), (values[..., -1:] >> 8).astype(np.uint8)
    return Image.fromarray(np.concatenate([colours, alpha], axis=2), "LA" if values.shape[2] == 2 else "RGBA")
