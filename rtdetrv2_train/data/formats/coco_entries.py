"""Entries of a COCO file: a fast parser for the usual ones, and a tolerant one for the rest.

The tolerant one reads numbers as they are meant: ``1.0`` and ``"1"`` are the id 1, as some tools write it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path, PureWindowsPath
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
    not_exhaustive_category_ids: list[_Id] = []  # of LVIS: classes of which not every object is annotated
    coco_url: str | None = None


def plain(entry: Any) -> Any:
    """An entry as plain objects."""
    return msgspec.json.decode(entry) if isinstance(entry, msgspec.Raw) else entry


def unusual_image(entry: Any, position: int, annotation_file: Path) -> ImageEntry:
    """Read an image whose size may be missing or of the wrong type.

    Raises:
        UserError: if it has no id or no file name.
    """
    image_id = whole(entry.get("id")) if isinstance(entry, dict) else None
    url = entry.get("coco_url") if isinstance(entry, dict) else None
    name = entry.get("file_name") or url if isinstance(entry, dict) else None  # LVIS has URLs only
    if image_id is None or not isinstance(name, str):
        raise UserError(
            f"entry {position} of 'images' of '{annotation_file}' is {brief(entry)}; an image needs a "
            f"whole number as 'id' and a 'file_name': {LAYOUT}"
        )
    listed = entry.get("not_exhaustive_category_ids")
    partial = [found for found in map(whole, listed if isinstance(listed, list) else ()) if found is not None]
    size = whole(entry.get("height")), whole(entry.get("width"))
    return ImageEntry(image_id, name, *size, partial, url if isinstance(url, str) else None)


def name_within(name: str, position: int, annotation_file: Path) -> str:
    """A file name as one that is relative to the folder of images, and does not lead out of it.

    Raises:
        UserError: if it leads out, or names no file.
    """
    if name[:1] in ("/", "\\") or name[1:2] == ":":
        path = PureWindowsPath(name)
        name = path.relative_to(path.anchor).as_posix() if path.root else name
    if name in ("", ".") or "\0" in name:
        raise UserError(f"entry {position} of 'images' of '{annotation_file}' has {name!r} as 'file_name': name a file")
    if ".." in name and os.path.normpath(name.replace("\\", "/")).split("/")[0] == "..":
        raise UserError(
            f"entry {position} of 'images' of '{annotation_file}' has '{name}' as 'file_name', which leads out of the "
            "folder of images: give paths relative to it, and the folder as data.train.images or data.val.images"
        )
    return name


def unusual_annotation(entry: dict[str, Any]) -> AnnotationEntry:
    """Read an unusual annotation.

    Raises:
        ValueError: if the annotation cannot be read; the message is the reason.
    """
    image_id, category_id = (_id_of(entry, key) for key in ("image_id", "category_id"))
    box = entry.get("bbox")
    sides = [side for side in map(number, box) if side is not None] if isinstance(box, list) and len(box) == 4 else []
    if len(sides) != 4:
        raise ValueError(f"bbox {brief(box)} is not four finite numbers")
    crowd = False if entry.get("iscrowd") is None else flag(entry["iscrowd"])
    if crowd is None:
        raise ValueError(f"iscrowd {brief(entry['iscrowd'])} is neither 0 nor 1")
    left, top, width, height = sides
    area = number(entry.get("area"))
    return AnnotationEntry(image_id, category_id, (left, top, width, height), whole(entry.get("id")), area, int(crowd))


def _id_of(entry: dict[str, Any], key: str) -> int:
    found = whole(entry.get(key))
    if found is None:
        raise ValueError(f"{key} {brief(entry.get(key))} is not a whole number")
    return found


def number(value: Any) -> float | None:
    """The finite number that JSON or text stands for; None where it is something else."""
    if isinstance(value, str) and "_" not in value:  # Python would read 12_3, which is no number but a name, as 123
        with contextlib.suppress(ValueError):
            value = int(value) if value.strip().isdigit() else float(value)
    plain_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if plain_number and -sys.float_info.max <= value <= sys.float_info.max else None


def whole(value: Any) -> int | None:
    """The whole number of 64 bits that JSON or text stands for; None where it is something else."""
    found = number(value)
    return int(found) if found is not None and found == int(found) and abs(found) <= _LARGEST_ID else None


def flag(value: Any) -> bool | None:
    """What a yes or no stands for that may be a truth value, a number or a text; None where it is something else."""
    if isinstance(value, str):
        value = {"true": True, "false": False}.get(value.strip().lower(), value)
    found = value if isinstance(value, bool) else number(value)
    return None if found is None else bool(found)


def name_of(value: Any) -> str:
    """The name that text or a whole number stands for; empty where it is something else."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if is_number or isinstance(value, str) else ""


def brief(value: Any) -> str:
    """A value for a message."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
