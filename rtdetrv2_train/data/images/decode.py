"""Reading image files as RGB bytes."""

from __future__ import annotations

import io
import re
import struct
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from rtdetrv2_train.system.resources import available_memory

ImageArray = NDArray[np.uint8]
Exif = Literal["auto", "apply", "ignore"]
PixelRange = tuple[float, float]

_JPEG_COLOURS = ("YCbCr", "RGB", "Gray")
# Larger ones go through Pillow, which refuses what could only be an attack, unless memory is to be the limit.
_MOST_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 2**27)
_BYTES_OF_A_PIXEL = 20  # while an image is decoded, converted, cut into tiles and drawn on
_pillow_limit = threading.Lock()
_DECODER_ERRORS = (OSError, EOFError, SyntaxError, ValueError, struct.error, zlib.error, Image.DecompressionBombError)
# What a JPEG can be shrunk by while it is decoded.
SHRINKS = (8, 4, 2)
_ORIENTATION, _TRANSPOSED = 0x0112, 5  # EXIF's tag; from this value on height and width are swapped
_EXIF, _EXIF_WITHIN, _EXIF_SIZE = b"Exif\0\0", 4096, 2**16  # how a JPEG's block begins, and how far in; its most bytes


class UnreadableImageError(Exception):
    """An image file is missing, damaged, cut short, or not an image; the message is the reason."""


@dataclass(frozen=True)
class Reading:
    """How image files are read.

    Attributes:
        exif: what becomes of the orientation in EXIF. ``apply``: images are turned as it says. ``auto``: where the
            annotated size is that of the turned image, and not that of the stored one.
        pixel_range: values of more than 8 bits that become 0 and 255; None: integers are taken for 16-bit ones, floats
            up to 1 are stretched.
        large: whether images beyond Pillow's limit are read, as far as they fit into memory.
    """

    exif: Exif = "ignore"
    pixel_range: PixelRange | None = None
    large: bool = False


class ImageHeader(NamedTuple):
    """What an image file says without being decoded.

    Attributes:
        height: in pixels, as stored.
        width: in pixels, as stored.
        orientation: of EXIF, 1 to 8; 1 is upright.
        deep: whether its values have more than 8 bits.
        cut: whether its colours have 16 bits, of which Pillow reads the upper 8.
    """

    height: int
    width: int
    orientation: int
    deep: bool = False
    cut: bool = False

    @property
    def upright_size(self) -> tuple[int, int]:
        """(height, width) of the turned image."""
        return (self.width, self.height) if self.orientation >= _TRANSPOSED else (self.height, self.width)

    def turn(self, exif: Exif, annotated: tuple[int, int] | None) -> int:
        """The orientation to turn the image by; 1 leaves it as it is.

        Args:
            exif: see `Reading`.
            annotated: (height, width) of the annotation file.
        """
        told = self.upright_size == annotated != (self.height, self.width)
        return self.orientation if exif == "apply" or (exif == "auto" and told) else 1


_PLAIN = Reading()


