"""Reading a COCO annotation file, and saying what is wrong where it is not one."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from rtdetrv2_train.errors import UserError

_LAYOUT = "COCO's format is needed; datasets/README.md says how to convert a Pascal VOC or YOLO set"
_KEYS = ("images", "annotations", "categories")
_LARGEST_ID = 2**63 - 1


@dataclass(frozen=True)
class AnnotationProblem:
    """A box that cannot be trained on.

    Attributes:
        file_name: image that the box belongs to, as the annotation file names it; empty for an unknown image.
        annotation_id: id in the annotation file, None where it has none.
        reason: what is wrong with the box.
    """

    file_name: str
    annotation_id: int | None
    reason: str

    def __str__(self) -> str:
        return f"{self.file_name or 'no image'}, annotation {self.annotation_id}: {self.reason}"


@dataclass(frozen=True)
class CocoContent:
    """What a COCO file says: I images, C categories, M annotations with a readable box.

    Attributes:
        image_ids, file_names, heights, widths: ``[I]``, in the order of the file.
        category_ids, class_names: ``C``, by ascending id.
        ids: int64 ``[M]``, unique and at least 1: those of the file, or running ones where those do not serve.
        original_ids: the ids of the file, None where it has none.
        box_image_ids, box_category_ids: int64 ``[M]``.
        boxes: float64 ``[M, 4]``, xywh pixels, finite.
        areas: float64 ``[M]``, square pixels.
        crowd: int64 ``[M]``.
        unreadable: annotations without four finite numbers as a box, or without the ids of an image and a category.
    """

    image_ids: NDArray[np.int64]
    file_names: NDArray[np.str_]
    heights: NDArray[np.int64]
    widths: NDArray[np.int64]
    category_ids: tuple[int, ...]
    class_names: tuple[str, ...]
    ids: NDArray[np.int64]
    original_ids: tuple[int | None, ...]
    box_image_ids: NDArray[np.int64]
    box_category_ids: NDArray[np.int64]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    crowd: NDArray[np.int64]
    unreadable: tuple[AnnotationProblem, ...]


def read_coco_file(annotation_file: Path, image_folder: Path) -> CocoContent:
    """Read and check a COCO annotation file.

    Args:
        annotation_file: the JSON file.
        image_folder: where the images lie; opened only for images whose size the file does not give.

    Raises:
        UserError: if the file cannot be read or is not COCO's format; the message names the first fault.
    """
    content = _read_json(annotation_file)
    image_ids, file_names, heights, widths = _images(content["images"], annotation_file, image_folder)
    category_ids, class_names = _categories(content["categories"], annotation_file)
    names = dict(zip(image_ids, file_names, strict=True))
    original_ids: list[int | None] = []
    rows: list[tuple[int, int, list[float], float, int]] = []
    unreadable: list[AnnotationProblem] = []
    for entry in content["annotations"]:
        if not isinstance(entry, dict):
            raise UserError(
                f"'{annotation_file}': an entry of 'annotations' is {entry!r:.80}, not an object: {_LAYOUT}"
            )
        number = entry["id"] if _is_id(entry.get("id")) else None
        try:
            rows.append(_annotation(entry))
            original_ids.append(number)
        except ValueError as error:
            file_name = names[entry["image_id"]] if _is_id(entry.get("image_id")) and entry["image_id"] in names else ""
            unreadable.append(AnnotationProblem(file_name, number, str(error)))
    return CocoContent(
        image_ids=np.array(image_ids, dtype=np.int64),
        file_names=np.array(file_names, dtype=np.str_),
        heights=np.array(heights, dtype=np.int64),
        widths=np.array(widths, dtype=np.int64),
        category_ids=category_ids,
        class_names=class_names,
        ids=_usable_ids(original_ids),
        original_ids=tuple(original_ids),
        box_image_ids=np.array([row[0] for row in rows], dtype=np.int64),
        box_category_ids=np.array([row[1] for row in rows], dtype=np.int64),
        boxes=np.array([row[2] for row in rows], dtype=np.float64).reshape(-1, 4),
        areas=np.array([row[3] for row in rows], dtype=np.float64),
        crowd=np.array([row[4] for row in rows], dtype=np.int64),
        unreadable=tuple(unreadable),
    )


def _read_json(annotation_file: Path) -> dict[str, Any]:
    try:
        with annotation_file.open(encoding="utf-8") as stream:
            content = json.load(stream)
    except OSError as error:
        raise UserError(f"the annotation file '{annotation_file}' cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"'{annotation_file}' is not JSON ({error}): {_LAYOUT}") from error
    if not isinstance(content, dict):
        raise UserError(f"'{annotation_file}' holds a {type(content).__name__}, not an object: {_LAYOUT}")
    for key in _KEYS:
        if key not in content:
            raise UserError(f"'{annotation_file}' has no '{key}': {_LAYOUT}")
        if not isinstance(content[key], list):
            raise UserError(f"'{key}' of '{annotation_file}' is a {type(content[key]).__name__}, not a list: {_LAYOUT}")
    for key in ("images", "categories"):
        if not content[key]:
            raise UserError(
                f"'{key}' of '{annotation_file}' is empty: there is nothing to learn from or to evaluate on"
            )
    return content


def _images(
    entries: Sequence[Any], annotation_file: Path, image_folder: Path
) -> tuple[list[int], list[str], list[int], list[int]]:
    ids: list[int] = []
    names: list[str] = []
    sizes: list[tuple[int, int]] = []
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict) or not _is_id(entry.get("id")) or not _is_name(entry.get("file_name")):
            raise UserError(
                f"entry {position} of 'images' of '{annotation_file}' is {_brief(entry)}; an image needs a "
                f"whole number as 'id' and a 'file_name': {_LAYOUT}"
            )
        if _is_side(entry.get("height")) and _is_side(entry.get("width")):
            sizes.append((entry["height"], entry["width"]))
        else:
            sizes.append(_size_of_file(image_folder / entry["file_name"], annotation_file))
        ids.append(entry["id"])
        names.append(entry["file_name"])
    if len(set(ids)) != len(ids):
        first: dict[int, str] = {}
        for number, name in zip(ids, names, strict=True):
            if number in first:
                raise UserError(
                    f"image id {number} of '{annotation_file}' stands for both '{first[number]}' and '{name}': "
                    "give every image its own id"
                )
            first[number] = name
    return ids, names, [height for height, _ in sizes], [width for _, width in sizes]


def _size_of_file(path: Path, annotation_file: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, UnidentifiedImageError) as error:
        raise UserError(
            f"'{annotation_file}' gives no height and width for '{path}', and that file cannot be read: "
            "add the sizes, or mend the file"
        ) from error


def _categories(entries: Sequence[Any], annotation_file: Path) -> tuple[tuple[int, ...], tuple[str, ...]]:
    names: dict[int, str] = {}
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict) or not _is_id(entry.get("id")) or not _is_name(entry.get("name")):
            raise UserError(
                f"entry {position} of 'categories' of '{annotation_file}' is {_brief(entry)}; a category needs a "
                f"whole number as 'id' and a 'name': {_LAYOUT}"
            )
        if entry["id"] in names:
            raise UserError(
                f"category id {entry['id']} of '{annotation_file}' stands for both '{names[entry['id']]}' and "
                f"'{entry['name']}': give every category its own id"
            )
        names[entry["id"]] = entry["name"]
    ids = tuple(sorted(names))
    return ids, tuple(names[number] for number in ids)


def _annotation(entry: dict[str, Any]) -> tuple[int, int, list[float], float, int]:
    """Image id, category id, box, area and crowd flag.

    Raises:
        ValueError: if the annotation cannot be read; the message is the reason.
    """
    for key in ("image_id", "category_id"):
        if not _is_id(entry.get(key)):
            raise ValueError(f"{key} {_brief(entry.get(key))} is not a whole number")
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(side) for side in box):
        raise ValueError(f"bbox {_brief(box)} is not four finite numbers")
    area, crowd = entry.get("area"), entry.get("iscrowd")
    return (
        entry["image_id"],
        entry["category_id"],
        [float(side) for side in box],
        float(area) if area is not None and _is_number(area) else float(box[2]) * float(box[3]),
        int(crowd) if isinstance(crowd, int) else 0,
    )


def _usable_ids(ids: Sequence[int | None]) -> NDArray[np.int64]:
    """The given ids, or running ones if some are missing, repeated, or 0, which pycocotools reads as "no match"."""
    if None in ids or len(set(ids)) != len(ids) or any(number is not None and number < 1 for number in ids):
        return np.arange(1, len(ids) + 1, dtype=np.int64)
    return np.array(ids, dtype=np.int64)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -_LARGEST_ID <= value <= _LARGEST_ID


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_side(value: Any) -> bool:
    return _is_id(value) and value > 0


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
