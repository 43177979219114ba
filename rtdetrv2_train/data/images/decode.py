"""Reading image files as bytes, RGB unless other channels are asked for."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

from rtdetrv2_train.data.images.bands import decoded_bands, is_npy
from rtdetrv2_train.data.images.headers import ImageHeader as ImageHeader
from rtdetrv2_train.data.images.headers import deep_range as deep_range
from rtdetrv2_train.data.images.headers import read_header as read_header
from rtdetrv2_train.data.images.orientation import TRANSPOSED, orientation_of, orientation_of_jpeg
from rtdetrv2_train.data.images.orientation import as_bytes as as_bytes
from rtdetrv2_train.data.images.orientation import turned as turned
from rtdetrv2_train.data.images.pillow_files import (
    DECODER_ERRORS,
    HEAD,
    check_decoder,
    check_size,
    is_large,
    is_tiff,
    opened,
    reason_of,
)
from rtdetrv2_train.data.images.reading import PLAIN, RGB
from rtdetrv2_train.data.images.reading import Exif as Exif
from rtdetrv2_train.data.images.reading import ImageArray as ImageArray
from rtdetrv2_train.data.images.reading import PixelRange as PixelRange
from rtdetrv2_train.data.images.reading import Reading as Reading
from rtdetrv2_train.data.images.reading import UnreadableImageError as UnreadableImageError
from rtdetrv2_train.data.images.values import as_rgb, is_misread

# What simplejpeg decodes, by the number of channels that are wanted.
_JPEG_COLOURS = {RGB: ("YCbCr", "RGB", "Gray"), 1: ("Gray",)}
# What a JPEG can be shrunk by while it is decoded.
SHRINKS = (8, 4, 2)


def shrink_for(factor: float) -> int:
    """What to decode at where an image is to become smaller by ``factor``: 1, 2, 4 or 8, never more than that."""
    return next((shrink for shrink in SHRINKS if shrink <= factor), 1)


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
        channels: int = RGB,
    ) -> None:
        self.height = height
        self.width = width
        self._jpeg = jpeg
        self._pixels = pixels
        self._shrink = shrink
        self._turn = turn
        self._channels = channels

    @property
    def channels(self) -> int:
        """Of the decoded image."""
        return self._channels if self._pixels is None else self._pixels.shape[2]

    @classmethod
    def of_pixels(cls, pixels: ImageArray) -> StoredImage:
        """An image that is decoded already, uint8 ``[H, W, C]``."""
        return cls(pixels.shape[0], pixels.shape[1], pixels=pixels)

    @classmethod
    def read(cls, path: Path, reading: Reading = PLAIN, annotated: tuple[int, int] | None = None) -> StoredImage:
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
        return cls.of_file(content, reading, annotated)

    @classmethod
    def of_file(cls, content: bytes, reading: Reading = PLAIN, annotated: tuple[int, int] | None = None) -> StoredImage:
        """As `read`, of a file that is in memory already."""
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
        except ValueError:
            colours = ""
        large = colours != "" and is_large(height, width)
        if colours not in _JPEG_COLOURS.get(reading.channels, ()) or (large and not reading.large):
            pixels, orientation = _decoded(content, reading)
            header = ImageHeader(pixels.shape[0], pixels.shape[1], orientation)
            return cls.of_pixels(turned(pixels, header.turn(reading.exif, annotated)))
        if large:
            check_size(height, width, large=True)
        header = ImageHeader(height, width, 1 if reading.exif == "ignore" else orientation_of_jpeg(content))
        turn = header.turn(reading.exif, annotated)
        height, width = header.upright_size if turn >= TRANSPOSED else (height, width)
        return cls(height, width, jpeg=content, turn=turn, channels=reading.channels)

    def decode(self, shrink: int = 1) -> tuple[ImageArray, int]:
        """The pixels, possibly averaged over squares of ``shrink`` pixels, which JPEGs give at less cost.

        Args:
            shrink: 1, 2, 4 or 8.

        Returns:
            uint8 ``[ceil(H / s), ceil(W / s), C]``, and s: ``shrink`` for a JPEG, or 1 if only Pillow could decode it;
            for others the scale they are stored at, mostly 1.

        Raises:
            UnreadableImageError: if the image is damaged.
        """
        if self._jpeg is None:
            assert self._pixels is not None
            return self._pixels, self._shrink
        if self._turn > 1 and (self.height % shrink or self.width % shrink):
            shrink = 1  # a turned image would begin with the square that is cut short
        height, width = (self.width, self.height) if self._turn >= TRANSPOSED else (self.height, self.width)
        sides = {"min_height": -(-height // shrink), "min_width": -(-width // shrink)} if shrink > 1 else {}
        kind = "RGB" if self._channels == RGB else "GRAY"
        try:
            pixels = as_bytes(simplejpeg.decode_jpeg(self._jpeg, kind, min_factor=shrink, **sides))
        except ValueError:
            # simplejpeg is strict; Pillow decides whether a fault is tolerable, as in the reference.
            pixels, shrink = _decoded(self._jpeg, Reading(channels=self._channels))[0], 1
        return turned(pixels, self._turn), shrink


def read_image(path: Path, reading: Reading = PLAIN, annotated: tuple[int, int] | None = None) -> ImageArray:
    """Decode an image file.

    Whatever its kind (grey, palette, transparency, CMYK, 16 bits), the result is RGB with 8 bits; transparent parts
    appear on white. For other channels than 3 all bands are kept as they are, alpha among them, with 8 bits.

    Args:
        path: the file.
        reading: how to read it.
        annotated: (height, width) of the annotation file.

    Returns:
        uint8 ``[H, W, C]``.

    Raises:
        UnreadableImageError: if the file is missing, damaged or too large.
    """
    return StoredImage.read(path, reading, annotated).decode()[0]


def _decoded(content: bytes, reading: Reading = PLAIN) -> tuple[ImageArray, int]:
    """The pixels as stored, and the orientation in EXIF."""
    head = content[:HEAD]
    try:
        if reading.channels == RGB and not is_npy(head):
            check_decoder(head)
            try:
                with opened(io.BytesIO(content), reading.large) as image:
                    if reading.large:
                        check_size(image.height, image.width, large=True)
                    if not is_misread(image):
                        return np.array(as_rgb(image, reading.pixel_range, content), np.uint8), orientation_of(image)
            except Image.UnidentifiedImageError:
                if not is_tiff(head):
                    raise
        return decoded_bands(content, reading)
    except DECODER_ERRORS as error:
        raise UnreadableImageError(reason_of(error)) from error
