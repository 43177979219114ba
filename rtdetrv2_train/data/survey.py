"""What a sample of the images gives away before training: one line for each thing that looks wrong."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.images.decode import (
    ImageHeader,
    PixelRange,
    UnreadableImageError,
    deep_range,
    read_header,
)
from rtdetrv2_train.data.images.reading import RGB
from rtdetrv2_train.errors import UserError

logger = logging.getLogger(__name__)

_MOST_IMAGES = 100
_PERCENTILES = (0.1, 99.9)
_HALF_OF_8_BITS, _HALF_OF_16_BITS = 2**7, 2**15


def sample_of_images(annotations: AnnotationTable) -> dict[int, ImageHeader]:
    """Headers of images spread over the set, by their number; without those that cannot be read."""
    headers = {}
    for index in np.unique(np.linspace(0, len(annotations) - 1, _MOST_IMAGES).astype(np.int64)).tolist():
        try:
            headers[index] = read_header(annotations.path(index), annotations.reading.channels)
        except UnreadableImageError:
            continue
    return headers


def warn_of_images(annotations: AnnotationTable, headers: dict[int, ImageHeader]) -> None:
    """Warn of orientations in EXIF that nothing decides about, and of images that differ from the annotated size.

    Raises:
        UserError: if no image has the bands that are wanted.
    """
    _check_bands(annotations, headers)
    file, exif = annotations.annotation_file, annotations.reading.exif
    undecided, turned, differing = {}, 0, []
    for index, header in headers.items():
        annotated = annotations.size(index)
        turn = header.turn(exif, annotated)
        turned += turn > 1
        if header.orientation > 1 and turn == 1 and exif == "auto":
            undecided[index] = header
        size = header.upright_size if turn > 1 else (header.height, header.width)
        if size != annotated:
            differing.append((index, *size, *annotated))
    if turned:
        logger.info("'%s': %d of %d images looked at are turned as their EXIF says", file, turned, len(headers))
    if undecided:
        logger.warning(
            "'%s': %d of %d images looked at have an orientation in EXIF, and no annotated size tells that they are "
            "to be turned: they are read as stored%s; data.exif=apply turns them, for boxes that were drawn on upright "
            "pictures, and data.exif=ignore says that this is right",
            file,
            len(undecided),
            len(headers),
            ", though boxes reach out of them and would fit the turned ones"
            if _fit_turned(annotations, undecided)
            else "",
        )
    if differing:
        index, height, width, *annotated_size = differing[0]
        factors = {(round(h / was_h, 2), round(w / was_w, 2)) for _, h, w, was_h, was_w in differing}
        logger.warning(
            "'%s': %d of %d images looked at are of another size than it says%s, such as '%s' with %d x %d pixels, not "
            "%d x %d; boxes are taken as they are: scale them, or use the images that were annotated",
            file,
            len(differing),
            len(headers),
            f", {width / annotated_size[1]:.3g} times as wide and {height / annotated_size[0]:.3g} times as high"
            if len(factors) == 1
            else "",
            annotations.file_names[index],
            width,
            height,
            *annotated_size[::-1],
        )
    if moving := [index for index, header in headers.items() if header.animated]:
        logger.info(
            "'%s': of animations such as '%s' the first picture is read", file, annotations.file_names[moving[0]]
        )


def _check_bands(annotations: AnnotationTable, headers: dict[int, ImageHeader]) -> None:
    """Refuse a set whose images all have another number of bands; single ones are named when they are read."""
    channels = annotations.reading.channels
    found = {header.bands for header in headers.values()}
    if channels == RGB or channels in found or not found:
        return
    index, header = next(iter(headers.items()))
    several = f"{min(found)} to {max(found)}" if len(found) > 1 else str(header.bands)
    raise UserError(
        f"'{annotations.annotation_file}': its images have {several} bands, such as '{annotations.file_names[index]}', "
        f"and data.channels is {channels}: set data.channels={header.bands}, or 3 to read pictures as RGB"
    )


def _fit_turned(annotations: AnnotationTable, headers: dict[int, ImageHeader]) -> bool:
    """Whether a box reaches out of an image as it is stored, but not of the turned one."""
    chosen = np.isin(annotations.raw_images, list(headers))
    corners = annotations.raw_boxes[chosen, :2] + annotations.raw_boxes[chosen, 2:]
    images = [headers[index] for index in annotations.raw_images[chosen].tolist()]
    stored = np.array([(image.width, image.height) for image in images]).reshape(-1, 2)
    upright = np.array([image.upright_size[::-1] for image in images]).reshape(-1, 2)
    return bool(((corners > stored + 1).any(axis=1) & (corners <= upright + 1).all(axis=1)).any())


def measured_range(paths: Iterable[Path], channels: int = RGB) -> PixelRange | None:
    """The range of values of more than 8 bits in these images; None where there are none, or 8 or 16 bits are used.

    Args:
        paths: of the files.
        channels: that are wanted of them (see `Reading`).
    """
    ranges = []
    for path in paths:
        try:
            if read_header(path, channels).deep:
                ranges.append(deep_range(path, _PERCENTILES, channels))
        except UnreadableImageError:
            continue
    if not ranges:
        return None
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    as_usual = high <= 1 or _HALF_OF_8_BITS <= high <= 255 or high - low >= _HALF_OF_16_BITS
    if high <= low or (low >= 0 and as_usual):
        return None
    return low, high
