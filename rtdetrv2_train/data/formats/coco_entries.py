"""Entries of a COCO file: a fast parser for the usual ones, and a tolerant one for the rest."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated, Any

import msgspec

from rtdetrv2_train.errors import UserError

LAYOUT = "COCO's format is needed; datasets/README.md says how to convert a Pascal VOC or YOLO set"
_LARGEST_ID = 2**63 - 1

_Id = Annotated[int, msgspec.Meta(ge=-_LARGEST_ID, le=_LARGEST_ID)]


class AnnotationEntry(msgspec.Struct, gc=False):
    """A usual annotation; the tolerant parser reads what does not fit this."""

    image_id: _Id
    category_id: _Id
    bbox: tuple[float, float, float, float]
    id: _Id | None = None
    area: float | None = None
    iscrowd: int | None = 0


class ImageEntry(msgspec.Struct, gc=False):
    """A usual image."""

    id: _Id
    file_name: str
    height: int | None = None
    width: int | None = None


def plain(entry: Any) -> Any:
    """An entry as plain objects."""
    return msgspec.json.decode(entry) if isinstance(entry, msgspec.Raw) else entry


def unusual_image(entry: Any, position: int, annotation_file: Path) -> ImageEntry:
    """Read an image whose size may be missing or of the wrong type.

    Raises:
        UserError: if it has no id or no file name.
    """
    if not isinstance(entry, dict) or not is_id(entry.get("id")) or not isinstance(entry.get("file_name"), str):
        raise UserError(
            f"entry {position} of 'images' of '{annotation_file}' is {brief(entry)}; an image needs a "
            f"whole number as 'id' and a 'file_name': {LAYOUT}"
        )
    sizes = {side: entry[side] for side in ("height", "width") if _is_side(entry.get(side))}
    return ImageEntry(entry["id"], entry["file_name"], **sizes)


def check_file_name(name: str, position: int, annotation_file: Path) -> None:
    """Check that a file name does not lead out of the folder of images.

    Raises:
        UserError: if it does, or names no file.
    """
    if not name or "\0" in name:
        raise UserError(f"entry {position} of 'images' of '{annotation_file}' has {name!r} as 'file_name': name a file")
    if (".." in name and Path(os.path.normpath(name)).parts[:1] == ("..",)) or name.startswith(os.sep):
        raise UserError(
            f"entry {position} of 'images' of '{annotation_file}' has '{name}' as 'file_name', which leads out of the "
            "folder of images: give paths relative to it, and the folder as data.train.images or data.val.images"
        )


def unusual_annotation(entry: dict[str, Any]) -> AnnotationEntry:
    """Read an unusual annotation.

    Raises:
        ValueError: if the annotation cannot be read; the message is the reason.
    """
    for key in ("image_id", "category_id"):
        if not is_id(entry.get(key)):
            raise ValueError(f"{key} {brief(entry.get(key))} is not a whole number")
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(side) for side in box):
        raise ValueError(f"bbox {brief(box)} is not four finite numbers")
    number, area, crowd = entry.get("id"), entry.get("area"), entry.get("iscrowd")
    left, top, width, height = (float(side) for side in box)
    return AnnotationEntry(
        entry["image_id"],
        entry["category_id"],
        (left, top, width, height),
        number if is_id(number) else None,
        float(area) if area is not None and _is_number(area) else None,
        int(crowd) if isinstance(crowd, int) else 0,
    )


def is_id(value: Any) -> bool:
    """Whether this is a whole number that fits an array."""
    return isinstance(value, int) and not isinstance(value, bool) and -_LARGEST_ID <= value <= _LARGEST_ID


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_side(value: Any) -> bool:
    return is_id(value) and value > 0


def is_name(value: Any) -> bool:
    """Whether this is text."""
    return isinstance(value, str) and bool(value)


def brief(value: Any) -> str:
    """A value for a message."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
