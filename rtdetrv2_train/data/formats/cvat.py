"""CVAT's own XML, version 1.1: "for images", with boxes in images, and "for video", with tracks over frames."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.formats.coco_entries import brief, whole
from rtdetrv2_train.data.formats.cvat_frames import Meta, frames_of, meta_of
from rtdetrv2_train.data.formats.cvat_shapes import OTHER_SHAPES, SHAPES, box_of
from rtdetrv2_train.data.formats.image_files import Size, files_in, sizes_of, state_of_images, subfolders
from rtdetrv2_train.data.formats.rows import Rows, numbered
from rtdetrv2_train.data.formats.source import Format, Part, Source, one_for_each_part, part_of, state_of_files
from rtdetrv2_train.data.images.decode import Exif
from rtdetrv2_train.data.table_builder import TableBuilder
from rtdetrv2_train.errors import UserError

logger = logging.getLogger(__name__)

_BLOCK = 2**20  # bytes at the beginning of a file, in which what it says of itself ends
_ROOT = re.compile(rb"\s*(?:<\?xml[^>]*>)?\s*(?:<!--.*?-->\s*)*<annotations\b", re.DOTALL)
_CONTENT = re.compile(rb"<meta\b|<image\s[^>]*\bname=|<track\s[^>]*\blabel=")
_SUBSET = re.compile(rb"<subset>([^<]+)</subset>|<image\s[^>]*\bsubset=\"([^\"]+)\"")
_FOLDERS_OF_LABELS = ("annotations", "Annotations", "labels")
_USUAL_NAME = "annotations.xml"
_FILES_TRIED, _FOLDERS_TRIED = 20, 50  # a folder with more files has one for each image, which is another format


@dataclass
class _Content:
    """What is read of a file: images or tracks, not both."""

    meta: Meta = field(default_factory=Meta)
    rows: Rows = field(default_factory=Rows)
    images: dict[str, int] = field(default_factory=dict)
    sizes: list[Size | None] = field(default_factory=list)
    repeated: int = 0
    frames: set[int] = field(default_factory=set)
    tasks: set[str] = field(default_factory=set)
    has_tracks: bool = False
    left_out: Counter[str] = field(default_factory=Counter)
    """Kinds of shapes that bound no object, and how many there are."""


def _find(path: Path) -> list[Source]:
    if path.is_file():
        return _sources(path, path.parent)
    folders = [path, *subfolders(path)[:_FOLDERS_TRIED]]
    files = (file for folder in folders for file in _some_xml(folder))
    return one_for_each_part(path, (source for file in files for source in _sources(file, path)), "files of CVAT's")


def _some_xml(folder: Path) -> list[Path]:
    """XML files of a folder, or the one of the usual name where there are many."""
    found = files_in(folder, ".xml")
    return found if len(found) <= _FILES_TRIED else [file for file in found if file.name == _USUAL_NAME]


def _sources(file: Path, root: Path) -> list[Source]:
    """The parts of a file, which are the subsets that it names; none where it is not of CVAT's."""
    if file.suffix.lower() != ".xml":
        return []
    head = _head(file)
    if not _ROOT.match(head) or not _CONTENT.search(head):
        return []
    parts = _parts_in(head)
    unnamed = sorted(subset for subset in _subsets_in(head) if not part_of(subset))
    if parts and unnamed:
        logger.warning("'%s': subset '%s' is of no known part and is left out", file, "', '".join(unnamed))
    words = [file.name, *reversed(file.relative_to(root).parts[:-1])]
    own: Part = next((word for word in map(part_of, words) if word), "")
    above = [file.parent.parent] if file.parent.name in _FOLDERS_OF_LABELS else []
    bases = [folder / "images" for folder in (file.parent, *above)]
    images = next((folder for folder in bases if folder.is_dir()), above[0] if above else file.parent)
    return [Source("cvat", file, images, part) for part in parts or [own]]


