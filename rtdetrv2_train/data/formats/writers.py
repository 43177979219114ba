"""Writing annotation tables as COCO or YOLO, so that reading them gives the same boxes again."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import numpy as np
import yaml
from numpy.typing import NDArray

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.images.decode import UnreadableImageError, read_header
from rtdetrv2_train.errors import UserError

logger = logging.getLogger(__name__)

# Orientations in EXIF that swap width and height: 5 to 8. Of the turned image, x is y of the stored one or counts from
# its lower border, and y is x of it or counts from its right border.
_FIRST_FROM_BELOW, _SECOND_FROM_RIGHT = (6, 7), (7, 8)
Writer = Callable[[Mapping[str, AnnotationTable], Path], None]


def write_coco(parts: Mapping[str, AnnotationTable], folder: Path) -> None:
    """Write ``annotations/instances_<part>.json`` and images in a folder for each part, as COCO 2017 has them.

    All annotations are written, crowd regions and broken boxes too. Ids of images and categories stay; annotations are
    numbered from 1.

    Args:
        parts: the table of each part, with the same classes.
        folder: an empty one.
    """
    (folder / "annotations").mkdir()
    for part, table in parts.items():
        names = _short_names(table)
        _place_images(table, names, folder / part)
        content = coco_content(table, names)
        (folder / "annotations" / f"instances_{part}.json").write_bytes(msgspec.json.encode(content))


def coco_content(table: AnnotationTable, names: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """A table as the content of a COCO file, with all its annotations, numbered from 1.

    Args:
        table: of a part.
        names: of its images in that file.
    """
    images = [
        {"id": image_id, "file_name": name, "height": height, "width": width}
        for image_id, name, height, width in zip(
            table.image_ids.tolist(), names, table.heights.tolist(), table.widths.tolist(), strict=True
        )
    ]
    rows = zip(
        table.image_ids[table.raw_images].tolist(),
        np.array(table.category_ids, dtype=np.int64)[table.raw_labels].tolist(),
        table.raw_boxes.tolist(),
        table.raw_areas.tolist(),
        table.raw_crowd.astype(int).tolist(),
        strict=True,
    )
    keys = ("image_id", "category_id", "bbox", "area", "iscrowd")
    annotations = [{"id": number, **dict(zip(keys, row, strict=True))} for number, row in enumerate(rows, start=1)]
    classes = zip(table.category_ids, table.class_names, strict=True)
    categories = [{"id": number, "name": name} for number, name in classes]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_yolo(parts: Mapping[str, AnnotationTable], folder: Path) -> None:
    """Write ``data.yaml``, ``images/<part>`` and ``labels/<part>``.

    Boxes that reach out of their image are cut at its border, as other readers of YOLO leave such images out. Crowd
    regions and broken boxes, for which YOLO has no form, are left out with a warning. Boxes of images that are read as
    they are stored are turned as EXIF says, where that changes the size: readers of YOLO turn the images.

    Args:
        parts: the table of each part, with the same classes.
        folder: an empty one.

    Raises:
        UserError: if two images of a folder differ in the suffix only, and would share a file of labels.
    """
    left_out = 0
    for part, table in parts.items():
        names = _short_names(table)
        labels = [PurePosixPath(name).with_suffix(".txt").as_posix() for name in names]
        for one, other in _twins(names, labels):
            raise UserError(f"'{one}' and '{other}' would share a file of labels in YOLO: rename one of them")
        _place_images(table, names, folder / "images" / part)
        rows, images = _rows(upright(table))
        left_out += len(table.raw_images) - len(images)
        ends = np.searchsorted(images, np.arange(len(table)), side="right").tolist()
        start = 0
        for name, end in zip(labels, ends, strict=True):
            path = folder / "labels" / part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(rows[start:end]), encoding="utf-8")
            start = end
    if left_out:
        logger.warning("%d crowd regions and broken boxes are left out, for which YOLO has no form", left_out)
    names_by_number = dict(enumerate(next(iter(parts.values())).class_names))
    content = {**{part: f"images/{part}" for part in parts}, "names": names_by_number}
    (folder / "data.yaml").write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")


WRITERS: dict[str, Writer] = {"coco": write_coco, "yolo": write_yolo}


def _rows(table: AnnotationTable) -> tuple[list[str], NDArray[np.int64]]:
    """Lines of label files in the order of images, and the image of each."""
    sizes = np.stack([table.widths, table.heights], axis=1)[table.raw_images].astype(np.float64)
    low = table.raw_boxes[:, :2].clip(0, sizes)
    high = (table.raw_boxes[:, :2] + table.raw_boxes[:, 2:]).clip(0, sizes)
    kept = np.flatnonzero(~table.raw_crowd & (high > low).all(axis=1))
    kept = kept[np.argsort(table.raw_images[kept], kind="stable")]
    shares = np.concatenate([(low + high) / 2 / sizes, (high - low) / sizes], axis=1)[kept]
    pairs = zip(table.raw_labels[kept].tolist(), shares.tolist(), strict=True)
    return [f"{label} {' '.join(map(repr, box))}\n" for label, box in pairs], table.raw_images[kept]


def upright(table: AnnotationTable) -> AnnotationTable:
    """The table with sizes and boxes of upright images, where they are those of images as stored and differ in size.

    Those that are square, mirrored or upside down by their EXIF stay as they are read: nothing tells which are meant.
    """
    orientations = np.ones(len(table), dtype=np.int64)
    for index in range(len(table)):
        with contextlib.suppress(UnreadableImageError):
            header = read_header(table.path(index))
            stored = (header.height, header.width)
            if table.size(index) == stored != header.upright_size:
                orientations[index] = header.orientation
    if (orientations == 1).all():
        return table
    of_boxes = orientations[table.raw_images]
    left, top, width, height = table.raw_boxes.T
    right = table.widths[table.raw_images] - left - width  # from the right border
    bottom = table.heights[table.raw_images] - top - height
    turned = np.stack(
        [
            np.where(np.isin(of_boxes, _FIRST_FROM_BELOW), bottom, top),
            np.where(np.isin(of_boxes, _SECOND_FROM_RIGHT), right, left),
            height,
            width,
        ],
        axis=1,
    )
    swapped = orientations > 1
    logger.info("boxes of %d images are turned as their EXIF says, as other software turns the images", swapped.sum())
    return replace(
        table,
        heights=np.where(swapped, table.widths, table.heights),
        widths=np.where(swapped, table.heights, table.widths),
        raw_boxes=np.where(of_boxes[:, None] > 1, turned, table.raw_boxes),
    )


def _short_names(table: AnnotationTable) -> list[str]:
    """Names of images without the folders that all are in."""
    names: list[str] = table.file_names.tolist()
    common = os.path.commonpath([PurePosixPath(name).parent for name in names]) if names else ""
    return [os.path.relpath(name, common) if common else name for name in names]


def _twins(names: list[str], labels: list[str]) -> list[tuple[str, str]]:
    """Images that would share a file of labels."""
    first: dict[str, str] = {}
    return [
        (first[label], name) for label, name in zip(labels, names, strict=True) if first.setdefault(label, name) != name
    ]


def _place_images(table: AnnotationTable, names: list[str], folder: Path) -> None:
    """Link image files, or copy them where links cannot be made."""
    for index, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(table.path(index).resolve(), path)
        except OSError:
            shutil.copy2(table.path(index), path)
