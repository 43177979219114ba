"""Reading image files as RGB bytes."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

ImageArray = NDArray[np.uint8]

_JPEG_COLOURS = ("YCbCr", "RGB", "Gray")
# Larger ones go through Pillow, which refuses what could only be an attack.
_MOST_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 2**27)
_DECODER_ERRORS = (OSError, EOFError, SyntaxError, ValueError, struct.error, zlib.error, Image.DecompressionBombError)


# What a JPEG can be shrunk by while it is decoded.
SHRINKS = (8, 4, 2)


class UnreadableImageError(Exception):
    """An image file is missing, damaged, cut short, or not an image; the message is the reason."""


class StoredImage:
    """An image in memory, decoded when it is needed, at no higher resolution than is needed.

    Attributes:
        height: in pixels.
        width: in pixels.
    """

    def __init__(
        self, height: int, width: int, jpeg: bytes | None = None, pixels: ImageArray | None = None, shrink: int = 1
    ) -> None:
        self.height = height
        self.width = width
        self._jpeg = jpeg
        self._pixels = pixels
        self._shrink = shrink

    @classmethod
    def of_pixels(cls, pixels: ImageArray) -> StoredImage:
        """An image that is decoded already, uint8 ``[H, W, 3]``."""
        return cls(pixels.shape[0], pixels.shape[1], pixels=pixels)

    @classmethod
    def read(cls, path: Path) -> StoredImage:
        """An image file; JPEGs stay encoded.

        Raises:
            UnreadableImageError: if the file is missing or damaged.
        """
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise UnreadableImageError(error.strerror or str(error)) from error
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
        except ValueError:
            return cls.of_pixels(_decode_with_pillow(content))
        if colours not in _JPEG_COLOURS or height * width > _MOST_PIXELS:
            return cls.of_pixels(_decode_with_pillow(content))
        return cls(height, width, jpeg=content)

    def decode(self, shrink: int = 1) -> tuple[ImageArray, int]:
        """The pixels, possibly averaged over squares of ``shrink`` pixels, which JPEGs give at less cost.

        Args:
            shrink: 1, 2, 4 or 8.

        Returns:
            uint8 ``[ceil(H / s), ceil(W / s), 3]``, and s: ``shrink`` for a JPEG, or 1 if only Pillow could decode it;
            for others the scale they are stored at, mostly 1.

        Raises:
            UnreadableImageError: if the image is damaged.
        """
        if self._jpeg is None:
            assert self._pixels is not None
            return self._pixels, self._shrink
        sides = {"min_height": -(-self.height // shrink), "min_width": -(-self.width // shrink)} if shrink > 1 else {}
        try:
            return as_bytes(simplejpeg.decode_jpeg(self._jpeg, "RGB", min_factor=shrink, **sides)), shrink
        except ValueError:
            # simplejpeg is strict; Pillow decides whether a fault is tolerable, as in the reference.
            return _decode_with_pillow(self._jpeg), 1


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
    return StoredImage.read(path).decode()[0]


def as_bytes(image: Any) -> ImageArray:
    """An array that OpenCV returned, typed as the bytes that it holds; nothing is copied."""
    return np.asarray(image, dtype=np.uint8)


def as_rgb(image: Image.Image) -> Image.Image:
    """An image of any kind as RGB with 8 bits, transparent parts on white."""
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_squeezed(np.asarray(image))).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        opaque = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque).convert("RGB")
    return image.convert("RGB")


def _decode_with_pillow(content: bytes) -> ImageArray:
    _check_decoder(content)
    try:
        with Image.open(io.BytesIO(content)) as image:
            return np.array(as_rgb(image), dtype=np.uint8)
    except _DECODER_ERRORS as error:
        raise UnreadableImageError(str(error) or type(error).__name__) from error


def _check_decoder(content: bytes) -> None:
    """Say what is missing where Pillow cannot read HEIC or AVIF, rather than that it is no image."""
    brands = content[8:64] if content[4:8] == b"ftyp" else b""
    if any(brand in brands for brand in (b"heic", b"heix", b"hevc")):
        try:
            from pillow_heif import register_heif_opener
        except ImportError as error:
            raise UnreadableImageError("HEIC needs `pip install pillow-heif`, or convert it to JPEG") from error
        register_heif_opener()
    if b"avif" in brands and ".avif" not in Image.registered_extensions():
        raise UnreadableImageError("AVIF needs Pillow 11.3 or later, or convert it to JPEG")


def _squeezed(pixels: NDArray[np.generic]) -> ImageArray:
    """Grey values of more than 8 bits; integers are taken for 16-bit ones, floats in [0, 1] are stretched."""
    values = np.nan_to_num(pixels.astype(np.float64))
    if np.issubdtype(pixels.dtype, np.floating):
        values = values * 255 if values.max(initial=0) <= 1 else values
    elif values.max(initial=0) > 255:
        values = values // 256
    return np.clip(values, 0, 255).astype(np.uint8)
