"""Pictures and data within a page, in the shape that its script reads."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

IMAGE_SIDE, CUT_OUT_SIDE = 520, 240
"""Pixels along the longer side of a picture of a whole image, and of a cut-out."""

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


def surroundings(boxes: NDArray[np.float64], shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The boxes with half their size around them, within the image."""
    low, high = boxes[:, :2].min(0), (boxes[:, :2] + boxes[:, 2:]).max(0)
    margin = np.maximum((high - low).max() * 0.5, 12)
    left, top = np.floor((low - margin).clip(min=0)).astype(int).tolist()
    right, bottom = np.ceil(np.minimum(high + margin, [shape[1], shape[0]])).astype(int).tolist()
    return left, top, right, bottom


def drawn_box(box: NDArray[np.float64], label: int, score: float | None, kind: str) -> dict[str, Any]:
    """A box as the page's script reads it: xywh ``box``, class, score (None for ground truth) and kind."""
    place = [round(float(side), 1) for side in box]
    return {"box": place, "label": int(label), "score": None if score is None else round(score, 3), "kind": kind}


def as_data_url(image: Image.Image, side: int) -> str:
    """As a data URL of a JPEG, with no more than ``side`` pixels along its longer side."""
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def embedded(value: Any) -> Markup:
    """JSON that cannot end the script element it stands in."""
    return Markup(json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"))
