"""The pixels of what is predicted on: files, images of Pillow's, arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from rtdetrv2_train.data.images.bands import bands_of_picture
from rtdetrv2_train.data.images.decode import ImageArray, Reading, UnreadableImageError, read_image, turned
from rtdetrv2_train.data.images.orientation import orientation_of
from rtdetrv2_train.data.images.reading import RGB, check_bands
from rtdetrv2_train.data.images.values import as_rgb, squeezed
from rtdetrv2_train.errors import UserError

ImageLike = str | Path | Image.Image | ImageArray


def pixels_of(image: ImageLike, reading: Reading) -> ImageArray:
    """The pixels of an image, uint8 ``[H, W, C]``.

    Args:
        image: a file's path, an image of Pillow's or an array.
        reading: how files are read.

    Raises:
        UserError: if it is none, or cannot be read.
    """
    if isinstance(image, str | Path):
        try:
            return read_image(Path(image), reading)
        except UnreadableImageError as error:
            raise UserError(f"image '{image}' cannot be read ({error}): give an intact image file") from error
    if reading.channels != RGB:
        return _bands_of(image, reading)
    if isinstance(image, np.ndarray):
        channels = image.shape[2] if image.ndim == 3 else 1
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or channels not in (1, 3, 4) or not image.size:
            raise UserError(
                f"an array of type {image.dtype} and shape {list(image.shape)} is no image: give uint8 of shape "
                "[H, W], [H, W, 3] or [H, W, 4]"
            )
        if image.ndim == channels == 3:
            return image
        image = Image.fromarray(image[..., 0] if image.ndim == 3 and channels == 1 else image)
    if not isinstance(image, Image.Image):
        raise UserError(f"a {type(image).__name__} is no image: give a path, an image of Pillow's or a uint8 array")
    return turned(np.array(as_rgb(image, reading.pixel_range), dtype=np.uint8), orientation_of(image))


def _bands_of(image: ImageLike, reading: Reading) -> ImageArray:
    """As `pixels_of`, of an array or an image of Pillow's for a model of other channels than RGB."""
    channels = reading.channels
    if isinstance(image, Image.Image):
        values = bands_of_picture(image)
        try:
            check_bands(values.shape[2], channels, "an image")
        except UnreadableImageError as error:
            raise UserError(f"{error}, as the model was trained with that: give one of as many bands") from error
        return turned(squeezed(values, reading.pixel_range), orientation_of(image))
    if not isinstance(image, np.ndarray):
        raise UserError(f"a {type(image).__name__} is no image: give a path, an image of Pillow's or a uint8 array")
    bands = image[..., None] if image.ndim == 2 and channels == 1 else image
    if bands.dtype != np.uint8 or bands.ndim != 3 or bands.shape[2] != channels or not bands.size:
        raise UserError(
            f"an array of type {image.dtype} and shape {list(image.shape)} is no image of the {channels} channels that "
            f"the model takes: give uint8 of shape [H, W, {channels}]"
        )
    return bands
