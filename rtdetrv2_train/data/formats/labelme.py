"""LabelMe: a JSON file for each image, beside it or in a folder of its own."""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

import msgspec

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.formats.coco_entries import brief, number, whole
from rtdetrv2_train.data.formats.folder_state import files_below, state_of_labels
from rtdetrv2_train.data.formats.image_files import Size, has_image, sizes_of, state_of_images, subfolders
from rtdetrv2_train.data.formats.outlines import Box, box_around
from rtdetrv2_train.data.formats.rows import Rows, numbered
from rtdetrv2_train.data.formats.source import Format, Part, Source, part_of, state_of_files
from rtdetrv2_train.data.images.decode import Exif
from rtdetrv2_train.data.images.sizes import IMAGE_SUFFIXES
from rtdetrv2_train.data.table_builder import TableBuilder
from rtdetrv2_train.errors import UserError

logger = logging.getLogger(__name__)

_BLOCK = 2**16  # bytes at the beginning of a file that tell what it is
_KEY = re.compile(rb'"(?:shapes|imagePath|imageData)"\s*:')
_COCO = re.compile(rb'"(?:images|annotations|categories)"\s*:\s*\[')
_FILES_TRIED, _FOLDERS_TRIED = 5, 50
_FOLDERS_OF_LABELS = ("annotations", "annotation", "labels", "label", "json", "jsons", "labelme")
_OUTLINES = {"rectangle": 2, "polygon": 3, "rotation": 3, "circle": 2, "mask": 2, "ellipse": 2}  # and points at least
_MERGED = ("polygon", "mask")  # of which LabelMe makes one object where they are in one group
_WITHOUT_AREA = ("point", "points", "line", "linestrip")
_NO_OBJECT = ("__ignore__", "_background_")  # LabelMe's names for pixels of no class
_BOM = b"\xef\xbb\xbf"


class _File(msgspec.Struct, gc=False):
    """What is read of a file; its largest part, a copy of the image, is skipped."""

    shapes: Any = None
    imagePath: Any = None  # noqa: N815 - LabelMe's name
    imageHeight: Any = None  # noqa: N815
    imageWidth: Any = None  # noqa: N815


@dataclass
class _Labels:
    """What is read of a set: names and sizes of images, and their boxes."""

    rows: Rows = field(default_factory=Rows)
    files: list[Path] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    sizes: list[Size | None] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    """Kinds of shapes that bound no object, and how many there are."""


def _find(path: Path) -> list[Source]:
    if path.is_file():
        return [Source("labelme", path, path.parent)] if is_labelme_file(path) else []
    by_part: dict[Part, list[Path]] = {}
    for folder in _holders(path):
        words = [part_of(name) for name in folder.relative_to(path).parts]
        by_part.setdefault(next((word for word in reversed(words) if word), ""), []).append(folder)
    if by_part.keys() - {""}:
        by_part.pop("", None)
    of_labels = path.name.lower() in _FOLDERS_OF_LABELS and not has_image(path)
    images = path.parent if of_labels else path
    return [Source("labelme", Path(os.path.commonpath(folders)), images, part) for part, folders in by_part.items()]


def is_labelme_file(path: Path) -> bool:
    """Whether a file begins like one of LabelMe's."""
    if path.suffix.lower() != ".json":
        return False
    try:
        with path.open("rb") as stream:
            head = stream.read(_BLOCK).removeprefix(_BOM).lstrip()
    except OSError:
        return False
    return head.startswith(b"{") and bool(_KEY.search(head)) and not _COCO.search(head)


def _holders(root: Path) -> Iterator[Path]:
    """Folders with files of LabelMe's, down to the second level."""
    first = subfolders(root)[:_FOLDERS_TRIED]
    second = [inner for folder in first for inner in subfolders(folder)[:_FOLDERS_TRIED]]
    for folder in (root, *first, *second):
        if any(map(is_labelme_file, _some_json(folder))):
            yield folder


