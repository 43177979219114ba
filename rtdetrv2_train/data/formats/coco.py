"""Reading a COCO annotation file, and saying what is wrong where it is not one."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from rtdetrv2_train.data.formats.coco_entries import (
    LAYOUT,
    AnnotationEntry,
    ImageEntry,
    brief,
    check_file_name,
    is_id,
    is_name,
    plain,
    unusual_annotation,
    unusual_image,
)
from rtdetrv2_train.errors import UserError

_KEYS = ("images", "annotations", "categories")
# Stands in an array of ids for an annotation without one.
NO_ID = -(2**63)


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
    decode = msgspec.json.Decoder(AnnotationEntry).decode
    for entry in entries:
        try:
            row = decode(entry)
            if not all(map(math.isfinite, row.bbox)):
                raise ValueError(f"bbox {brief(list(row.bbox))} is not four finite numbers")
        except (msgspec.ValidationError, TypeError, ValueError):
            loose = plain(entry)
            if not isinstance(loose, dict):
                raise UserError(
                    f"'{annotation_file}': an entry of 'annotations' is {loose!r:.80}, not an object: {LAYOUT}"
                ) from None
            try:
                row = unusual_annotation(loose)
            except ValueError as error:
                names = names or dict(zip(images.ids, images.names, strict=True))
                file_name = names.get(loose["image_id"], "") if is_id(loose.get("image_id")) else ""
                unreadable.append(
                    AnnotationProblem(file_name, loose["id"] if is_id(loose.get("id")) else None, str(error))
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
            raise UserError(f"'{annotation_file}' is not JSON ({error}): {LAYOUT}") from error
    if not isinstance(content, dict):
        raise UserError(f"'{annotation_file}' holds a {type(content).__name__}, not an object: {LAYOUT}")
    for key in _KEYS:
        if key not in content:
            raise UserError(f"'{annotation_file}' has no '{key}': {LAYOUT}")
        if isinstance(content[key], msgspec.Raw):
            try:
                content[key] = msgspec.json.decode(content[key], type=list[msgspec.Raw])
            except msgspec.ValidationError:
                content[key] = plain(content[key])
        if not isinstance(content[key], list):
            raise UserError(f"'{key}' of '{annotation_file}' is a {type(content[key]).__name__}, not a list: {LAYOUT}")
    for key in ("images", "categories"):
        if not content[key]:
            raise UserError(
                f"'{key}' of '{annotation_file}' is empty: there is nothing to learn from or to evaluate on"
            )
    return content


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
    decode = msgspec.json.Decoder(ImageEntry).decode
    for position, entry in enumerate(entries):
        try:
            image = decode(entry)
        except (msgspec.ValidationError, TypeError):
            image = unusual_image(plain(entry), position, annotation_file)
        check_file_name(image.file_name, position, annotation_file)
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
    for position, entry in enumerate(map(plain, entries)):
        if not isinstance(entry, dict) or not is_id(entry.get("id")) or not is_name(entry.get("name")):
            raise UserError(
                f"entry {position} of 'categories' of '{annotation_file}' is {brief(entry)}; a category needs a "
                f"whole number as 'id' and a 'name': {LAYOUT}"
            )
        if entry["id"] in names:
            raise UserError(
                f"category id {entry['id']} of '{annotation_file}' stands for both '{names[entry['id']]}' and "
                f"'{entry['name']}': give every category its own id"
            )
        names[entry["id"]] = entry["name"]
    ids = tuple(sorted(names))
    return ids, tuple(names[number] for number in ids)


def _usable_ids(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """The given ids, or running ones if some are missing, repeated, or 0, which pycocotools reads as "no match"."""
    if len(ids) and (ids.min() < 1 or len(np.unique(ids)) != len(ids)):
        return np.arange(1, len(ids) + 1, dtype=np.int64)
    return ids
