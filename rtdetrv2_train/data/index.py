"""The index of an annotation file: the table that was read from it once, kept for every later run and process.

It lies beside the annotation file, or in a cache folder where that place cannot be written to. It belongs to a file of
a certain size and time. It is built again when either has changed, or when the index is damaged.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import astuple, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from rtdetrv2_train.data.annotations import AnnotationProblem, AnnotationTable
from rtdetrv2_train.data.array_folder import ArrayFolder, UnusableArraysError, write_arrays
from rtdetrv2_train.data.formats.coco import read_coco_file
from rtdetrv2_train.data.images.decode import Exif, Reading
from rtdetrv2_train.errors import UserError

logger = logging.getLogger(__name__)

# To be raised whenever what is written, or how it is computed, changes.
_VERSION = 3
_PATIENCE = 600.0  # seconds for another process to build the index


def load_annotations(annotation_file: Path, image_folder: Path, exif: Exif = "auto") -> AnnotationTable:
    """Read an annotation file, or its index; the log names broken boxes, which are not trained on.

    Args:
        annotation_file: JSON file with ``images``, ``annotations`` and ``categories``.
        image_folder: folder that the ``file_name`` of the images is relative to.
        exif: see `Reading`; ``apply`` opens all images once.

    Raises:
        UserError: if the file is missing or is not a COCO annotation file.
    """
    try:
        table = replace(_indexed(Path(annotation_file), Path(image_folder), exif == "apply"), reading=Reading(exif))
    except OSError as error:
        raise UserError(f"the annotation file '{annotation_file}' cannot be read: {error.strerror}") from error
    table.log_summary()
    return table


def cache_folder() -> Path:
    """This user's folder for files that can be built again."""
    home = os.environ.get("HOME")
    base = Path(os.environ.get("XDG_CACHE_HOME") or (Path(home) / ".cache" if home else tempfile.gettempdir()))
    return base / "rtdetrv2_train"


def _indexed(annotation_file: Path, image_folder: Path, upright: bool) -> AnnotationTable:
    """The table from the index, which is built first if there is none that fits; from the file where none can be kept.

    Of several processes that find no index, one builds it and the others wait.
    """
    state = annotation_file.stat()
    key = {"version": _VERSION, "bytes": state.st_size, "modified": state.st_mtime_ns, "upright": upright}
    places = (_beside(annotation_file), _in_cache(annotation_file))

    def opened(place: Path) -> AnnotationTable | None:
        return _opened(place, key, annotation_file, image_folder)

    for place in places:
        if (table := opened(place)) is not None:
            return table
    built: AnnotationTable | None = None
    faults = []
    for place in places:
        fault = "it is damaged as soon as it is written"
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with _alone(place):
                if (table := opened(place)) is None:
                    built = read_coco_file(annotation_file, image_folder, upright) if built is None else built
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
        annotation_file,
        "; ".join(faults),
    )
    return read_coco_file(annotation_file, image_folder, upright) if built is None else built


def _beside(annotation_file: Path) -> Path:
    return annotation_file.with_name(f".{annotation_file.name}.index")


def _in_cache(annotation_file: Path) -> Path:
    path = annotation_file.resolve()
    return cache_folder() / f"{path.name}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}.index"


def _write(place: Path, key: Mapping[str, Any], table: AnnotationTable) -> None:
    values = {field.name: getattr(table, field.name) for field in fields(table)}
    facts = {
        "category_ids": table.category_ids,
        "class_names": table.class_names,
        "problems": [astuple(problem) for problem in table.problems],
        "sizes_from": str(table.image_folder) if table.sizes_from_images else None,
    }
    write_arrays(place, key, facts, {name: value for name, value in values.items() if isinstance(value, np.ndarray)})


def _opened(place: Path, key: Mapping[str, Any], annotation_file: Path, image_folder: Path) -> AnnotationTable | None:
    """The table from the index at a place, if there is one, undamaged and about the files as they are now."""
    try:
        index = ArrayFolder(place, key)
    except FileNotFoundError:
        return None
    except (UnusableArraysError, OSError) as error:
        logger.info("the index '%s' is not used: %s", place, error)
        return None
    if index.facts["sizes_from"] not in (None, str(image_folder)):
        return None
    arrays: dict[str, Any] = index.arrays
    return AnnotationTable(
        annotation_file=annotation_file,
        image_folder=image_folder,
        category_ids=tuple(index.facts["category_ids"]),
        class_names=tuple(index.facts["class_names"]),
        problems=tuple(AnnotationProblem(*problem) for problem in index.facts["problems"]),
        sizes_from_images=index.facts["sizes_from"] is not None,
        index=index,
        **arrays,
    )


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