class StoredImage:
    """An image in memory, decoded when it is needed, at no higher resolution than is needed.

    Attributes:
        height: in pixels, after turning.
        width: in pixels, after turning.
    """

    def __init__(
        self,
        height: int,
        width: int,
        jpeg: bytes | None = None,
        pixels: ImageArray | None = None,
        shrink: int = 1,
        turn: int = 1,
    ) -> None:
        self.height = height
        self.width = width
        self._jpeg = jpeg
        self._pixels = pixels
        self._shrink = shrink
        self._turn = turn

    @classmethod
    def of_pixels(cls, pixels: ImageArray) -> StoredImage:
        """An image that is decoded already, uint8 ``[H, W, 3]``."""
        return cls(pixels.shape[0], pixels.shape[1], pixels=pixels)

    @classmethod
    def read(cls, path: Path, reading: Reading = _PLAIN, annotated: tuple[int, int] | None = None) -> StoredImage:
        """An image file; JPEGs stay encoded.

        Args:
            path: the file.
            reading: how to read it.
            annotated: (height, width) of the annotation file.

        Raises:
            UnreadableImageError: if the file is missing, damaged or too large.
        """
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise UnreadableImageError(error.strerror or str(error)) from error
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
        except ValueError:
            colours = ""
        if colours not in _JPEG_COLOURS or (height * width > _MOST_PIXELS and not reading.large):
            pixels, orientation = _decode_with_pillow(content, reading)
            header = ImageHeader(pixels.shape[0], pixels.shape[1], orientation)
            return cls.of_pixels(turned(pixels, header.turn(reading.exif, annotated)))
        if height * width > _MOST_PIXELS:
            _check_memory(height, width)
        header = ImageHeader(height, width, 1 if reading.exif == "ignore" else _orientation_of_jpeg(content))
        turn = header.turn(reading.exif, annotated)
        height, width = header.upright_size if turn >= _TRANSPOSED else (height, width)
        return cls(height, width, jpeg=content, turn=turn)

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
        if self._turn > 1 and (self.height % shrink or self.width % shrink):
            shrink = 1  # a turned image would begin with the square that is cut short
        height, width = (self.width, self.height) if self._turn >= _TRANSPOSED else (self.height, self.width)
        sides = {"min_height": -(-height // shrink), "min_width": -(-width // shrink)} if shrink > 1 else {}
        try:
            pixels = as_bytes(simplejpeg.decode_jpeg(self._jpeg, "RGB", min_factor=shrink, **sides))
        except ValueError:
            # simplejpeg is strict; Pillow decides whether a fault is tolerable, as in the reference.
            pixels, shrink = _decode_with_pillow(self._jpeg)[0], 1
        return turned(pixels, self._turn), shrink


def read_image(path: Path, reading: Reading = _PLAIN, annotated: tuple[int, int] | None = None) -> ImageArray:
    """Decode an image file.

    Whatever its kind (grey, palette, transparency, CMYK, 16 bits), the result is RGB with 8 bits; transparent parts
    appear on white.

    Args:
        path: the file.
        reading: how to read it.
        annotated: (height, width) of the annotation file.

    Returns:
        uint8 ``[H, W, 3]``.

    Raises:
        UnreadableImageError: if the file is missing, damaged or too large.
    """
    return StoredImage.read(path, reading, annotated).decode()[0]


def read_header(path: Path) -> ImageHeader:
    """What an image file says of itself.

    Raises:
        UnreadableImageError: if the file is missing or no image.
    """
    try:
        with _opened_without_limit(path) as image:
            # Pillow would read a whole PNG to see whether EXIF comes last.
            orientation = 1 if image.format == "PNG" and "exif" not in image.info else orientation_of(image)
            cut = image.mode.startswith("RGB") and ";16" in str(getattr(image, "tile", ""))  # how pixels are packed
            return ImageHeader(image.height, image.width, orientation, _is_deep(image), cut)
    except _DECODER_ERRORS as error:
        raise UnreadableImageError(_reason(error)) from error


def orientation_of(image: Image.Image) -> int:
    """Orientation in the EXIF of an image, 1 to 8; 1 where there is none, and for TIFF, which Pillow turns itself."""
    return 1 if image.format == "TIFF" else _orientation(image.getexif)


def turned(pixels: ImageArray, orientation: int) -> ImageArray:
    """Pixels ``[H, W, 3]`` as EXIF says that they are to be seen."""
    if orientation >= _TRANSPOSED:
        pixels = as_bytes(cv2.transpose(pixels))
    flips = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}  # OpenCV's code: 1 swaps left and right, 0 top and bottom, -1 both
    return as_bytes(cv2.flip(pixels, flips[orientation])) if orientation in flips else pixels


def as_bytes(image: Any) -> ImageArray:
    """An array that OpenCV returned, typed as the bytes that it holds; nothing is copied."""
    return np.asarray(image, dtype=np.uint8)


def as_rgb(image: Image.Image, pixel_range: PixelRange | None = None) -> Image.Image:
    """An image of any kind as RGB with 8 bits, transparent parts on white; see `Reading` for the range."""
    if _is_deep(image):
        return Image.fromarray(_squeezed(np.asarray(image), pixel_range)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        opaque = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque).convert("RGB")
    return image.convert("RGB")


def deep_range(path: Path, percentiles: tuple[float, float]) -> PixelRange:
    """Percentiles of the values of an image of more than 8 bits.

    Raises:
        UnreadableImageError: if the file is missing or damaged.
    """
    try:
        with Image.open(path) as image:
            low, high = np.nanpercentile(np.asarray(image), percentiles)
            return float(low), float(high)
    except _DECODER_ERRORS as error:
        raise UnreadableImageError(_reason(error)) from error


def _decode_with_pillow(content: bytes, reading: Reading = _PLAIN) -> tuple[ImageArray, int]:
    """The pixels as stored, and the orientation in EXIF."""
    _check_decoder(content)
    try:
        with (_opened_without_limit if reading.large else Image.open)(io.BytesIO(content)) as image:
            if reading.large:
                _check_memory(image.height, image.width)
            return np.array(as_rgb(image, reading.pixel_range), dtype=np.uint8), orientation_of(image)
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(
            f"it has over {_MOST_PIXELS:,} pixels: only prediction with tile= reads it"
        ) from error
    except _DECODER_ERRORS as error:
        raise UnreadableImageError(_reason(error)) from error


def _opened_without_limit(source: Path | io.BytesIO) -> Image.Image:
    """Open an image of any size, which decodes nothing yet."""
    with _pillow_limit:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(source)
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _check_memory(height: int, width: int) -> None:
    """Refuse an image that memory does not hold once it is decoded, resized and drawn on."""
    needed, available = height * width * _BYTES_OF_A_PIXEL, available_memory()
    if available is not None and needed > available:
        raise UnreadableImageError(
            f"{width} x {height} pixels take {needed / 1e9:.1f} GB of memory, and {available / 1e9:.1f} GB are free"
        )


def _reason(error: Exception) -> str:
    return (
        re.sub(r" <_io\.BytesIO.*>", "", str(error)) or type(error).__name__
    )  # Pillow's buffer says nothing to a user


def _is_deep(image: Image.Image) -> bool:
    return image.mode.startswith("I") or image.mode == "F"


def _orientation_of_jpeg(content: bytes) -> int:
    """As `orientation_of`, without opening the image: next to nothing where there is no EXIF."""
    start = content.find(_EXIF, 0, _EXIF_WITHIN)

    def exif() -> Image.Exif:
        block = Image.Exif()
        block.load(content[start : start + _EXIF_SIZE])
        return block

    return 1 if start < 0 else _orientation(exif)


def _orientation(exif: Callable[[], Image.Exif]) -> int:
    try:
        value = exif().get(_ORIENTATION)
    except _DECODER_ERRORS:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


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


def _squeezed(pixels: NDArray[np.generic], pixel_range: PixelRange | None) -> ImageArray:
    """Grey values of more than 8 bits as 8 bits; see `Reading`."""
    values = np.nan_to_num(pixels.astype(np.float64))
    if pixel_range is not None:
        low, high = pixel_range
        values = np.rint((values - low) * (255 / (high - low)))
    elif np.issubdtype(pixels.dtype, np.floating):
        values = values * 255 if values.max(initial=0) <= 1 else values
    elif values.max(initial=0) > 255:
        values = values // 256
    return np.clip(values, 0, 255).astype(np.uint8)
