"""The images in parquet files, unpacked once into a hidden folder beside them or in the cache."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock

from rtdetrv2_train.data.formats.source import state_of_files
from rtdetrv2_train.data.images.sizes import IMAGE_SUFFIXES
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.files import cache_folder

logger = logging.getLogger(__name__)

_STATE, _NAMES = "state.json", "names.json"
_PATIENCE = 3600.0  # seconds for another process to unpack
_IN_A_FOLDER = 10_000
_LONGEST_NAME = 80
_ODD = re.compile(r"[^\w.-]+")
_BEGINNINGS = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG": ".png",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
}


def place_for_images(file: Path) -> Path:
    """The folder in which the images of a parquet file are unpacked into a folder of their own.

    Args:
        file: the parquet file, or the first of several.

    Returns:
        The folder of the file, or one in the cache where that cannot be written to.
    """
    beside = file.parent
    if (beside / _folder_name(file) / _STATE).is_file() or os.access(beside, os.W_OK):
        return beside
    path = file.resolve()
    return cache_folder() / f"{path.name}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}"


def unpacked(files: list[Path], folder: Path, images: Iterable[tuple[bytes, str]]) -> list[str]:
    """Unpack images unless they are; of several processes one does it, and the others wait.

    Args:
        files: the parquet files, which the images are known by.
        folder: in which they go into a folder of their own.
        images: content and name of each; read only where they are not there yet.

    Returns:
        The names of the images, relative to ``folder``, in their order.

    Raises:
        UserError: if they cannot be written.
    """
    place = folder / _folder_name(files[0])
    state = state_of_files(files)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not _is_about(place, state):
            with _alone(place):
                if not _is_about(place, state):
                    _unpack(place, state, images)
        names: list[str] = json.loads((place / _NAMES).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"the images of '{files[0]}' cannot be unpacked to '{place}': {error.strerror or error}; make room there, "
            "or name a folder that can be written to as data.train.images or data.val.images"
        ) from error
    return [f"{place.name}/{name}" for name in names]


def are_unpacked(files: list[Path], folder: Path) -> bool:
    """Whether the images of parquet files lie unpacked, as the files are now."""
    return _is_about(folder / _folder_name(files[0]), state_of_files(files))


def _folder_name(file: Path) -> str:
    return f".{file.stem}.images"


def _is_about(place: Path, state: dict[str, Any]) -> bool:
    try:
        return bool(json.loads((place / _STATE).read_text(encoding="utf-8")) == state)
    except (OSError, ValueError):
        return False


def _unpack(place: Path, state: dict[str, Any], images: Iterable[tuple[bytes, str]]) -> None:
    """Write everything into a folder that becomes the right one when it is complete."""
    partial = place.with_name(f"{place.name}.partial")
    for old in (partial, place):
        if old.exists():
            shutil.rmtree(old)
    partial.mkdir()
    logger.info("unpacking images to '%s', once", place)
    names = []
    for position, (content, told) in enumerate(images):
        folder = f"{position // _IN_A_FOLDER:04d}"
        if position % _IN_A_FOLDER == 0:
            (partial / folder).mkdir()
        name = f"{folder}/{_name(position, content, told)}"
        (partial / name).write_bytes(content)
        names.append(name)
    (partial / _NAMES).write_text(json.dumps(names), encoding="utf-8")
    (partial / _STATE).write_text(json.dumps(state), encoding="utf-8")
    partial.replace(place)


def _name(position: int, content: bytes, told: str) -> str:
    """A name for a file, which begins with its number, as names in the set may be missing or not unique."""
    path = PurePosixPath(told.replace("\\", "/"))
    suffix = next((suffix for beginning, suffix in _BEGINNINGS.items() if content.startswith(beginning)), "")
    if not suffix:
        suffix = path.suffix.lower() if path.suffix.lower() in IMAGE_SUFFIXES else ".webp"
    stem = _ODD.sub("_", path.stem)[:_LONGEST_NAME]
    return f"{position:08d}{f'-{stem}' * bool(stem)}{suffix}"


@contextlib.contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Keep other processes from unpacking at the same time, where the file system has locks."""
    lock = FileLock(f"{place}.lock", timeout=_PATIENCE)
    with contextlib.suppress(NotImplementedError):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
