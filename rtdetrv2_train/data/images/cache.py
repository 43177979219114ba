"""Decoded images kept for later epochs, in memory or in a file, shared by all workers; for sets that fit.

Images that are several times larger than any sample are kept at 1/2, 1/4 or 1/8 of their size.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.images.decode import SHRINKS, StoredImage
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.system.resources import available_memory

logger = logging.getLogger(__name__)


class ImageCache:
    """Room for every image of a data set, filled as images are first asked for.

    A cached image is used only while its file has the size and time that it had when it was cached.

    Args:
        annotations: I images; their sizes decide how much room each one gets.
        sample_size: (height, width) that images are never kept smaller than, if they are larger.
        file: where to keep them, which processes share; None for memory, which only forked workers share.
        processes: ranks of this machine that make such a cache at the same time.

    Raises:
        UserError: if there is no room.
    """

    def __init__(
        self, annotations: AnnotationTable, sample_size: tuple[int, int], file: Path | None = None, processes: int = 1
    ) -> None:
        self.annotations = annotations
        self.sample_size = sample_size
        self.file = file
        heights, widths = annotations.heights, annotations.widths
        factors = np.minimum(heights / sample_size[0], widths / sample_size[1])
        self.shrinks = np.ones(len(annotations), dtype=np.int64)
        for shrink in sorted(SHRINKS):
            self.shrinks[factors >= shrink] = shrink
        sizes = -(-heights // self.shrinks) * -(-widths // self.shrinks) * annotations.reading.channels
        states_size = 16 * len(annotations)
        self.ends = np.cumsum(sizes)
        room = int(self.ends[-1]) + states_size
        memory = self._memory(room, processes)
        self.states = np.frombuffer(memory, np.int64, 2 * len(annotations)).reshape(-1, 2)
        self.pixels = np.frombuffer(memory, np.uint8, offset=states_size)
        logger.info("cache of decoded images: %.1f GB in %s", room / 1e9, f"'{file}'" if file else "memory")

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the file itself."""
        if self.file is None:
            raise UserError("data.cache=ram needs workers that are forked, which this platform does not do: use disk")
        return ImageCache, (self.annotations, self.sample_size, self.file)

    def read(self, index: int) -> StoredImage:
        """Image number ``index``, from the cache or from its file.

        Raises:
            UnreadableImageError: if it is not cached and its file is missing or damaged.
        """
        path = self.annotations.path(index)
        height, width = self.annotations.size(index)
        shrink = int(self.shrinks[index])
        shape = (-(-height // shrink), -(-width // shrink), self.annotations.reading.channels)
        start = int(self.ends[index - 1]) if index else 0
        slot = self.pixels[start : int(self.ends[index])].reshape(shape)
        state = _state(path)
        if state is not None and tuple(self.states[index]) == state:
            return StoredImage(height, width, pixels=slot, shrink=shrink)
        image = self.annotations.image(index)
        if state is not None and (image.height, image.width) == (height, width):
            pixels, decoded_by = image.decode(shrink)
            if decoded_by == shrink:
                slot[:] = pixels
                # Last, so that a process that is killed before leaves no half-written image that counts.
                self.states[index] = state
        return image

    def _memory(self, room: int, processes: int) -> mmap.mmap:
        if self.file is None:
            available = available_memory()
            if available is not None and room * processes > available:
                each = f" in each of {processes} processes" if processes > 1 else ""
                raise UserError(
                    f"data.cache=ram needs {room / 1e9:.1f} GB for {len(self.annotations)} images{each}, and "
                    f"{available / 1e9:.1f} GB are free: use data.cache=disk, which processes share, or null"
                )
            return mmap.mmap(-1, room)
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                # Reserved beforehand where possible: a mapped file that finds the disk full kills the process.
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(descriptor, 0, room)
                else:
                    os.ftruncate(descriptor, room)
                return mmap.mmap(descriptor, room)
            finally:
                os.close(descriptor)
        except OSError as error:
            self.file.unlink(missing_ok=True)
            raise UserError(
                f"data.cache=disk cannot keep {room / 1e9:.1f} GB in '{self.file}' ({error.strerror}): make room, let "
                "XDG_CACHE_HOME name another folder, or use data.cache=null"
            ) from error


def cache_file(annotations: AnnotationTable, sample_size: tuple[int, int], folder: Path) -> Path:
    """Where a set's decoded images are kept: another place for another set, or another layout of the same."""
    layout = hashlib.sha256(os.fsencode(annotations.image_folder.resolve()))
    for part in (annotations.heights, annotations.widths, np.char.encode(annotations.file_names, "utf-8")):
        layout.update(part.tobytes())
    layout.update(repr((sample_size, annotations.reading)).encode())
    return folder / f"{annotations.image_folder.name}-{layout.hexdigest()[:16]}.images"


def _state(path: Path) -> tuple[int, int] | None:
    """Size and time of a file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
