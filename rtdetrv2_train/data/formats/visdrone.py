"""VisDrone-DET: a text file for each image, a box a line: left, top, width, height, score, category and two more."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.formats.coco_entries import brief, number
from rtdetrv2_train.data.formats.folder_state import state_of_labels
from rtdetrv2_train.data.formats.image_files import (
    by_stem,
    check_present,
    files_in,
    sizes_of,
    state_of_images,
    subfolders,
)
from rtdetrv2_train.data.formats.source import Format, Part, Source, part_of
from rtdetrv2_train.data.images.decode import Exif
from rtdetrv2_train.data.table_builder import TableBuilder
from rtdetrv2_train.errors import UserError

logger = logging.getLogger(__name__)

CLASSES = (
    "pedestrian",
    "people",
    "bicycle",
    "car",
    "van",
    "truck",
    "tricycle",
    "awning-tricycle",
    "bus",
    "motor",
)
"""Names of the categories from 1 to 10."""

_IGNORED_REGION, _OTHERS = 0, 11
_VALUES = 8
_LINE = re.compile(rb"\s*-?\d+(?:,-?\d+){7},?\s*")
_FILES_TRIED = 20  # some of which may be empty
_BLOCK = 200  # bytes; more than a line


def _find(path: Path) -> list[Source]:
    if _is_label_folder(path):
        return [Source("visdrone", path, path.parent / "images", _part(path.parent))]
    found: dict[Part, list[Source]] = {}
    for folder in (path, *(inner for outer in subfolders(path) for inner in (outer, outer / outer.name))):
        labels = folder / "annotations"
        if (folder / "images").is_dir() and _is_label_folder(labels):
            part = _part(folder)
            found.setdefault(part, []).append(Source("visdrone", labels, folder / "images", part))
    for part, sources in found.items():
        if len(sources) > 1:
            names = ", ".join(f"'{source.annotations.relative_to(path)}'" for source in sources[:4])
            raise UserError(
                f"'{path}' has {len(sources)} VisDrone folders{f' for {part}' * bool(part)}: {names}; choose with "
                f"data.{part or 'train'}.annotations= and data.{part or 'train'}.images="
            )
    return [source for sources in found.values() for source in sources]


def _part(folder: Path) -> Part:
    """The part that a folder holds; ``test-dev`` is of the test part."""
    return "test" if re.search(r"(?:^|[^a-z])test", folder.name.lower()) else part_of(folder.name)


def _is_label_folder(folder: Path) -> bool:
    """Whether the first text file of a folder that is not empty has lines of VisDrone's."""
    if not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        tried = 0
        for entry in entries:
            if entry.name.endswith(".txt") and tried < _FILES_TRIED:
                tried += 1
                with Path(entry.path).open("rb") as stream:
                    lines = stream.read(_BLOCK).splitlines()
                if lines and lines[0].strip():
                    return bool(_LINE.fullmatch(lines[0]))
    return False


def _read(source: Source, exif: Exif) -> AnnotationTable:
    files = files_in(source.annotations, ".txt")
    images = by_stem(source.images)
    check_present(source, [f.stem + ".jpg" for f in files if f.stem not in images], len(files))
    if without := images.keys() - {file.stem for file in files}:
        logger.warning("'%s': %d images have no labels and are left out", source.images, len(without))
    names = [images.get(file.stem, f"{file.stem}.jpg") for file in files]
    sizes = sizes_of(source, names, [None] * len(names), exif)
    builder = TableBuilder(source.annotations, source.images, dict(enumerate(CLASSES, 1)))
    others, annotation_id = 0, 0
    for image_id, (file, name, size) in enumerate(zip(files, names, sizes, strict=True), 1):
        builder.add_image(image_id, name, *size)
        for place, values in _lines(file):
            left, top, width, height, score, category = values[:6]
            if category == _OTHERS:
                others += 1
                continue
            ignored = category == _IGNORED_REGION
            if not ignored and category not in range(1, len(CLASSES) + 1):
                annotation_id += 1
                builder.add_problem(image_id, annotation_id, f"{place}: unknown category {category:g}")
                continue
            for label in range(1, len(CLASSES) + 1) if ignored else (int(category),):
                annotation_id += 1
                box = (left, top, width, height)
                builder.add_annotation(image_id, label, box, annotation_id, crowd=ignored or score == 0)
    if others:
        logger.info("'%s': %d boxes of category 11, others, are left out", source.annotations, others)
    return builder.table()


def _lines(file: Path) -> Iterator[tuple[str, list[float]]]:
    """Each line of a file as its place, for messages, and its numbers.

    Raises:
        UserError: if a line is no line of VisDrone's.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"'{file}' cannot be read as text: {error}") from error
    for position, line in enumerate(lines, 1):
        if not line.strip():
            continue
        found = [number(value) for value in line.rstrip().rstrip(",").split(",")]
        values = [value for value in found if value is not None]
        if len(found) != _VALUES or len(values) != _VALUES:
            raise UserError(
                f"'{file}', line {position}: {brief(line)} is not {_VALUES} numbers with commas between them: mend the "
                "line, or get the file again if it is cut short"
            )
        yield f"line {position}", values


def _state(source: Source) -> dict[str, Any]:
    labels = source.annotations
    return {**state_of_labels([labels], ".txt", labels.absolute().parent), **state_of_images(source.images)}


FORMAT = Format("visdrone", "VisDrone", _find, _read, _state)
