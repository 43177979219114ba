"""Resizing images, for training and for evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rtdetrv2_train.data.images.orientation import as_bytes
from rtdetrv2_train.data.images.reading import RGB, ImageArray

_MOST_AT_ONCE = 4  # channels that OpenCV averages over areas, or warps


def resize_for_training(image: ImageArray, height: int, width: int) -> ImageArray:
    """Resize fast and almost without aliasing: every pixel of the image contributes to the result.

    Sides that shrink to less than half are averaged over areas, others interpolated linearly.

    Args:
        image: uint8 ``[H, W, C]``.
        height: of the result.
        width: of the result.
    """
    rows, columns = image.shape[:2]
    halved = (width if 2 * width < columns else columns, height if 2 * height < rows else rows)
    if halved != (columns, rows):
        image = _resized(image, halved, cv2.INTER_AREA)
    if halved != (width, height):
        image = _resized(image, (width, height), cv2.INTER_LINEAR)
    return image


def _resized(image: ImageArray, size: tuple[int, int], interpolation: int) -> ImageArray:
    """As OpenCV does; ``size`` is (width, height)."""
    return in_fours(image, lambda part: cv2.resize(part, size, interpolation=interpolation))


def in_fours(image: ImageArray, operation: Callable[[ImageArray], NDArray[Any]]) -> ImageArray:
    """What an operation of OpenCV makes, which takes four channels and drops the axis of a single one.

    Args:
        image: uint8 ``[H, W, C]``.
        operation: on each of its channels alike.
    """
    channels = image.shape[2]
    if channels == RGB:
        return as_bytes(operation(image))
    parts = [
        operation(np.ascontiguousarray(image[..., first : first + _MOST_AT_ONCE]))
        for first in range(0, channels, _MOST_AT_ONCE)
    ]
    shape = (*parts[0].shape[:2], -1)
    return as_bytes(
        np.concatenate([part.reshape(shape) for part in parts], axis=2) if parts[1:] else parts[0].reshape(shape)
    )


def resize_for_evaluation(image: ImageArray, height: int, width: int) -> ImageArray:
    """Resize as for the published metrics: Pillow's antialiased bilinear filter, bit by bit.

    Args:
        image: uint8 ``[H, W, C]``.
        height: of the result.
        width: of the result.
    """
    if image.shape[2] == RGB:
        return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR), dtype=np.uint8)
    # One by one: of four channels Pillow takes the last for alpha, and of more it makes no image.
    planes = [Image.fromarray(np.ascontiguousarray(image[..., channel])) for channel in range(image.shape[2])]
    resized = [np.asarray(plane.resize((width, height), Image.Resampling.BILINEAR)) for plane in planes]
    return as_bytes(np.stack(resized, axis=2))


def fitted_size(height: int, width: int, size: tuple[int, int]) -> tuple[int, int]:
    """The largest (height, width) within ``size`` that has the aspect ratio of an image, up to half a pixel."""
    factor = min(size[0] / height, size[1] / width)
    return max(round(height * factor), 1), max(round(width * factor), 1)


def padded(image: ImageArray, size: tuple[int, int]) -> ImageArray:
    """An image in the top left corner of a black one of (height, width) ``size``; itself if it fills that."""
    rows, columns = image.shape[:2]
    if (rows, columns) == size:
        return image
    canvas = np.zeros((*size, image.shape[2]), dtype=np.uint8)
    canvas[:rows, :columns] = image
    return canvas


def evaluation_input(
    image: ImageArray, size: tuple[int, int], letterbox: bool
) -> tuple[ImageArray, tuple[float, float]]:
    """A model's input at evaluation, and how much of the image's plane it shows.

    Args:
        image: uint8 ``[H, W, C]``.
        size: (height, width) of the result.
        letterbox: whether to keep the aspect ratio, and leave a black margin at the right or below.

    Returns:
        uint8 ``[height, width, C]``, and the (height, width) that it spans in pixels of the image, margin included.
        Boxes that are shares of the result become pixels of the image by these.
    """
    height, width = image.shape[:2]
    if not letterbox:
        return resize_for_evaluation(image, *size), (height, width)
    rows, columns = fitted_size(height, width, size)
    resized = resize_for_evaluation(image, rows, columns)
    return padded(resized, size), (height * size[0] / rows, width * size[1] / columns)
