"""Cut-outs of images around some boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.images.decode import UnreadableImageError
from rtdetrv2_train.report.embedding import CUT_OUT_SIDE, Picture, as_data_url, surroundings
from rtdetrv2_train.report.pictures import ReadImage
from rtdetrv2_train.viz.boxes import visible


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
    left, top, right, bottom = surroundings(np.array([box["box"] for box in boxes]), pixels.shape)
    if right <= left or bottom <= top:
        return None
    drawn = [
        {**box, "box": [round(box["box"][0] - left, 1), round(box["box"][1] - top, 1), *box["box"][2:]]}
        for box in (*boxes, *(other for other in others if _reaches_into(other["box"], left, top, right, bottom)))
    ]
    cut = Image.fromarray(np.ascontiguousarray(pixels[top:bottom, left:right]))
    return Picture(title, as_data_url(cut, CUT_OUT_SIDE), right - left, bottom - top, drawn)


def _reaches_into(box: Sequence[float], left: int, top: int, right: int, bottom: int) -> bool:
    return box[0] < right and box[0] + box[2] > left and box[1] < bottom and box[1] + box[3] > top
