"""The index of annotations: the table that was read from them once, kept for every later run and process.

It lies beside the annotation file or folder, or in a cache folder where that place cannot be written to. It belongs to
files of certain sizes and times. It is built again when any has changed, or when the index is damaged.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from rtdetrv2_train.data import formats
from rtdetrv2_train.data.annotations import AnnotationProblem, AnnotationTable
from rtdetrv2_train.data.array_folder import ArrayFolder, UnusableArraysError, write_arrays
from rtdetrv2_train.data.file_names import FileFinder, missing_names
from rtdetrv2_train.data.formats.finding import FORMATS, label_of, source_of
from rtdetrv2_train.data.formats.source import Source
from rtdetrv2_train.data.images.decode import Exif, Reading
from rtdetrv2_train.data.images.sizes import UNREADABLE, image_sizes
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.files import cache_folder

logger = logging.getLogger(__name__)

# To be raised whenever what is written, or how it is computed, changes.
_VERSION = 7
_PATIENCE = 600.0  # seconds for another process to build the index


def load_annotations(annotation_file: Path, image_folder: Path, exif: Exif = "auto") -> AnnotationTable:
    """Read annotations whose place is known, or their index; the log names broken boxes, which are not trained on.

    Args:
        annotation_file: file or folder of the labels, in any known format.
        image_folder: folder that the names of the images are relative to.
        exif: see `Reading`; ``apply`` opens all images once.

    Raises:
        UserError: if the file is missing or cannot be understood.
    """
    return load_source(source_of(Path(annotation_file), Path(image_folder)), exif)


def load_source(source: Source, exif: Exif = "auto") -> AnnotationTable:
    """Read a part of a data set, or its index; the log names broken boxes, which are not trained on.

    Args:
        source: the part.
        exif: see `Reading`; ``apply`` opens all images once.

    Raises:
        UserError: if a file is missing or cannot be understood.
    """
    try:
        table = replace(_indexed(source, exif), reading=Reading(exif))
    except OSError as error:
        raise UserError(f"the annotation file '{source.annotations}' cannot be read: {error.strerror}") from error
    table.log_summary()
    return table


def read_source(source: Source, exif: Exif) -> AnnotationTable:
    """Read a part of a data set from its own files.

    Raises:
        UserError: if they cannot be understood.
    """
    with _heard() as notes:
        table = FORMATS[source.format].read(source, exif)
    return replace(table, reader_notes=tuple(notes))


@contextlib.contextmanager
def _heard() -> Iterator[list[str]]:
    """What readers of formats warn of within this context."""
    heard: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    readers = logging.getLogger(formats.__name__)
    readers.addHandler(handler)
    try:
        yield heard
    finally:
        readers.removeHandler(handler)


def _indexed(source: Source, exif: Exif) -> AnnotationTable:
    """The table from the index, which is built first if there is none that fits; from the files where none can be kept.

    Of several processes that find no index, one builds it and the others wait.
    """
    key = _key(source, exif)
    places = (_beside(source), _in_cache(source))

    def opened(place: Path, level: int = logging.DEBUG) -> AnnotationTable | None:
        return _opened(place, key, source, level)

    for place in places:
        if (table := opened(place, logging.INFO)) is not None:
            return table
    built: AnnotationTable | None = None
    faults = []
    for place in places:
        fault = "it is damaged as soon as it is written"
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with _alone(place):
                if (table := opened(place)) is None:
                    built = read_source(source, exif) if built is None else built
                    _write(place, key, built)
        except OSError as error:
            fault = error.strerror or str(error)
        # Also after an error: without locks another process may have been faster.
        table = opened(place) if table is None else table
        if table is not None:
            return table
        faults.append(f"'{place}': {fault}")
    logger.warning(
        "no index of '%s' can be kept (%s): every process reads the file itself; make room, or let XDG_CACHE_HOME name "
        "a folder that can be written to",
        source.annotations,
        "; ".join(faults),
    )
    return read_source(source, exif) if built is None else built


def _key(source: Source, exif: Exif) -> dict[str, Any]:
    """What an index must be about: these files as they are now, from wherever the set is moved to."""

    def place(path: Path | None) -> str | None:
        return None if path is None else os.path.relpath(path, source.annotations.parent)

    places = {"images": place(source.images), "listing": place(source.listing), "classes": place(source.classes)}
    state = FORMATS[source.format].state(source)
    return {"version": _VERSION, "format": source.format, "part": source.part, "exif": exif, **places, **state}


def _name(source: Source) -> str:
    """Of an index; but for COCO, the parts of a set may share a file of annotations."""
    return f"{source.annotations.name}{f'.{source.part}' * bool(source.part and source.format != 'coco')}.index"


def _beside(source: Source) -> Path:
    return source.annotations.with_name(f".{_name(source)}")


def _in_cache(source: Source) -> Path:
    path = source.annotations.resolve()
    return cache_folder() / f"{path.name}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}-{_name(source)}"


def _write(place: Path, key: Mapping[str, Any], table: AnnotationTable) -> None:
    values = {field.name: getattr(table, field.name) for field in fields(table)}
    facts = {
        "category_ids": table.category_ids,
        "class_names": table.class_names,
        "problems": [astuple(problem) for problem in table.problems],
        "unreadable": table.unreadable,
        "reader_notes": table.reader_notes,
    }
    write_arrays(place, key, facts, {name: value for name, value in values.items() if isinstance(value, np.ndarray)})


def _opened(place: Path, key: Mapping[str, Any], source: Source, level: int) -> AnnotationTable | None:
    """The table from the index at a place, if there is one, undamaged and about the files as they are now.

    Why one is not used is logged at a level.
    """
    try:
        index = ArrayFolder(place, key)
    except FileNotFoundError:
        return None
    except (UnusableArraysError, OSError) as error:
        logger.log(level, "the index '%s' is not used: %s", place, error)
        return None
    unreadable = tuple(index.facts["unreadable"])
    if unreadable and not _are_left_out(unreadable, index.arrays["file_names"].tolist(), source):
        logger.log(level, "the index '%s' is not used: it lacks images that could not be read", place)
        return None
    arrays: dict[str, Any] = index.arrays
    return AnnotationTable(
        annotation_file=label_of(source),
        image_folder=source.images,
        category_ids=tuple(index.facts["category_ids"]),
        class_names=tuple(index.facts["class_names"]),
        problems=tuple(AnnotationProblem(*problem) for problem in index.facts["problems"]),
        index=index,
        unreadable=unreadable,
        reader_notes=tuple(index.facts["reader_notes"]),
        **arrays,
    )


def _are_left_out(unreadable: Sequence[str], others: Sequence[str], source: Source) -> bool:
    """Whether images that could not be read are to be left out, and still cannot be read."""
    if not source.may_lack_images:
        return False
    missing = missing_names(unreadable, source.images)
    files = FileFinder(source.images).found(missing, [*unreadable, *others]) if missing else {}
    names = [files.get(name, name) for name in unreadable]
    return all(size == UNREADABLE for size in image_sizes(source.images, names, "ignore", may_lack=True))


@contextlib.contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Keep other processes from building at the same time, where the file system has locks."""
    lock = FileLock(f"{place}.lock", timeout=_PATIENCE)  # a marker left on a disk without locks would last for ever
    try:
        lock.acquire()
    except NotImplementedError:
        logger.debug("'%s' lies where files cannot be locked; several processes may build the same index", place)
    try:
        yield
    finally:
        lock.release()
