"""The index of an annotation file: what was read from it once, kept for every later run and process.

It lies beside the annotation file, or in a cache folder where that place cannot be written to. It belongs to a file of
a certain size and time; another one is built when either has changed, or when the index is damaged.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock
from numpy.typing import NDArray

from rtdetrv2_train.data.columns import ColumnFile, UnusableColumnsError, write_columns

logger = logging.getLogger(__name__)

Content = tuple[Mapping[str, Any], Mapping[str, NDArray[Any]]]  # facts and arrays

# Among the facts: the folder of images that sizes were read from, None where the annotation file gives them.
SIZES_FROM = "sizes_from"
# To be raised whenever what is written, or how it is computed, changes.
_VERSION = 1


def open_index(annotation_file: Path, image_folder: Path, build: Callable[[], Content]) -> ColumnFile | Content:
    """The index of an annotation file, built first if there is none that fits.

    Of several processes that find none, one builds it and the others wait. It is written to another name and renamed,
    so that nobody ever reads half of one.

    Args:
        annotation_file: what the index is of.
        image_folder: where its images are; an index that holds sizes of other images does not fit.
        build: reads the annotation file.

    Returns:
        The index; what ``build`` returned where no index can be kept, which the log says.

    Raises:
        OSError: if the annotation file is not there.
    """
    state = annotation_file.stat()
    key = {"version": _VERSION, "bytes": state.st_size, "modified": state.st_mtime_ns}
    places = (_beside(annotation_file), _in_cache(annotation_file))
    for place in places:
        if (index := _opened(place, key, image_folder)) is not None:
            return index
    content: Content | None = None
    faults = []
    for place in places:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with _alone(place):
                if (index := _opened(place, key, image_folder)) is None:
                    content = build() if content is None else content
                    write_columns(place, key, *content)
                    index = ColumnFile(place, key)
            return index
        except (OSError, UnusableColumnsError) as error:
            faults.append(f"'{place}': {getattr(error, 'strerror', None) or error}")
    logger.warning(
        "no index of '%s' can be kept (%s): every process reads the file itself; make room, or let XDG_CACHE_HOME name "
        "a folder that can be written to",
        annotation_file,
        "; ".join(faults),
    )
    return build() if content is None else content


def _beside(annotation_file: Path) -> Path:
    return annotation_file.with_name(f".{annotation_file.name}.index")


def _in_cache(annotation_file: Path) -> Path:
    path = annotation_file.resolve()
    return cache_folder() / f"{path.name}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}.index"


def cache_folder() -> Path:
    """This user's folder for what can be made again."""
    home = os.environ.get("HOME")
    base = Path(os.environ.get("XDG_CACHE_HOME") or (Path(home) / ".cache" if home else tempfile.gettempdir()))
    return base / "rtdetrv2_train"


def _opened(place: Path, key: Mapping[str, Any], image_folder: Path) -> ColumnFile | None:
    """The index at a place, if there is one, undamaged and about the files as they are now."""
    try:
        index = ColumnFile(place, key)
        return index if index.facts[SIZES_FROM] in (None, str(image_folder)) else None
    except FileNotFoundError:
        return None
    except (UnusableColumnsError, OSError) as error:
        logger.info("the index '%s' is not used: %s", place, error)
        return None


@contextlib.contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Keep other processes from building at the same time, where the file system has locks."""
    lock = FileLock(f"{place}.lock")
    try:
        lock.acquire()
    except NotImplementedError:
        logger.debug("'%s' lies where files cannot be locked; several processes may build the same index", place)
    try:
        yield
    finally:
        lock.release()
