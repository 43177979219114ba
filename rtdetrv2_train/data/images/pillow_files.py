"""Opening image files with Pillow: packages for some kinds, the page of a TIFF, and how large an image may be."""

from __future__ import annotations

import itertools
import re
import struct
import threading
import zlib
from typing import Any, BinaryIO

import cv2
from PIL import Image

from rtdetrv2_train.data.images.reading import UnreadableImageError
from rtdetrv2_train.system.resources import available_memory

# cv2.error is what OpenCV says of colours of 16 bits.
DECODER_ERRORS = (
    *(OSError, EOFError, SyntaxError, ValueError, struct.error, zlib.error, Image.DecompressionBombError),
    cv2.error,
)
# Larger ones are refused, as they could only be an attack, unless memory is to be the limit.
_MOST_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 2**27)
_BYTES_OF_A_PIXEL = 20  # while an image is decoded, converted, cut into tiles and drawn on
_pillow_limit = threading.Lock()
HEAD = 256  # bytes of a file that tell its kind
_HEIC = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SUBFILE, _REDUCED, _MASK = 254, 1, 4  # TIFF's tag of what a page is, and its bits


def check_decoder(head: bytes) -> None:
    """Say what is missing where Pillow cannot read HEIC or AVIF, rather than that it is no image.

    Args:
        head: the first bytes of a file.

    Raises:
        UnreadableImageError: if a package is missing.
    """
    brands = head[8:64] if head[4:8] == b"ftyp" else b""
    if b"avif" in brands or b"avis" in brands:
        if ".avif" not in Image.registered_extensions():
            raise UnreadableImageError("AVIF needs Pillow 11.3 or later, or convert it to JPEG")
    elif any(brand in brands for brand in _HEIC) and "HEIF" not in Image.OPEN:
        try:
            from pillow_heif import register_heif_opener
        except ImportError as error:
            raise UnreadableImageError(
                'HEIC needs `pip install "rtdetrv2-train[heic]"`, or convert it to JPEG'
            ) from error
        register_heif_opener()


def is_tiff(head: bytes) -> bool:
    """Whether a file is a TIFF, by its first bytes."""
    return head[:4] in _TIFF_MAGIC


def opened(source: BinaryIO, large: bool) -> Image.Image:
    """Open an image, which decodes nothing yet; of a TIFF, turn to its page.

    Args:
        source: of the file's bytes.
        large: whether it may be of any size.

    Raises:
        UnreadableImageError: if it is a TIFF of several images.
        Exception: one of :data:`DECODER_ERRORS`.
    """
    if not large:
        image = Image.open(source)
    else:
        with _pillow_limit:
            before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                image = Image.open(source)
            finally:
                Image.MAX_IMAGE_PIXELS = before
    if image.format == "TIFF":
        _turn_to_page(image)
    return image


def _turn_to_page(image: Any) -> None:
    """Turn to the one page of a TIFF that is neither a smaller copy nor a mask of it."""
    whole = []
    for number in itertools.count():
        try:
            image.seek(number)
        except EOFError:
            break
        except SyntaxError:  # of a kind that Pillow does not know, such as a mask
            pass
        if is_whole(image.tag_v2.get(_SUBFILE, 0)):
            whole.append(number)
    check_pages(len(whole))
    image.seek(whole[0] if whole else 0)


def is_whole(subfile_type: int) -> bool:
    """Whether a page of a TIFF is an image of its own, by its NewSubfileType."""
    return not subfile_type & (_REDUCED | _MASK)


def check_pages(count: int) -> None:
    """Check that a TIFF has one image.

    Raises:
        UnreadableImageError: if it has several.
    """
    if count > 1:
        raise UnreadableImageError(f"it has {count} pages: split it into files of one page each")


def is_large(height: int, width: int) -> bool:
    """Whether an image is beyond Pillow's limit."""
    return height * width > _MOST_PIXELS


def check_size(height: int, width: int, large: bool) -> None:
    """Refuse an image beyond Pillow's limit, or one that memory does not hold once it is decoded and drawn on.

    Args:
        height: in pixels.
        width: in pixels.
        large: whether memory is the limit.

    Raises:
        UnreadableImageError: if it is too large.
    """
    needed, available = height * width * _BYTES_OF_A_PIXEL, available_memory() if large else None
    if not large and is_large(height, width):
        raise UnreadableImageError(_too_large())
    if available is not None and needed > available:
        raise UnreadableImageError(
            f"{width} x {height} pixels take {needed / 1e9:.1f} GB of memory, and {available / 1e9:.1f} GB are free"
        )


def reason_of(error: Exception) -> str:
    """A decoder's error without the buffer in it, which says nothing to a user."""
    if isinstance(error, Image.DecompressionBombError):
        return _too_large()
    return re.sub(r" <_io\..*>", "", str(error)) or type(error).__name__


def _too_large() -> str:
    return f"it has over {_MOST_PIXELS:,} pixels: only prediction with tile= reads it"
