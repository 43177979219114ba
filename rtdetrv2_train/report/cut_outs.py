"""Pictures with boxes as the pages of reports have them: whole images, and cut-outs around some boxes."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.images.decode import UnreadableImageError
from rtdetrv2_train.viz.boxes import visible

ReadImage = Callable[[int], NDArray[np.uint8] | None]
"""From an image id to RGB bytes ``[H, W, 3]``, or None where the image cannot be read."""

_CUT_OUT_SIDE = 240
_QUALITY = 78


@dataclass(frozen=True)
class Picture:
    """An image with boxes, in the shape that the page's script reads.

    Attributes:
        title: the caption below it.
        source: the image as a data URL.
        width: of the image that the boxes refer to, in pixels.
        height: the same.
        boxes: of each box its place (x, y, w, h), class index, score (None for ground truth) and kind of detection.
    """

    title: str
    source: str
    width: float
    height: float
    boxes: list[dict[str, Any]]


def reader_of(annotations: AnnotationTable) -> ReadImage:
    """Reads the images of a set by their ids."""
    numbers = {image_id: index for index, image_id in enumerate(annotations.image_ids.tolist())}

    def read(image_id: int) -> NDArray[np.uint8] | None:
        try:
            return visible(annotations.image(numbers[image_id]).decode()[0])
        except UnreadableImageError:
            return None

    return read


def cut_out(
    pixels: NDArray[np.uint8], boxes: Sequence[dict[str, Any]], title: str, others: Sequence[dict[str, Any]] = ()
) -> Picture | None:
    """A cut-out around some boxes, with half their size around them; None where there is nothing of the image.

    Args:
        pixels: uint8 ``[H, W, 3]``.
        boxes: see :func:`drawn_box`.
        title: the caption below it.
        others: further boxes, which are drawn where they reach into it.
    """
    left, top, right, bottom = _surroundings(np.array([box["box"] for box in boxes]), pixels.shape)
    if right <= left or bottom <= top:
        return None
    drawn = [
        {**box, "box": [round(box["box"][0] - left, 1), round(box["box"][1] - top, 1), *box["box"][2:]]}
        for box in (*boxes, *(other for other in others if _reaches_into(other["box"], left, top, right, bottom)))
    ]
    cut = Image.fromarray(np.ascontiguousarray(pixels[top:bottom, left:right]))
    return Picture(title, as_data_url(cut, _CUT_OUT_SIDE), right - left, bottom - top, drawn)


def _reaches_into(box: Sequence[float], left: int, top: int, right: int, bottom: int) -> bool:
    return box[0] < right and box[0] + box[2] > left and box[1] < bottom and box[1] + box[3] > top


def _surroundings(boxes: NDArray[np.float64], shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The boxes with half their size around them, within the image."""
    low, high = boxes[:, :2].min(0), (boxes[:, :2] + boxes[:, 2:]).max(0)
    margin = np.maximum((high - low).max() * 0.5, 12)
    left, top = np.floor((low - margin).clip(min=0)).astype(int).tolist()
    right, bottom = np.ceil(np.minimum(high + margin, [shape[1], shape[0]])).astype(int).tolist()
    return left, top, right, bottom


def drawn_box(box: NDArray[np.float64], label: int, score: float | None, kind: str) -> dict[str, Any]:
    """A box (xywh in pixels) as a `Picture` has it; ``score``: None for ground truth; ``kind``: of detection."""
    place = [round(float(side), 1) for side in box]
    return {"box": place, "label": int(label), "score": None if score is None else round(score, 3), "kind": kind}


def as_data_url(image: Image.Image, side: int) -> str:
    """An image as a data URL of a JPEG, with no more than ``side`` pixels along its longer side."""
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