def _some_json(folder: Path) -> list[Path]:
    found: list[Path] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.lower().endswith(".json") and not entry.name.startswith("."):
                found.append(Path(entry.path))
                if len(found) == _FILES_TRIED:
                    break
    return found


def _read(source: Source, exif: Exif) -> AnnotationTable:
    labels = _Labels()
    others = []
    for path in _files(source.annotations):
        content = _content(path)
        if content is None:
            others.append(path)
            continue
        image_id = len(labels.files) + 1
        height, width = whole(content.imageHeight), whole(content.imageWidth)
        labels.files.append(path)
        labels.names.append(content.imagePath if isinstance(content.imagePath, str) else "")
        labels.sizes.append((height, width) if height and width and min(height, width) > 0 else None)
        _add_shapes(labels, image_id, content.shapes, path)
    _warn(labels, others, source.annotations)
    if not labels.files:
        raise UserError(f"'{source.annotations}' holds no JSON file of LabelMe's: name the folder that they are in")
    names = _names_of_images(labels, source)
    sizes = sizes_of(source, names, labels.sizes, exif)
    ids = numbered(sorted(labels.rows.labels))
    builder = TableBuilder(source.annotations, source.images, {number: name for name, number in ids.items()})
    for image_id, (name, size) in enumerate(zip(names, sizes, strict=True), 1):
        builder.add_image(image_id, name, *size)
    labels.rows.fill(builder, ids)
    return builder.table()


def _files(place: Path) -> Iterator[Path]:
    if place.is_file():
        yield place
        return
    for folder, names in files_below(place, (".json",)):
        yield from (folder / name for name in sorted(names))


def _content(path: Path) -> _File | None:
    """What a file says; None where it is not of LabelMe's.

    Raises:
        UserError: if it is not JSON.
    """
    try:
        text = path.read_bytes().removeprefix(_BOM)
    except OSError as error:
        raise UserError(f"'{path}' cannot be read: {error.strerror}") from error
    try:
        content = msgspec.json.decode(text, type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError):
        try:  # Python's own parser knows NaN, and says where the fault is
            loose = json.loads(text)
        except ValueError as error:
            raise UserError(f"'{path}' is not JSON ({error}): mend it, or take it out and label again") from error
        if not isinstance(loose, dict):
            return None
        content = _File(*(loose.get(key) for key in _File.__struct_fields__))
    return content if isinstance(content.shapes, list) else None


def _add_shapes(labels: _Labels, image_id: int, shapes: list[Any], path: Path) -> None:
    """Add the boxes of an image; polygons and masks of one group and label are one object."""
    pieces: dict[tuple[str, Any], list[Box]] = {}
    for position, shape in enumerate(shapes):
        if not isinstance(shape, dict):
            raise UserError(f"'{path}': shape {position} is {brief(shape)}, not an object: mend it, or label again")
        kind, label = shape.get("shape_type") or "polygon", shape.get("label")
        if kind in _WITHOUT_AREA or label in _NO_OBJECT:
            labels.left_out[label if label in _NO_OBJECT else kind] += 1
            continue
        if not isinstance(label, (str, int)) or label == "":
            labels.rows.add_problem(image_id, f"label {brief(label)} of shape {position} is no name")
            continue
        try:
            box = _box(kind, shape.get("points"))
        except ValueError as error:
            labels.rows.add_problem(image_id, f"shape {position}, '{label}': {error}")
            continue
        group = shape.get("group_id")
        key = group if kind in _MERGED and isinstance(group, (int, str)) else ("alone", position)
        pieces.setdefault((str(label), key), []).append(box)
    for (label, _), boxes in pieces.items():
        corners = [(left, top) for left, top, _, _ in boxes]
        corners += [(left + width, top + height) for left, top, width, height in boxes]
        labels.rows.add(image_id, label, box_around(corners))


