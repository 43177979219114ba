"""OpenImages: tables of boxes as CSV, whose coordinates are shares of the image; the images that are on disk count."""

from __future__ import annotations

import csv
import io
import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.formats.coco_entries import brief
from rtdetrv2_train.data.formats.image_files import by_stem, files_in, has_image, sizes_of, state_of_images, subfolders
from rtdetrv2_train.data.formats.rows import Rows, numbered
from rtdetrv2_train.data.formats.source import Format, Source, one_for_each_part, part_of, state_of_files
from rtdetrv2_train.data.images.decode import Exif
from rtdetrv2_train.data.table_builder import TableBuilder
from rtdetrv2_train.errors import UserError

logger = logging.getLogger(__name__)

_NEEDED = ("ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax")
_FOLDERS_OF_LABELS = ("", "annotations", "labels", "csv", "metadata")
_FOLDERS_OF_IMAGES = ("images", "data", "")
_CLASSES = ("*class-descriptions-boxable.csv", "*class-descriptions*.csv", "classes.csv")
_WHOLE_LIST = "boxable"  # in the name of a list of classes that all can have boxes; other lists have 20000 names
_FILES_TRIED = 50
_BLOCK = 2**12  # bytes at the beginning of a file that tell what it is
_MOST = 2.0  # what is beyond is no share of an image, but pixels


def _find(path: Path) -> list[Source]:
    if path.is_file():
        return [_source(path, path.parent)] if _is_box_table(path) else []
    folders = [path, *subfolders(path)[:_FILES_TRIED]]
    places = {(folder / name).resolve(): folder / name for folder in folders for name in _FOLDERS_OF_LABELS}
    files = (file for folder in places.values() for file in files_in(folder, ".csv")[:_FILES_TRIED])
    return one_for_each_part(path, (_source(file, path) for file in files if _is_box_table(file)), "OpenImages tables")


def _is_box_table(path: Path) -> bool:
    """Whether the first line of a file names the columns of boxes."""
    if path.suffix.lower() != ".csv":
        return False
    try:
        with path.open("rb") as stream:
            first = stream.read(_BLOCK).removeprefix(b"\xef\xbb\xbf").split(b"\n", 1)[0]
    except OSError:
        return False
    names = {name.strip() for name in first.decode(errors="replace").split(",")}
    return names.issuperset(_NEEDED)


def _source(file: Path, root: Path) -> Source:
    inner = file.relative_to(root).parts[:-1] if file.is_relative_to(root) else ()
    part = part_of(file.name) or next((word for word in map(part_of, reversed(inner)) if word), "")
    own = [file.parent, file.parent.parent] if inner else [file.parent]
    roots = list(dict.fromkeys([*own, root, *([root.parent] if root.name in _FOLDERS_OF_LABELS else [])]))
    bases = [base / name for base in roots for name in _FOLDERS_OF_IMAGES]
    of_part = [inner for base in bases for inner in subfolders(base) if part and part_of(inner.name) == part]
    images = next((folder for folder in [*of_part, *bases] if folder.is_dir() and has_image(folder)), root)
    lists = (base / name for base in roots for name in _FOLDERS_OF_LABELS)
    folders = [folder for folder in lists if folder.is_dir()]
    classes = (found for pattern in _CLASSES for folder in folders for found in sorted(folder.glob(pattern)))
    return Source("openimages", file, images, part, classes=next(classes, None))


def _read(source: Source, exif: Exif) -> AnnotationTable:
    images = by_stem(source.images)
    whole_names = {name: name for name in images.values()}
    rows, ids = Rows(), dict[str, int]()
    known = dict[str, int | None]()  # the image of each name; None where it is not on disk
    named = False
    for line, row in _table(source.annotations, _NEEDED):
        name = row["ImageID"]
        if name not in known:
            file = images.get(name) or whole_names.get(name) or images.get(PurePosixPath(name).stem)
            known[name] = None if file is None else ids.setdefault(file, len(ids) + 1)
        image_id = known[name]
        if image_id is not None:
            told = row.get("ClassName") or row.get("DisplayName")  # of tools that write such tables
            named = named or bool(told)
            _add_row(rows, image_id, told or row["LabelName"], row, line)
    absent = [name for name, image_id in known.items() if image_id is None]
    if not ids and not absent:
        raise UserError(f"'{source.annotations}' has no line of a box: get it again, or take it out")
    if not ids:
        raise UserError(
            f"none of the {len(absent)} images of '{source.annotations}' is in '{source.images}': put images there, "
            "or name their folder as data.train.images or data.val.images"
        )
    if absent:
        logger.warning(
            "%d of %d images of '%s' are not in '%s' and are left out",
            len(absent),
            len(absent) + len(ids),
            source.annotations,
            source.images,
        )
    if unlisted := len(images) - len(ids):
        logger.info("'%s': %d images have no line in the table and are left out", source.images, unlisted)
    names = _names_of_classes(None if named else source.classes, rows)
    sizes = sizes_of(source, list(ids), [None] * len(ids), exif)
    builder = TableBuilder(source.annotations, source.images, dict(enumerate(names.values(), 1)))
    for (name, image_id), size in zip(ids.items(), sizes, strict=True):
        builder.add_image(image_id, name, *size)
    rows.fill(builder, numbered(list(names)), _in_pixels(rows, sizes))
    return builder.table()


