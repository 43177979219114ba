"""CrowdHuman: a text file with a JSON object a line, which has the boxes of the persons of an image."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.formats.coco_entries import brief, flag, number
from rtdetrv2_train.data.formats.image_files import (
    Size,
    by_stem,
    check_present,
    files_in,
    sizes_of,
    state_of_images,
    subfolders,
)
from rtdetrv2_train.data.formats.rows import Rows
from rtdetrv2_train.data.formats.source import Format, Part, Source, part_of, state_of_files
from rtdetrv2_train.data.images.decode import Exif
from rtdetrv2_train.data.table_builder import TableBuilder
from rtdetrv2_train.errors import UserError

logger = logging.getLogger(__name__)

_PERSON, _MASK = "person", "mask"
_FOLDERS_OF_LABELS = ("", "annotations", "Annotations", "labels")
_FOLDERS_OF_IMAGES = ("Images", "images")
_BLOCK = 2**16  # bytes at the beginning of a file that tell what it is
_KEY = re.compile(rb'"(?:ID|gtboxes)"\s*:')


def _find(path: Path) -> list[Source]:
    if path.is_file():
        return [_source(path, path.parent)] if _is_odgt(path) else []
    listed = (file for name in _FOLDERS_OF_LABELS for file in files_in(path / name, ".odgt"))
    files = {file.resolve(): file for file in listed if _is_odgt(file)}
    found: dict[Part, Source] = {}
    for file in files.values():
        source = _source(file, path)
        if source.part in found:
            key = f"data.{source.part or 'train'}"
            raise UserError(
                f"'{path}' has several CrowdHuman files{f' for {source.part}' * bool(source.part)}, such as "
                f"'{found[source.part].annotations.name}' and '{file.name}'; choose with {key}.annotations= and "
                f"{key}.images="
            )
        found[source.part] = source
    return list(found.values())


def _source(file: Path, root: Path) -> Source:
    part = part_of(file.name)
    roots = [root, root.parent] if root.name.lower() in _FOLDERS_OF_LABELS else [root]
    bases = [inner for base in roots for inner in subfolders(base) if part and part_of(inner.name) == part]
    own = bases if len(bases) == 1 else []  # several are parts of a part, such as CrowdHuman_train01
    candidates = [*(base / name for base in (*own, *roots) for name in _FOLDERS_OF_IMAGES), *own]
    return Source("crowdhuman", file, next((folder for folder in candidates if folder.is_dir()), root), part)


def _is_odgt(path: Path) -> bool:
    if path.suffix.lower() != ".odgt":
        return False
    with path.open("rb") as stream:
        head = stream.read(_BLOCK).removeprefix(b"\xef\xbb\xbf").lstrip()
    return head.startswith(b"{") and bool(_KEY.search(head))


def _read(source: Source, exif: Exif) -> AnnotationTable:
    images = by_stem(source.images)
    rows, ids = Rows(), dict[str, int]()
    repeated = 0
    for line, entry in _entries(source.annotations):
        name, boxes = entry.get("ID"), entry.get("gtboxes")
        if not isinstance(name, str) or not name or not isinstance(boxes, list):
            raise UserError(f"{line} has no text as 'ID' or no list as 'gtboxes': {_way_out()}")
        repeated += name in ids
        image_id = ids.setdefault(name, len(ids) + 1)
        for box in boxes:
            _add_box(rows, image_id, box, line)
    if repeated:
        logger.warning("'%s': %d lines repeat an ID; their boxes are put together", source.annotations, repeated)
    if not ids:
        raise UserError(f"'{source.annotations}' is empty: get it again")
    # An ID has no suffix; a dot in it begins none.
    stems = {name: images.get(name, images.get(name.removesuffix(".jpg"), "")) for name in ids}
    missing = [f"{name}.jpg" for name, file in stems.items() if not file]
    check_present(source, missing, len(ids))
    names = [file or f"{name}.jpg" for name, file in stems.items()]
    sizes = sizes_of(source, names, [None] * len(names), exif)
    builder = TableBuilder(source.annotations, source.images, {1: _PERSON})
    for image_id, (name, size) in enumerate(zip(names, sizes, strict=True), 1):
        builder.add_image(image_id, name, *size)
    rows.fill(builder, {_PERSON: 1}, _within_images(rows, sizes))
    return builder.table()


def _within_images(rows: Rows, sizes: Sequence[Size]) -> NDArray[np.float64]:
    """The boxes, float64 ``[N, 4]``, clipped to their images, as CrowdHuman's own evaluation does.

    The box of a whole person is estimated where the image ends. A model that is trained on what is inside could not
    find the rest. Boxes of which nothing is inside are left as they are.
    """
    boxes = rows.boxes
    sides = np.array(sizes, dtype=np.float64).reshape(-1, 2)[rows.images - 1, ::-1]
    first, last = boxes[:, :2].clip(0, sides), (boxes[:, :2] + boxes[:, 2:]).clip(0, sides)
    inside = (last > first).all(axis=1, keepdims=True)
    beyond = inside & ((boxes[:, :2] < 0) | (boxes[:, :2] + boxes[:, 2:] > sides)).any(axis=1, keepdims=True)
    return np.where(beyond, np.concatenate([first, last - first], axis=1), boxes)


def _entries(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each line as its place, for messages, and its object.

    Raises:
        UserError: if a line is no JSON object.
    """
    with file.open("rb") as stream:
        for position, line in enumerate(stream, 1):
            text = line.removeprefix(b"\xef\xbb\xbf").strip()
            if not text:
                continue
            place = f"'{file}', line {position},"
            try:
                entry = msgspec.json.decode(text)
            except (msgspec.DecodeError, UnicodeDecodeError):
                try:
                    entry = json.loads(text)  # knows NaN
                except ValueError as error:
                    raise UserError(f"{place} is not JSON ({error}): {_way_out()}") from error
            if not isinstance(entry, dict):
                raise UserError(f"{place} is {brief(entry)}, not an object: {_way_out()}")
            yield place, entry


def _way_out() -> str:
    return "mend the line, or get the file again if it is cut short"


def _add_box(rows: Rows, image_id: int, box: Any, line: str) -> None:
    """Add a person, or a crowd region where the box is not to be counted."""
    if not isinstance(box, dict):
        raise UserError(f"{line} has {brief(box)} in 'gtboxes', not an object: {_way_out()}")
    tag, extra = box.get("tag"), box.get("extra")
    if tag not in (_PERSON, _MASK):
        rows.add_problem(image_id, f"unknown tag {brief(tag)}")
        return
    sides = box.get("fbox")
    values = [number(value) for value in sides] if isinstance(sides, list) else []
    found = [value for value in values if value is not None]
    if len(values) != 4 or len(found) != 4:
        rows.add_problem(image_id, f"fbox {brief(sides)} is not four finite numbers")
        return
    ignored = isinstance(extra, dict) and bool(flag(extra.get("ignore")))
    rows.add(image_id, _PERSON, found, crowd=tag == _MASK or ignored)


FORMAT = Format(
    "crowdhuman",
    "CrowdHuman",
    _find,
    _read,
    lambda source: {**state_of_files([source.annotations]), **state_of_images(source.images)},
)
