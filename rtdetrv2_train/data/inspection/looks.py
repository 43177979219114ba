"""What a look at an image file tells, whatever its annotations: one pass over all files, in threads."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.data.images.decode import (
    ImageHeader,
    Reading,
    StoredImage,
    UnreadableImageError,
    deep_range,
    read_header,
)
from rtdetrv2_train.data.images.fingerprints import fingerprint, has_contrast
from rtdetrv2_train.data.images.sizes import header_of
from rtdetrv2_train.data.inspection.looks_file import LooksFile
from rtdetrv2_train.system.resources import available_cores

MISSING = "there is no such file"
"""What is wrong with an image that is missing."""

DETAIL_SIDE = 32
"""Of the picture of fine structure, in pixels."""

_JPEG = b"\xff\xd8\xff"
_BLURRED = (5, 5)  # what is taken away from a picture to leave its fine structure
_HIGHEST = 127.0
_PERCENTILES = (0.1, 99.9)
_AT_ONCE = 16  # images of a thread in a row


class Look(msgspec.Struct, array_like=True, frozen=True):
    """What was seen of an image file; by default of one that cannot be read.

    Attributes:
        error: why it cannot be read; empty where it can.
        height: in pixels, as stored.
        width: in pixels, as stored.
        orientation: of EXIF, 1 to 8.
        deep: whether its values have more than 8 bits.
        low: the 0.1th percentile of such values.
        high: the 99.9th.
        plain: whether it is of one grey.
        checksum: CRC-32 of the file.
        length: of the file in bytes.
        hash: 32 bytes, see `fingerprint`.
        detail: the fine structure, int8 ``[32, 32]``.
    """

    error: str = ""
    height: int = 0
    width: int = 0
    orientation: int = 1
    deep: bool = False
    low: float = 0.0
    high: float = 0.0
    plain: bool = False
    checksum: int = 0
    length: int = 0
    hash: bytes = bytes(32)
    detail: bytes = bytes(DETAIL_SIDE * DETAIL_SIDE)

    @property
    def header(self) -> ImageHeader:
        """What the file says of itself."""
        return ImageHeader(self.height, self.width, self.orientation, self.deep)


def look_at_all(
    paths: Sequence[Path], channels: int, file: LooksFile, seen: Callable[[int], object] = lambda count: None
) -> list[Look]:
    """Look at images, with a thread for every core; what was seen before of unchanged files is taken from a file.

    Args:
        paths: of the images.
        channels: that are wanted of them (see `Reading`).
        file: keeps what is seen.
        seen: called with the number of images that were looked at, again and again.
    """

    def several(start: int) -> list[Look]:
        return [look_or_recall(path, channels, file) for path in paths[start : start + _AT_ONCE]]

    found: list[Look] = []
    pool = ThreadPoolExecutor(available_cores())
    try:
        for looks in pool.map(several, range(0, len(paths), _AT_ONCE)):
            found += looks
            seen(len(looks))
    finally:
        pool.shutdown(cancel_futures=True)
        file.flush()
    return found


def look_or_recall(path: Path, channels: int, file: LooksFile) -> Look:
    """Look at an image, unless that was done since it changed."""
    try:
        state = path.stat()
    except OSError as error:
        return Look(MISSING if isinstance(error, FileNotFoundError) else error.strerror or str(error))
    key = (str(path), state.st_size, state.st_mtime_ns)
    if (known := file.recall(key)) is not None:
        return msgspec.msgpack.decode(known, type=Look)
    look = look_at(path, channels)
    if not look.error:  # which may be that of a package that is installed meanwhile
        file.keep(key, msgspec.msgpack.encode(look))
    return look


def look_at(path: Path, channels: int) -> Look:
    """Look at an image, turned as its EXIF says."""
    try:
        content = path.read_bytes()
        header = header_of(content) if content.startswith(_JPEG) else None
        header = header or read_header(path, channels)
        image = StoredImage.of_file(content, Reading("apply", channels=channels))
        low, high = deep_range(path, _PERCENTILES, channels) if header.deep else (0.0, 0.0)
        image_hash, _, grey = fingerprint(image)
    except (UnreadableImageError, OSError) as error:
        return Look(str(error) or type(error).__name__)
    return Look(
        "",
        header.height,
        header.width,
        header.orientation,
        header.deep,
        low,
        high,
        not has_contrast(grey),
        zlib.crc32(content),
        len(content),
        image_hash.tobytes(),
        _detail(grey).tobytes(),
    )


def _detail(grey: NDArray[np.float32]) -> NDArray[np.int8]:
    """What is left of a small picture without its blurred self, stretched to int8."""
    small = np.asarray(cv2.resize(grey, (DETAIL_SIDE, DETAIL_SIDE), interpolation=cv2.INTER_AREA))
    fine = small - np.asarray(cv2.blur(small, _BLURRED))
    return np.rint(fine * (_HIGHEST / max(float(np.abs(fine).max()), 1e-6))).astype(np.int8)
