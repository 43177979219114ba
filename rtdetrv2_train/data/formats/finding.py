"""Finding out what format a data set is in, and which parts it has."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace
from pathlib import Path

from rtdetrv2_train.data.formats import (
    coco_layouts,
    crowdhuman,
    cvat,
    labelme,
    openimages,
    parquet,
    visdrone,
    voc,
    yolo,
)
from rtdetrv2_train.data.formats.folder_state import names_in
from rtdetrv2_train.data.formats.image_files import subfolders
from rtdetrv2_train.data.formats.source import Format, Part, Source
from rtdetrv2_train.data.formats.yolo_layout import lacks_names, names_wanted
from rtdetrv2_train.data.images.sizes import IMAGE_SUFFIXES
from rtdetrv2_train.errors import UserError, nearest

logger = logging.getLogger(__name__)

FORMATS: dict[str, Format] = {
    module.FORMAT.name: module.FORMAT
    for module in (coco_layouts, yolo, voc, cvat, labelme, openimages, crowdhuman, visdrone, parquet)
}
"""In the order in which they are looked for: where a set lies there in several formats, the first is taken."""

_MOST_NAMED = 5
_DEPTH, _FOLDERS_TRIED = 3, 20
_IN_ORDER = ("train", "val", "test", "")
_KNOWN = "datasets/README.md shows how each known format lies on disk"


def found_sources(path: Path, wanted: str | None = None) -> list[Source]:
    """The parts of the data set at a path, in the first format that is found there.

    Args:
        path: a folder or a file.
        wanted: name of the only format to look for.

    Raises:
        UserError: if there is no such path, or nothing of a known format.
    """
    if wanted is not None and wanted not in FORMATS:
        raise UserError(
            f"data.format is '{wanted}': {nearest(wanted, FORMATS)}use null, or one of {', '.join(FORMATS)}"
        )
    if not path.exists():
        raise UserError(f"no data set at '{path}': there is nothing of that name; point data.root at your own set")
    tried = [FORMATS[wanted]] if wanted else list(FORMATS.values())
    if sources := _first_found(path, tried, _DEPTH):
        logger.info("%s", _described(path, sources))
        return sources
    if below := _set_below(path, tried):
        raise UserError(f"'{path}' is no data set, but has sets in it: give the path of one, such as '{below}'")
    raise UserError(f"'{path}' holds no {_titles(tried)} set{_contents(path)}{_lacking(path)}; {_KNOWN}")


def _first_found(path: Path, tried: list[Format], depth: int) -> list[Source]:
    """The parts at a path in the first of some formats; empty where there is nothing.

    Where a folder holds only one, as where an archive was unpacked to a folder of its name, that one is looked into.

    Args:
        path: a folder or a file.
        tried: the formats, in their order.
        depth: how often to look into the only folder of a folder.
    """
    for format_ in tried:
        if sources := format_.find(path):
            return _with_names(path, sources, tried)
    inner = _inner_folders(path)
    return _first_found(inner[0], tried, depth - 1) if depth and len(inner) == 1 else []


def _with_names(path: Path, sources: list[Source], tried: list[Format]) -> list[Source]:
    """The sources; or those of another format where they are of YOLO and nothing names its classes.

    Such labels lie beside those that they were made from, as Ultralytics' script for VisDrone leaves them.

    Raises:
        UserError: if another format is there that is not to be looked for, or that is not clear itself.
    """
    nameless = next(filter(lacks_names, sources), None)
    if nameless is None:
        return sources
    others: dict[str, list[Source]] = {}
    for format_ in FORMATS.values():
        if format_.name != nameless.format:
            try:
                found = format_.find(path)
            except UserError:
                others[format_.name] = []
            else:
                others.update({format_.name: found} if found else {})
    for format_ in tried:
        if others.get(format_.name):
            logger.info(
                "'%s': nothing names the classes of the YOLO labels in '%s', so those in %s format count",
                path,
                _within(nameless.annotations, path),
                format_.title,
            )
            return others[format_.name]
    if others:
        titles = _titles([FORMATS[name] for name in others])
        choices = " or ".join(f"data.format={name}" for name in others)
        raise UserError(f"{names_wanted(nameless)}; or take the labels in {titles} format with {choices}")
    return sources


def _set_below(path: Path, tried: list[Format]) -> Path | None:
    """A folder in a folder that holds a set."""
    for folder in _inner_folders(path)[:_FOLDERS_TRIED]:
        with contextlib.suppress(UserError):
            if _first_found(folder, tried, 0):
                return folder
    return None


def source_of(annotations: Path, images: Path) -> Source:
    """The source of labels and images whose places are known.

    Args:
        annotations: file or folder of the labels.
        images: folder that the names of images are relative to.
    """
    for source in _first_found(annotations, list(FORMATS.values()), 0) if annotations.exists() else ():
        # without the list of images: where there are parts, it is the one of the first of them
        return replace(source, annotations=annotations, images=images, part="", listing=None)
    return Source("coco", annotations, images)  # whose reader says what is wrong with a file


def with_part(sources: list[Source], part: Part) -> list[Source]:
    """The sources of a part; for training also those of a set without parts."""
    named = [source for source in sources if source.part == part]
    return named or [source for source in sources if part == "train" and not source.part]


def _described(path: Path, sources: list[Source]) -> str:
    """One line on what lies at a path."""
    by_part = sorted(sources, key=lambda source: _IN_ORDER.index(source.part))
    parts = [f"{source.part or 'no parts'} in '{_within(label_of(source), path)}'" for source in by_part]
    return f"'{path}' is in {FORMATS[sources[0].format].title} format: {', '.join(parts)}"


def label_of(source: Source) -> Path:
    """What a source is called in messages."""
    return source.listing or source.annotations


def _within(path: Path, root: Path) -> Path:
    return path.relative_to(root) if path != root and path.is_relative_to(root) else path


def _titles(formats: list[Format]) -> str:
    titles = [format_.title for format_ in formats]
    return titles[0] if len(titles) == 1 else f"{', '.join(titles[:-1])} or {titles[-1]}"


def _lacking(path: Path) -> str:
    """What a folder of images and text files may lack, for messages."""
    if names_in(path, IMAGE_SUFFIXES) and names_in(path, (".txt",)):
        return "; if the text files are labels of YOLO, write the names of the classes to classes.txt there, one a line"
    return ""


def _inner_folders(path: Path) -> list[Path]:
    """The folders in a folder, but for hidden ones and those that macOS leaves."""
    return [folder for folder in subfolders(path) if folder.name != "__MACOSX"]


def _contents(path: Path) -> str:
    """What is there instead, for messages."""
    if not path.is_dir():
        return ""
    names = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))
    if not names:
        return ": it is empty"
    more = len(names) - _MOST_NAMED
    return f": there is {', '.join(map(repr, names[:_MOST_NAMED]))}{f' and {more} more' if more > 0 else ''}"
