"""Images of any number of bands: TIFF, NumPy's files, and what Pillow opens; also TIFFs that Pillow cannot read."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from rtdetrv2_train.data.images.orientation import ORIENTATION, TRANSPOSED, orientation_of, turned_values
from rtdetrv2_train.data.images.pillow_files import (
    HEAD,
    check_decoder,
    check_pages,
    check_size,
    is_tiff,
    is_whole,
    opened,
)
from rtdetrv2_train.data.images.reading import RGB, ImageArray, Reading, UnreadableImageError, check_bands
from rtdetrv2_train.data.images.values import (
    Values,
    bands_in_tiff,
    colour_values,
    grey_values,
    is_colour_deep,
    is_grey_deep,
    is_misread,
    squeezed,
)

_NPY = b"\x93NUMPY"
_PHOTOMETRIC, _WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 262, 0, 1, 2  # TIFF's tag, and its values of plain bands
_AS_STORED = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}  # Pillow's modes, and their bands
_WITH_ALPHA = ("PA", "RGBa", "La")


class Stored(NamedTuple):
    """The values of an image as its file stores them.

    Attributes:
        height: in pixels.
        width: in pixels.
        bands: their number.
        deep: whether values are others than bytes.
        values: reads them, ``[H, W, bands]``.
        orientation: of EXIF, by which they are still to be turned.
    """

    height: int
    width: int
    bands: int
    deep: bool
    values: Callable[[], Values]
    orientation: int = 1


def is_npy(head: bytes) -> bool:
    """Whether a file is an array of NumPy's, by its first bytes."""
    return head.startswith(_NPY)


def decoded_bands(content: bytes, reading: Reading) -> tuple[ImageArray, int]:
    """All bands of an image as bytes.

    Args:
        content: the file.
        reading: how to read it.

    Returns:
        uint8 ``[H, W, C]`` with the channels of ``reading``, or 3 equal ones of one band; and the orientation in EXIF.

    Raises:
        UnreadableImageError: if it has another number of bands.
        Exception: what decoders raise.
    """
    with stored(io.BytesIO(content), content[:HEAD], reading.channels, reading.large) as image:
        check_size(image.height, image.width, reading.large)
        if not (reading.channels == RGB and image.bands == 1):
            check_bands(image.bands, reading.channels)
        pixels = squeezed(image.values(), reading.pixel_range)
        return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], reading.channels))), image.orientation


@contextmanager
def stored(source: BinaryIO, head: bytes, channels: int, large: bool = False) -> Iterator[Stored]:
    """An opened image of any number of bands.

    Args:
        source: of the file's bytes.
        head: the first of them.
        channels: that are wanted: a TIFF may keep so many as pages of one band each.
        large: see `Reading`.

    Raises:
        UnreadableImageError: if it is none, or a package is missing.
        Exception: what decoders raise.
    """
    check_decoder(head)
    if is_npy(head):
        yield _of_array(source)
    elif is_tiff(head) and not _is_for_pillow(source, channels):
        with _of_tiff(source, channels) as image:
            yield image
    else:
        with opened(source, large) as picture:
            yield _of_pillow(picture, source, head)


def bands_of_picture(image: Image.Image) -> Values:
    """The bands ``[H, W, n]`` of an image of Pillow's that may come from anywhere."""
    return _of_pillow(image, None, b"").values()


def _of_array(source: BinaryIO) -> Stored:
    array = np.load(source, allow_pickle=False)
    if array.dtype.kind not in "buif" or array.ndim not in (2, 3) or not array.size:
        raise UnreadableImageError(
            f"an array of {array.dtype} of shape {list(array.shape)} is no image: save numbers as [H, W] or [H, W, C]"
        )
    array = array if array.ndim == 3 else array[..., None]
    height, width, bands = array.shape
    return Stored(height, width, bands, array.dtype not in (np.uint8, np.bool_), lambda: array)