def _head(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(_BLOCK).removeprefix(b"\xef\xbb\xbf")
    except OSError:
        return b""


def _subsets_in(head: bytes) -> set[str]:
    return {(first or second).decode(errors="replace") for first, second in _SUBSET.findall(head)}


def _parts_in(head: bytes) -> list[Part]:
    """The parts that the subsets of a file are of; empty where they are not parts."""
    return sorted({part_of(subset) for subset in _subsets_in(head) if part_of(subset)})


def _read(source: Source, exif: Exif) -> AnnotationTable:
    content = _parsed(source)
    _warn(content, source.annotations)
    if content.has_tracks:
        files = frames_of(source, content.meta, content.frames, content.tasks)
        size = content.meta.size
        sizes: list[Size | None] = [size] * len(files)
    else:
        files = {image_id: name for name, image_id in content.images.items()}
        sizes = content.sizes
    if not files:
        part = f" for {source.part}" * bool(source.part)
        raise UserError(f"'{source.annotations}' has no image{part}: export the task from CVAT again")
    measured = sizes_of(source, list(files.values()), sizes, exif)
    ids = numbered(content.meta.labels or sorted(content.rows.labels))
    builder = TableBuilder(source.annotations, source.images, {number: name for name, number in ids.items()})
    for (image_id, name), (height, width) in zip(files.items(), measured, strict=True):
        builder.add_image(image_id, name, height, width)
    content.rows.fill(builder, ids)
    return builder.table()


def _parsed(source: Source) -> _Content:
    """What a file says of a part."""
    content = _Content()
    by_subset = bool(source.part and _parts_in(_head(source.annotations)))
    holder: dict[str, str] = {}
    image_id: int | None = None
    for kind, element in _elements(source.annotations):
        values = dict(element.attrib)
        if kind == "meta":
            content.meta = meta_of(element)
        elif kind in ("image", "track"):
            holder, image_id = values, None
            if by_subset and "subset" in values and part_of(values["subset"]) != source.part:
                holder = {}
            elif kind == "image":
                image_id = _add_image(content, values, source)
            else:
                content.has_tracks = True
                content.tasks.add(values.get("task_id", ""))
        elif not holder:
            continue
        elif kind in OTHER_SHAPES:
            content.left_out[kind] += 1
        elif values.get("outside", "0") != "1":
            _add_shape(content, kind, {**values, "label": values.get("label", holder.get("label", ""))}, image_id)
    if content.has_tracks and content.images:
        raise UserError(f"'{source.annotations}' has both images and tracks: export it from CVAT again")
    return content


def _elements(file: Path) -> Iterator[tuple[str, ElementTree.Element]]:
    """What there is in a file, one element at a time; images and tracks come before their shapes.

    Raises:
        UserError: if the file cannot be read, or is not XML.
    """
    holders, inside = ("image", "track"), 0
    root: ElementTree.Element | None = None
    holder: ElementTree.Element | None = None
    try:
        for event, element in ElementTree.iterparse(file, events=("start", "end")):
            kind = element.tag
            root = element if root is None else root
            if event == "start":
                inside += kind == "skeleton"  # whose points are elements as well
                if kind in holders:
                    holder = element
                    yield kind, element
                continue
            inside -= kind == "skeleton"
            if kind == "meta":
                yield kind, element
            elif holder is not None and not inside and kind in (*SHAPES, *OTHER_SHAPES):
                yield kind, element
                holder.clear()  # a long track would fill memory
            elif kind in holders:
                holder = None
                root.clear()
    except ElementTree.ParseError as error:
        raise UserError(
            f"'{file}', line {error.position[0]}: it is not XML ({error}); if the file is cut short, export it again"
        ) from error
    except OSError as error:
        raise UserError(f"'{file}' cannot be read: {error.strerror}") from error


def _add_image(content: _Content, values: dict[str, str], source: Source) -> int:
    """Add an image, which is in a folder for its subset where there is one; returns its id."""
    name, subset = values.get("name", ""), values.get("subset", "")
    if not name or ".." in PurePosixPath(name).parts:
        raise UserError(
            f"image {brief(values.get('id'))} of '{source.annotations}' has the name {brief(name)}: give the name of a "
            "file within the folder of images"
        )
    if subset and content.meta.has_folder(source.images, subset):
        name = f"{subset}/{name}"
    content.repeated += name in content.images
    image_id = content.images.setdefault(name, len(content.images) + 1)
    if image_id > len(content.sizes):
        height, width = whole(values.get("height")), whole(values.get("width"))
        content.sizes.append((height, width) if height and width and min(height, width) > 0 else None)
    return image_id


def _add_shape(content: _Content, kind: str, values: dict[str, str], image_id: int | None) -> None:
    """Add the box of a shape, of an image or, where there is none, of the frame that it names."""
    if image_id is None:
        frame = whole(values.get("frame"))
        if frame is None:
            content.rows.add_problem(-1, f"frame {brief(values.get('frame'))} is not a whole number")
            return
        content.frames.add(frame)
        image_id = frame
    try:
        box = box_of(kind, values)
    except ValueError as error:
        content.rows.add_problem(image_id, f"{kind} of '{values['label']}': {error}")
        return
    content.rows.add(image_id, values["label"], box)


def _warn(content: _Content, file: Path) -> None:
    if content.repeated:
        logger.warning("'%s': %d images repeat a name; their boxes are put together", file, content.repeated)
    if content.left_out:
        kinds = ", ".join(f"{count} of {kind}" for kind, count in content.left_out.items())
        logger.warning("'%s': shapes that bound no object are left out: %s", file, kinds)


def _state(source: Source) -> dict[str, Any]:
    return {**state_of_files([source.annotations]), **state_of_images(source.images)}


FORMAT = Format("cvat", "CVAT", _find, _read, _state)
