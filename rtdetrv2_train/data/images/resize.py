"""Resizing images, for training and for evaluation."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

from rtdetrv2_train.data.images.decode import ImageArray, as_bytes


def resize_for_training(image: ImageArray, height: int, width: int) -> ImageArray:
    """Resize fast and without aliasing that counts: each pixel of the image has its share in the result.

    Sides that shrink to less than half are averaged over areas, others interpolated linearly.

    Args:
        image: uint8 ``[H, W, 3]``.
        height: of the result.
        width: of the result.
    """
    rows, columns = image.shape[:2]
    halved = (width if 2 * width < columns else columns, height if 2 * height < rows else rows)
    if halved != (columns, rows):
        image = as_bytes(cv2.resize(image, halved, interpolation=cv2.INTER_AREA))
    if halved != (width, height):
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


def fitted_size(height: int, width: int, size: tuple[int, int]) -> tuple[int, int]:
    """The largest (height, width) within ``size`` that has the aspect ratio of an image, up to half a pixel."""
    factor = min(size[0] / height, size[1] / width)
    return max(round(height * factor), 1), max(round(width * factor), 1)


def padded(image: ImageArray, size: tuple[int, int]) -> ImageArray:
    """An image in the top left corner of a black one of (height, width) ``size``; itself if it fills that."""
    rows, columns = image.shape[:2]
    if (rows, columns) == size:
        return image
    canvas = np.zeros((*size, 3), dtype=np.uint8)
    canvas[:rows, :columns] = image
    return canvas


def evaluation_input(
    image: ImageArray, size: tuple[int, int], letterbox: bool
) -> tuple[ImageArray, tuple[float, float]]:
    """An image as a model looks at it, and how much of the image's plane that shows.

    Args:
        image: uint8 ``[H, W, 3]``.
        size: (height, width) of the result.
        letterbox: whether to keep the aspect ratio, and leave a black margin at the right or below.

    Returns:
        uint8 ``[height, width, 3]``, and the (height, width) that it spans in pixels of the image, margin included.
        Boxes that are shares of the result become pixels of the image by these.
    """
    height, width = image.shape[:2]
    if not letterbox:
        return resize_for_evaluation(image, *size), (height, width)
    rows, columns = fitted_size(height, width, size)
    resized = resize_for_evaluation(image, rows, columns)
    return padded(resized, size), (height * size[0] / rows, width * size[1] / columns)
