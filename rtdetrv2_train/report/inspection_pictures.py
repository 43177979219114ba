"""The pictures of an inspection: what a finding is about, as cut-outs, whole images, or pairs of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.images.decode import UnreadableImageError, shrink_for
from rtdetrv2_train.data.inspection.findings import Finding, Item, Parts
from rtdetrv2_train.report.embedding import (
    CUT_OUT_SIDE,
    IMAGE_SIDE,
    Picture,
    as_data_url,
    drawn_box,
    surroundings,
)
from rtdetrv2_train.viz.boxes import visible

PICTURES_OF_EACH_FINDING = 8

_TRIED = 4 * PICTURES_OF_EACH_FINDING
_MEANT_OTHERWISE = "boxes_as_"
_MOST_BOXES = 200
_GAP = 8
_LEAST_CUT_OUT = 24
_LEAST_SHARE, _LEAST_DRAWN = 0.08, 1.5  # sides: of what a cut-out is around, of its image; of a drawn box, in pixels


def pictures_of(finding: Finding, parts: Parts, class_names: Sequence[str]) -> list[Picture]:
    """Some of what a finding is about, each in another image; empty where there is nothing to be seen.

    Args:
        finding: about one of the parts.
        parts: the tables.
        class_names: of all parts, which the pictures' labels refer to.
    """
    table = parts[finding.part]
    numbers = [class_names.index(name) for name in table.class_names]
    pictures: list[Picture] = []
    shown: set[int] = set()
    for item in finding.items(_TRIED):
        if item.image < 0 or item.image in shown or len(pictures) == PICTURES_OF_EACH_FINDING:
            continue
        shown.add(item.image)
        if finding.check.startswith(_MEANT_OTHERWISE):  # boxes that lie elsewhere than their objects
            picture = _one(table, Item(item.image, (), -1, ""), numbers)
        elif item.beside >= 0:
            picture = _pair(table, parts[finding.other_part], item, finding)
        else:
            picture = _one(table, item, numbers)
        if picture is not None:
            pictures.append(picture)
    return pictures


def _one(table: AnnotationTable, item: Item, numbers: Sequence[int]) -> Picture | None:
    """The boxes of an item with what is around them, or the whole image with all of its boxes."""
    read = _pixels(table, item.image, IMAGE_SIDE)
    if read is None:
        return None
    pixels, scale = read
    name = str(table.file_names[item.image])
    if not item.boxes:
        title = f"{name}: {item.note}" if item.note else name
        return _picture(title, pixels, _boxes_of(table, item, numbers, scale), IMAGE_SIDE)
    wrong = (
        _at_least(np.nan_to_num(table.raw_boxes[list(item.boxes)]), max(table.size(item.image)) * _LEAST_SHARE) * scale
    )
    left, top, right, bottom = surroundings(wrong, pixels.shape)
    named = " and ".join(dict.fromkeys(table.class_names[table.raw_labels[box]] for box in item.boxes))
    if right - left < _LEAST_CUT_OUT or bottom - top < _LEAST_CUT_OUT:  # outside of the image, say
        return _picture(f"{named} in {name}", pixels, _boxes_of(table, item, numbers, scale), IMAGE_SIDE)
    drawn = [
        {**box, "box": [round(box["box"][0] - left, 1), round(box["box"][1] - top, 1), *box["box"][2:]]}
        for box in _boxes_of(table, item, numbers, scale, only=True)
    ]
    cut = np.ascontiguousarray(pixels[top:bottom, left:right])
    return _picture(f"{named} in {name}", cut, drawn, CUT_OUT_SIDE)


def _pair(table: AnnotationTable, other_table: AnnotationTable, item: Item, finding: Finding) -> Picture | None:
    """Two images beside each other."""
    read = [_pixels(table, item.image, CUT_OUT_SIDE), _pixels(other_table, item.beside, CUT_OUT_SIDE)]
    if any(each is None for each in read):
        return None
    shown = [Image.fromarray(each[0]) for each in read if each is not None]
    for image in shown:
        image.thumbnail((CUT_OUT_SIDE, CUT_OUT_SIDE))
    both = Image.new("RGB", (sum(i.width for i in shown) + _GAP, max(i.height for i in shown)), "white")
    both.paste(shown[0], (0, 0))
    both.paste(shown[1], (shown[0].width + _GAP, 0))
    names = (table.file_names[item.image], other_table.file_names[item.beside])
    title = f"{names[0]} ({finding.part}) · {names[1]} ({finding.other_part})"
    return _picture(title, np.asarray(both), [], 2 * CUT_OUT_SIDE + _GAP)


def _pixels(table: AnnotationTable, image: int, side: int) -> tuple[NDArray[np.uint8], float] | None:
    """RGB bytes ``[H, W, 3]``, no smaller than needed, and their size as a share of the image's; None: unreadable."""
    try:
        stored = table.image(image)
        pixels, shrink = stored.decode(shrink_for(max(stored.height, stored.width) / (2 * side)))
    except UnreadableImageError:
        return None
    return visible(pixels), 1 / shrink


def _boxes_of(
    table: AnnotationTable, item: Item, numbers: Sequence[int], scale: float, only: bool = False
) -> list[dict[str, Any]]:
    """The boxes of an image in the scale of its picture, those of the item as mistakes."""
    places = np.array(item.boxes, dtype=np.int64)
    if not only:
        others = np.flatnonzero(table.raw_images == item.image)
        places = np.concatenate([places, others[~np.isin(others, places)][:_MOST_BOXES]])
    return [
        drawn_box(
            _at_least(table.raw_boxes[place], _LEAST_DRAWN / scale) * scale,
            numbers[table.raw_labels[place]],
            None,
            _kind(table, item, place),
        )
        for place in places.tolist()
    ]


def _at_least(boxes: NDArray[np.float64], side: float) -> NDArray[np.float64]:
    """Boxes (xywh) about the same centres, with at least so many pixels a side."""
    grown = np.maximum(side - boxes[..., 2:], 0)
    return np.concatenate([boxes[..., :2] - grown / 2, boxes[..., 2:] + grown], axis=-1)


def _kind(table: AnnotationTable, item: Item, place: int) -> str:
    """How a box is drawn: that which is wrong, the one that it is compared with, or another one."""
    if place in item.boxes:
        return ("wrong", "right")[item.boxes.index(place)]
    return "crowd" if table.raw_crowd[place] else "truth"


def _picture(title: str, pixels: NDArray[np.uint8], boxes: list[dict[str, Any]], side: int) -> Picture:
    height, width = pixels.shape[:2]
    return Picture(title, as_data_url(Image.fromarray(pixels), side), width, height, boxes)
