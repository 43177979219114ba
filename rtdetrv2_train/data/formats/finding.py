"""Finding out what format a data set is in, and which parts it has."""

from __future__ import annotations

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
from rtdetrv2_train.data.formats.source import Format, Part, Source
from rtdetrv2_train.errors import UserError, nearest

logger = logging.getLogger(__name__)

FORMATS: dict[str, Format] = {
    module.FORMAT.name: module.FORMAT
    for module in (coco_layouts, yolo, voc, cvat, labelme, openimages, crowdhuman, visdrone, parquet)
}
"""In the order in which they are looked for: where a set lies there in several formats, the first is taken."""

_MOST_NAMED = 5
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
    for format_ in tried:
        if sources := format_.find(path):
            logger.info("%s", _described(path, sources))
            return sources
    raise UserError(f"'{path}' holds no {_titles(tried)} set{_contents(path)}; {_KNOWN}")


def source_of(annotations: Path, images: Path) -> Source:
    """The source of labels and images whose places are known.

    Args:
        annotations: file or folder of the labels.
        images: folder that the names of images are relative to.
    """
    for format_ in FORMATS.values() if annotations.exists() else ():
        for source in format_.find(annotations):
            return replace(source, annotations=annotations, images=images, part="")
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


def _contents(path: Path) -> str:
    """What is there instead, for messages."""
    if not path.is_dir():
        return ""
    names = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))
    if not names:
        return ": it is empty"
    more = len(names) - _MOST_NAMED
    return f": there is {', '.join(map(repr, names[:_MOST_NAMED]))}{f' and {more} more' if more > 0 else ''}"
