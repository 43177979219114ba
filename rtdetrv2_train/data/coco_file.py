"""Reading a COCO annotation file, and saying what is wrong where it is not one."""

from __future__ import annotations

import json
import math
import os
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from rtdetrv2_train.errors import UserError

_LAYOUT = "COCO's format is needed; datasets/README.md says how to convert a Pascal VOC or YOLO set"
_KEYS = ("images", "annotations", "categories")
_LARGEST_ID = 2**63 - 1
# Stands in an array of ids for an annotation without one.
NO_ID = -(2**63)

_Id = Annotated[int, msgspec.Meta(ge=-_LARGEST_ID, le=_LARGEST_ID)]


class _Annotation(msgspec.Struct, gc=False):
    """An annotation as nearly all are; what does not fit this is looked at in detail."""

    image_id: _Id
    category_id: _Id
    bbox: tuple[float, float, float, float]
    id: _Id | None = None
    area: float | None = None
    iscrowd: int | None = 0


class _Image(msgspec.Struct, gc=False):
    """An image as nearly all are."""

    id: _Id
    file_name: str
    height: int | None = None
    width: int | None = None


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
        original_ids: int64 ``[M]``, the ids of the file, `NO_ID` where it has none.
        box_image_ids, box_category_ids: int64 ``[M]``.
        boxes: float64 ``[M, 4]``, xywh pixels, finite.
        areas: float64 ``[M]``, square pixels.
        crowd: int64 ``[M]``.
        unreadable: annotations without four finite numbers as a box, or without the ids of an image and a category.
        sizes_from_images: whether the file lacks sizes, so that image files were opened.
    """

    image_ids: NDArray[np.int64]
    file_names: NDArray[np.str_]
    heights: NDArray[np.int64]
    widths: NDArray[np.int64]
    category_ids: tuple[int, ...]
    class_names: tuple[str, ...]
    ids: NDArray[np.int64]
    original_ids: NDArray[np.int64]
    box_image_ids: NDArray[np.int64]
    box_category_ids: NDArray[np.int64]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    crowd: NDArray[np.int64]
    unreadable: tuple[AnnotationProblem, ...]
    sizes_from_images: bool


def read_coco_file(annotation_file: Path, image_folder: Path) -> CocoContent:
    """Read and check a COCO annotation file.

    Args:
        annotation_file: the JSON file.
        image_folder: where the images lie; opened only for images whose size the file does not give.

    Raises:
        UserError: if the file cannot be read or is not COCO's format; the message names the first fault.
    """
    content = _read_json(annotation_file)
    images = _images(content["images"], annotation_file, image_folder)
    category_ids, class_names = _categories(content["categories"], annotation_file)
    return _content(images, category_ids, class_names, content["annotations"], annotation_file)


def _content(
    images: _Images,
    category_ids: tuple[int, ...],
    class_names: tuple[str, ...],
    entries: Sequence[Any],
    annotation_file: Path,
) -> CocoContent:
    """The annotations as arrays. Numbers go straight into them: a million Python objects would take a gigabyte."""
    ids, image_ids, box_category_ids, crowd = array("q"), array("q"), array("q"), array("q")
    boxes, areas = array("d"), array("d")
    unreadable: list[AnnotationProblem] = []
    names: dict[int, str] = {}
    decode = msgspec.json.Decoder(_Annotation).decode
    for entry in entries:
        try:
            row = decode(entry)
            if not all(map(math.isfinite, row.bbox)):
                raise ValueError(f"bbox {_brief(list(row.bbox))} is not four finite numbers")
        except (msgspec.ValidationError, TypeError, ValueError):
            loose = _loosely(entry)
            if not isinstance(loose, dict):
                raise UserError(
                    f"'{annotation_file}': an entry of 'annotations' is {loose!r:.80}, not an object: {_LAYOUT}"
                ) from None
            try:
                row = _annotation(loose)
            except ValueError as error:
                names = names or dict(zip(images.ids, images.names, strict=True))
                file_name = names.get(loose["image_id"], "") if _is_id(loose.get("image_id")) else ""
                unreadable.append(
                    AnnotationProblem(file_name, loose["id"] if _is_id(loose.get("id")) else None, str(error))
                )
                continue
        ids.append(NO_ID if row.id is None else row.id)
        image_ids.append(row.image_id)
        box_category_ids.append(row.category_id)
        boxes.extend(row.bbox)
        areas.append(math.nan if row.area is None else row.area)
        crowd.append(row.iscrowd or 0)
    box_array = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    area_array, id_array = np.array(areas, dtype=np.float64), np.array(ids, dtype=np.int64)
    return CocoContent(
        image_ids=np.array(images.ids, dtype=np.int64),
        file_names=np.array(images.names, dtype=np.str_),
        heights=np.array(images.heights, dtype=np.int64),
        widths=np.array(images.widths, dtype=np.int64),
        category_ids=category_ids,
        class_names=class_names,
        ids=_usable_ids(id_array),
        original_ids=id_array,
        box_image_ids=np.array(image_ids, dtype=np.int64),
        box_category_ids=np.array(box_category_ids, dtype=np.int64),
        boxes=box_array,
        areas=np.where(np.isfinite(area_array), area_array, box_array[:, 2] * box_array[:, 3]),
        crowd=np.array(crowd, dtype=np.int64),
        unreadable=tuple(unreadable),
        sizes_from_images=images.sizes_from_images,
    )


def _read_json(annotation_file: Path) -> dict[str, list[Any]]:
    """The lists of the file. Their entries are still JSON, or plain objects where the file is not strictly JSON."""
    try:
        text = annotation_file.read_bytes()
    except OSError as error:
        raise UserError(f"the annotation file '{annotation_file}' cannot be read: {error.strerror}") from error
    try:
        content: Any = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        # Python's own parser knows NaN, which some tools write, and says where the fault is.
        try:
            content = json.loads(text)
        except ValueError as error:
            raise UserError(f"'{annotation_file}' is not JSON ({error}): {_LAYOUT}") from error
    if not isinstance(content, dict):
        raise UserError(f"'{annotation_file}' holds a {type(content).__name__}, not an object: {_LAYOUT}")
    for key in _KEYS:
        if key not in content:
            raise UserError(f"'{annotation_file}' has no '{key}': {_LAYOUT}")
        if isinstance(content[key], msgspec.Raw):
            try:
                content[key] = msgspec.json.decode(content[key], type=list[msgspec.Raw])
            except msgspec.ValidationError:
                content[key] = _loosely(content[key])
        if not isinstance(content[key], list):
            raise UserError(f"'{key}' of '{annotation_file}' is a {type(content[key]).__name__}, not a list: {_LAYOUT}")
    for key in ("images", "categories"):
        if not content[key]:
            raise UserError(
                f"'{key}' of '{annotation_file}' is empty: there is nothing to learn from or to evaluate on"
            )
    return content


def _loosely(entry: Any) -> Any:
    """An entry as plain objects."""
    return msgspec.json.decode(entry) if isinstance(entry, msgspec.Raw) else entry


@dataclass(frozen=True)
class _Images:
    ids: list[int]
    names: list[str]
    heights: list[int]
    widths: list[int]
    sizes_from_images: bool


def _images(entries: Sequence[Any], annotation_file: Path, image_folder: Path) -> _Images:
    ids: list[int] = []
    names: list[str] = []
    sizes: list[tuple[int, int]] = []
    sizes_from_images = False
    decode = msgspec.json.Decoder(_Image).decode
    for position, entry in enumerate(entries):
        try:
            image = decode(entry)
        except (msgspec.ValidationError, TypeError):
            image = _image(_loosely(entry), position, annotation_file)
        _check_name(image.file_name, position, annotation_file)
        if image.height is not None and image.width is not None and min(image.height, image.width) > 0:
            sizes.append((image.height, image.width))
        else:
            sizes.append(_size_of_file(image_folder / image.file_name, annotation_file))
            sizes_from_images = True
        ids.append(image.id)
        names.append(image.file_name)
    if len(set(ids)) != len(ids):
        first: dict[int, str] = {}
        for number, name in zip(ids, names, strict=True):
            if number in first:
                raise UserError(
                    f"image id {number} of '{annotation_file}' stands for both '{first[number]}' and '{name}': "
                    "give every image its own id"
                )
            first[number] = name
    return _Images(ids, names, [height for height, _ in sizes], [width for _, width in sizes], sizes_from_images)


def _image(entry: Any, position: int, annotation_file: Path) -> _Image:
    """An image whose size may be missing or of the wrong type."""
    if not isinstance(entry, dict) or not _is_id(entry.get("id")) or not isinstance(entry.get("file_name"), str):
        raise UserError(
            f"entry {position} of 'images' of '{annotation_file}' is {_brief(entry)}; an image needs a "
            f"whole number as 'id' and a 'file_name': {_LAYOUT}"
        )
    sizes = {side: entry[side] for side in ("height", "width") if _is_side(entry.get(side))}
    return _Image(entry["id"], entry["file_name"], **sizes)


def _check_name(name: str, position: int, annotation_file: Path) -> None:
    """Let no file name lead out of the folder of images."""
    if not name or "\0" in name:
        raise UserError(f"entry {position} of 'images' of '{annotation_file}' has {name!r} as 'file_name': name a file")
    if (".." in name and os.path.normpath(name).startswith("..")) or name.startswith(os.sep):
        raise UserError(
            f"entry {position} of 'images' of '{annotation_file}' has '{name}' as 'file_name', which leads out of the "
            "folder of images: give paths relative to it, and the folder as data.train.images or data.val.images"
        )


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
    for position, entry in enumerate(map(_loosely, entries)):
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


def _annotation(entry: dict[str, Any]) -> _Annotation:
    """An annotation that is unusual in one way or another.

    Raises:
        ValueError: if the annotation cannot be read; the message is the reason.
    """
    for key in ("image_id", "category_id"):
        if not _is_id(entry.get(key)):
            raise ValueError(f"{key} {_brief(entry.get(key))} is not a whole number")
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(side) for side in box):
        raise ValueError(f"bbox {_brief(box)} is not four finite numbers")
    number, area, crowd = entry.get("id"), entry.get("area"), entry.get("iscrowd")
    left, top, width, height = (float(side) for side in box)
    return _Annotation(
        entry["image_id"],
        entry["category_id"],
        (left, top, width, height),
        number if _is_id(number) else None,
        float(area) if area is not None and _is_number(area) else None,
        int(crowd) if isinstance(crowd, int) else 0,
    )


def _usable_ids(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """The given ids, or running ones if some are missing, repeated, or 0, which pycocotools reads as "no match"."""
    if len(ids) and (ids.min() < 1 or len(np.unique(ids)) != len(ids)):
        return np.arange(1, len(ids) + 1, dtype=np.int64)
    return ids


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
