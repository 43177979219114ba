"""Sizes of many images from the beginnings of their files, without decoding and mostly without Pillow."""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

from rtdetrv2_train.data.images.decode import Exif, ImageHeader, UnreadableImageError, read_header
from rtdetrv2_train.data.overlap import overlapped
from rtdetrv2_train.errors import UserError

# What is taken for an image where a folder says which images there are.
IMAGE_SUFFIXES = (
    ".avif",
    ".bmp",
    ".dib",
    ".gif",
    ".heic",
    ".heif",
    ".jfif",
    ".jp2",
    ".jpe",
    ".jpeg",
    ".jpg",
    ".mpo",
    ".pbm",
    ".pgm",
    ".png",
    ".pnm",
    ".ppm",
    ".tga",
    ".tif",
    ".tiff",
    ".webp",
)

TRAIN_WITHOUT = "train without such images with data.on_bad_image=skip"
"""What may be done about images that are missing or cannot be read, for messages."""

_AT_FIRST, _AT_MOST = 2**13, 2**18  # bytes; a header with a preview and a colour profile is of some 100 kB
_START_OF_SCAN, _APPLICATION_1 = 0xDA, 0xE1
_ORIENTATION, _SHORT = 0x0112, 3  # EXIF's tag and its type
_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive
_WITHOUT_CONTENT = (0x00, 0x01, 0xFF, *range(0xD0, 0xDA))
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_KINDS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # bits by type of colour


UNREADABLE = (0, 0)
"""Stands for the size of an image that is missing or cannot be read."""


def image_sizes(folder: Path, names: Sequence[str], exif: Exif, may_lack: bool = False) -> list[tuple[int, int]]:
    """The (height, width) of images, in pixels.

    Args:
        folder: that the names are relative to.
        names: of the files.
        exif: ``ignore``: sizes as stored. ``auto`` and ``apply``: of the image turned as its EXIF says, which is what
            annotation tools show.
        may_lack: whether images may be missing or unreadable, whose size is then `UNREADABLE`.

    Raises:
        UserError: if an image is missing or cannot be read; names the first such.
    """
    try:
        base = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"the folder of images '{folder}' cannot be read: {error.strerror}") from error

    def size(name: str) -> tuple[int, int]:
        try:
            header = _fast_header(name, base) or read_header(folder / name)
        except (UnreadableImageError, OSError) as error:
            if may_lack:
                return UNREADABLE
            raise _unreadable(folder / name, error) from error
        return (header.height, header.width) if exif == "ignore" else header.upright_size

    try:
        return list(overlapped(size, names))
    finally:
        os.close(base)


def _unreadable(path: Path, error: UnreadableImageError | OSError) -> UserError:
    if isinstance(error, OSError) and error.errno == errno.ENOENT:
        return UserError(f"the image '{path}' is missing: put it there, take its annotations out, or {TRAIN_WITHOUT}")
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return UserError(
        f"the image '{path}' cannot be read ({reason}): replace it, take it and its annotations out, or {TRAIN_WITHOUT}"
    )


def _fast_header(name: str, folder: int) -> ImageHeader | None:
    """The header of a plain JPEG or PNG; None where Pillow has to look."""
    file = os.open(name, os.O_RDONLY, dir_fd=folder)
    try:
        content = os.read(file, _AT_FIRST)
        header = header_of(content)
        if header is None and len(content) == _AT_FIRST:
            header = header_of(content + os.read(file, _AT_MOST))
        return header
    except IsADirectoryError:
        return None
    finally:
        os.close(file)


def header_of(content: bytes) -> ImageHeader | None:
    """The header of a plain JPEG or PNG by the beginning of its file; None where Pillow has to look."""
    try:
        if content.startswith(b"\xff\xd8\xff"):
            return _jpeg_header(content)
        return _png_header(content) if content.startswith(_PNG) else None
    except (IndexError, struct.error):  # the header is longer, or odd
        return None


def _jpeg_header(content: bytes) -> ImageHeader | None:
    """Follows the segments up to the pixels, as Pillow does, so that a file that is cut before them is not accepted."""
    place, height, width = 2, 0, 0
    blocks: list[bytes] = []
    while True:
        marker = content[place + 1]
        if content[place] != 0xFF or marker in _WITHOUT_CONTENT:
            return None
        if marker == _START_OF_SCAN:
            orientation = _orientation(blocks) if blocks else 1
            return ImageHeader(height, width, orientation) if height and width and orientation else None
        start = place + 4
        place += 2 + (content[place + 2] << 8) + content[place + 3]
        if marker == _APPLICATION_1:
            blocks.append(content[start:place])
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits, height, width, channels = struct.unpack_from(">BHHB", content, start)
            if marker not in _FRAMES or bits != 8 or channels not in (1, 3, 4):
                return None


def _orientation(blocks: Sequence[bytes]) -> int:
    """Orientation in EXIF, 1 to 8; 0 where it is not as simple as usual."""
    exif = [block for block in blocks if block.startswith(b"Exif\0\0")]
    found = _orientation_of_exif(exif[0]) if exif else None
    if found is None and any(b"rientation" in block for block in blocks if block not in exif):
        return 0  # in XMP
    return 0 if len(exif) > 1 else 1 if found is None else found


def _orientation_of_exif(block: bytes) -> int | None:
    """As `_orientation`; None where there is none."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[6:10])
    if order is None:
        return 0
    (first,) = struct.unpack_from(f"{order}I", block, 10)
    (count,) = struct.unpack_from(f"{order}H", block, 6 + first)
    for number in range(count):
        tag, kind, values, value = struct.unpack_from(f"{order}HHIH", block, 8 + first + 12 * number)
        if tag == _ORIENTATION:
            return value if kind == _SHORT and values == 1 and 1 <= value <= 8 else 0
    return None


def _png_header(content: bytes) -> ImageHeader | None:
    """Checks the chunks before the pixels."""
    width, height, bits, colours = struct.unpack_from(">IIBB", content, 16)
    if content[8:16] != b"\0\0\0\rIHDR" or bits not in _PNG_KINDS.get(colours, ()) or not height or not width:
        return None
    place = 8
    while content[place + 4 : place + 8] != b"IDAT":
        (length,) = struct.unpack_from(">I", content, place)
        (checksum,) = struct.unpack_from(">I", content, place + 8 + length)
        if content[place + 4 : place + 8] == b"eXIf" or zlib.crc32(content[place + 4 : place + 8 + length]) != checksum:
            return None
        place += 12 + length
    return ImageHeader(height, width, 1)