def _of_pillow(image: Image.Image, source: BinaryIO | None, head: bytes) -> Stored:
    """Bands as stored of grey, colour and alpha; palettes, inks and other colours become RGB."""
    if is_grey_deep(image):
        bands, deep = 1, True

        def values() -> Values:
            return grey_values(image)[..., None]

    elif source is not None and is_colour_deep(image, head):
        bands, deep = len(image.getbands()), True

        def values() -> Values:
            return colour_values(_all_of(source), image)

    else:
        mode = "L" if image.mode == "1" else image.mode
        if mode not in _AS_STORED:
            mode = "RGBA" if mode in _WITH_ALPHA or "transparency" in image.info else "RGB"
        bands, deep = _AS_STORED[mode], False

        def values() -> Values:
            return np.array(image.convert(mode), dtype=np.uint8).reshape(image.height, image.width, bands)

    return Stored(image.height, image.width, bands, deep, values, orientation_of(image))


def _all_of(source: BinaryIO) -> bytes:
    place = source.tell()
    source.seek(0)
    content = source.read()
    source.seek(place)
    return content


def _is_for_pillow(source: BinaryIO, channels: int) -> bool:
    """Whether Pillow reads a TIFF as it is: what it can for RGB; else one band, or colours that are to become RGB."""
    try:
        with Image.open(source) as image:
            if channels == RGB:
                return not is_misread(image)
            tags: Any = getattr(image, "tag_v2", {})
            one_band = bands_in_tiff(image) == 1 and image.n_frames == 1  # type: ignore[attr-defined]
            return one_band or tags.get(_PHOTOMETRIC) not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB)
    except Image.UnidentifiedImageError:
        return False
    finally:
        source.seek(0)


@contextmanager
def _of_tiff(source: BinaryIO, channels: int) -> Iterator[Stored]:
    try:
        import tifffile
    except ImportError as error:
        raise UnreadableImageError(
            'a TIFF of this kind needs `pip install "rtdetrv2-train[multispectral]"`, or save it as .npy'
        ) from error
    try:
        with tifffile.TiffFile(source) as file:
            yield _of_pages(
                [page for page in file.pages if is_whole(int(page.subfiletype))] or [file.pages[0]], channels
            )
    except (UnreadableImageError, MemoryError):
        raise
    except Exception as error:  # its own, those of its codecs, or any that a damaged file leads to
        raise UnreadableImageError(str(error)) from error


def _of_pages(pages: list[Any], channels: int) -> Stored:
    first = pages[0]
    alike = len({(page.axes, page.shape, page.dtype) for page in pages}) == 1
    if len(pages) == channels != RGB and alike and first.axes == "YX":
        bands = channels
    else:
        check_pages(len(pages))
        bands = first.samplesperpixel
    if first.axes not in ("YX", "YXS", "SYX"):
        raise UnreadableImageError(f"its axes are {first.axes}: give height, width and bands only")
    tag = first.tags.get(ORIENTATION)
    orientation = 1 if tag is None else int(tag.value)
    size = (first.imagelength, first.imagewidth)

    def values() -> Values:
        one = np.concatenate([_values_of(page) for page in pages], axis=2)
        return turned_values(one, orientation)  # always, as Pillow turns a TIFF

    return Stored(
        *(size[::-1] if orientation >= TRANSPOSED else size), bands, first.dtype not in (np.uint8, np.bool_), values
    )


def _values_of(page: Any) -> Values:
    """The values of one page ``[H, W, n]``, 0 being black."""
    try:
        values: Values = page.asarray()
    except ValueError as error:
        if "imagecodecs" in str(error):
            raise UnreadableImageError(
                'its compression needs `pip install "rtdetrv2-train[multispectral]"`, or save it without'
            ) from error
        raise
    if page.photometric == _WHITE_IS_ZERO and values.dtype.kind == "u":
        values = values.dtype.type(2**page.bitspersample - 1) - values
    values = np.moveaxis(values, 0, 2) if page.axes == "SYX" else values
    return values.reshape(page.imagelength, page.imagewidth, -1)