def _add_row(rows: Rows, image_id: int, label: str, row: Mapping[str, str], line: int) -> None:
    """Add the box of a line, but for one that says that there is no such object."""
    if _number(row.get("Confidence", "1")) == 0:
        return
    left, top, right, bottom = (_number(row[key]) for key in ("XMin", "YMin", "XMax", "YMax"))
    if not all(-_MOST < value < _MOST for value in (left, top, right, bottom)):
        told = ", ".join(f"{key} {row[key]}" for key in _NEEDED[2:])
        rows.add_problem(image_id, f"line {line}: {told} are not shares of the image, from 0 to 1")
        return
    box = (min(left, right), min(top, bottom), abs(right - left), abs(bottom - top))
    rows.add(image_id, label, box, crowd=_number(row.get("IsGroupOf", "0")) > 0)


def _number(text: str) -> float:
    """The number that a text stands for; NaN where it stands for none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _in_pixels(rows: Rows, sizes: list[tuple[int, int]]) -> NDArray[np.float64]:
    scales = np.array(sizes, dtype=np.float64).reshape(-1, 2)[rows.images - 1, ::-1]
    return rows.boxes * np.tile(scales, 2)


def _names_of_classes(file: Path | None, rows: Rows) -> dict[str, str]:
    """The name of each label, in the order of the categories."""
    if file is None:
        return {label: label for label in sorted(rows.labels)}
    names = dict[str, str]()
    for position, values in _values(file):
        if position == 1 and "LabelName" in values:
            continue
        if len(values) < 2:
            raise UserError(
                f"'{file}', line {position}: {brief(','.join(values))} is not a label and its name: mend the "
                "line, or get the file again if it is cut short"
            )
        names[values[0].strip()] = values[1].strip()
    if _WHOLE_LIST not in file.name:
        names = {label: name for label, name in names.items() if label in rows.labels}
    return names


def _table(file: Path, needed: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Each line of a table as its number and its values by the names of their columns.

    Raises:
        UserError: if a column is missing, or a line is cut short.
    """
    lines = _values(file)
    header = [name.strip() for name in next(lines, (1, []))[1]]
    if missing := [name for name in needed if name not in header]:
        raise UserError(f"'{file}' has no column {', '.join(missing)}: OpenImages' table of boxes is needed")
    for position, values in lines:
        if len(values) != len(header):
            raise UserError(
                f"'{file}', line {position}: it has {len(values)} values, and the first line names {len(header)}: mend "
                "the line, or get the file again if it is cut short"
            )
        yield position, dict(zip(header, values, strict=True))


def _values(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Each line as its number and its values; those without any are left out, of which spreadsheets leave many.

    Raises:
        UserError: if the file cannot be read as text.
    """
    commas = 0
    try:
        with file.open("rb") as stream:
            lines = csv.reader(io.TextIOWrapper(stream, encoding="utf-8-sig", newline=""))
            for position, values in enumerate(lines, 1):
                if any(map(str.strip, values)):
                    yield position, values
                else:
                    commas += len(values) > 1
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"'{file}' cannot be read as a table: {error}") from error
    if commas:
        logger.warning("'%s': %d lines have commas and no values, and are left out", file, commas)


def _state(source: Source) -> dict[str, Any]:
    files = [source.annotations, *([source.classes] if source.classes else [])]
    return {**state_of_files(files), **state_of_images(source.images)}


FORMAT = Format("openimages", "OpenImages", _find, _read, _state)