def _box(kind: str, points: Any) -> Box:
    """The box around a shape.

    Raises:
        ValueError: if it bounds nothing; the message is the reason.
    """
    least = _OUTLINES.get(kind)
    if least is None:
        raise ValueError(f"its type {brief(kind)} is not known")
    pairs = []
    for point in points if isinstance(points, list) else ():
        pair = [number(value) for value in point[:2]] if isinstance(point, list) else []
        if len(pair) != 2 or None in pair:
            raise ValueError(f"point {brief(point)} is not two finite numbers")
        pairs.append((float(pair[0] or 0), float(pair[1] or 0)))
    if len(pairs) < least:
        raise ValueError(f"a {kind} needs {least} points, and has {len(pairs)}")
    if kind == "circle":  # its centre, and a point on its rim
        (x, y), rim = pairs[0], pairs[1]
        radius = math.dist((x, y), rim)
        return x - radius, y - radius, 2 * radius, 2 * radius
    left, top, width, height = box_around(pairs)
    inclusive = kind == "mask"  # whose second corner is its last pixel
    return left, top, width + inclusive, height + inclusive


def _names_of_images(labels: _Labels, source: Source) -> list[str]:
    """The image of each file: the one that it names, else the one of the same name beside it.

    Raises:
        UserError: if two files are about one image.
    """
    listed: dict[str, set[str]] = {}

    def inside(place: str) -> str | None:
        """A path as a name within the folder of images, if there is such a file."""
        name = os.path.relpath(place, source.images).replace(os.sep, "/")
        folder, base = os.path.split(place)
        if folder not in listed:
            listed[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()  # noqa: PTH112, PTH208
        return name if base in listed[folder] and not name.startswith("../") else None

    def beside(path: Path) -> str | None:
        tried = (inside(str(path.parent / f"{path.stem}{end}")) for suffix in IMAGE_SUFFIXES for end in _cases(suffix))
        return next(filter(None, tried), None)

    def named(path: Path, name: str) -> str:
        told = PureWindowsPath(name)
        is_image = told.suffix.lower() in IMAGE_SUFFIXES  # some files name themselves
        exact = inside(os.path.normpath(path.parent / told.as_posix())) if is_image else None
        return exact or beside(path) or (told.name if is_image else path.stem)

    names = [named(path, name) for path, name in zip(labels.files, labels.names, strict=True)]
    claims: dict[str, list[int]] = {}
    for position, name in enumerate(names):
        claims.setdefault(name, []).append(position)
    for name, positions in claims.items():
        for position in positions if len(positions) > 1 else ():
            names[position] = beside(labels.files[position]) or name  # a copied file still names the old image
    for name, count in Counter(names).items():
        if count > 1:
            first, second = [labels.files[place] for place, other in enumerate(names) if other == name][:2]
            raise UserError(f"'{first}' and '{second}' are both about the image '{name}': take one of them out")
    return names


def _cases(suffix: str) -> tuple[str, str]:
    return suffix, suffix.upper()


def _warn(labels: _Labels, others: list[Path], place: Path) -> None:
    if others:
        logger.warning(
            "'%s': %d JSON files are not of LabelMe's and are left out, the first is '%s'",
            place,
            len(others),
            others[0],
        )
    if labels.left_out:
        kinds = ", ".join(f"{count} of {kind}" for kind, count in labels.left_out.items())
        logger.warning("'%s': shapes that bound no object are left out: %s", place, kinds)


def _state(source: Source) -> dict[str, Any]:
    if source.annotations.is_file():
        return {**state_of_files([source.annotations]), **state_of_images(source.images)}
    folders = [folder for folder, _ in files_below(source.annotations, (".json",))]
    index = source.annotations.absolute().parent
    return {**state_of_labels(folders, ".json", index), **state_of_images(source.images)}


FORMAT = Format("labelme", "LabelMe", _find, _read, _state)
