"""What boxes and a sample of the images give away before training: one line for each thing that looks wrong."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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
_MOST_BOXES = 50_000  # of a large set, spread over it
_NEARLY_ALL = 0.99
_SOME = 0.1
_PERCENTILES = (0.1, 99.9)
_STRIDE = 8  # of the finest feature map: of what is smaller, a model sees one position
_MANY_SMALL, _FEW_SMALL = 0.25, 0.1
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


def size_advice(annotations: AnnotationTable, image_size: Sequence[int]) -> str:
    """A line on boxes that are too small for a model's finest feature map; empty where few are.

    Args:
        annotations: of the training set.
        image_size: (height, width) of the input in pixels, which images are stretched to.
    """
    kept = np.flatnonzero(~annotations.raw_crowd)
    kept = kept[:: max(1, len(kept) // _MOST_BOXES)]
    if not len(kept):
        return ""
    sizes = np.column_stack([annotations.widths, annotations.heights])[annotations.raw_images[kept]]
    sides = np.sqrt((annotations.raw_boxes[kept, 2:].clip(min=0) / sizes).prod(axis=1))  # as shares of the image's

    def small(factor: float) -> float:
        return float(np.mean(sides * factor * np.sqrt(np.prod(image_size)) < _STRIDE))

    if small(1) < _MANY_SMALL:
        return ""
    height, width = image_size
    line = f"{small(1):.0%} of the boxes have fewer than {_STRIDE} x {_STRIDE} pixels at {height} x {width}"
    most = np.sqrt(np.median(sizes.prod(axis=1)) / np.prod(image_size))  # where images have no more pixels
    factors = [factor for factor in (1.5, 2, 3, 4) if factor <= most]
    if not factors:
        return f"{line}, which is hard to learn; the images have no more pixels"
    factor = next((factor for factor in factors if small(factor) < _FEW_SMALL), factors[-1])
    larger = ",".join(str(round(side * factor / 32) * 32) for side in image_size)
    return f"{line}: with model.image_size=[{larger}] {small(factor):.0%} would have"


def other_convention(annotations: AnnotationTable) -> str:
    """How the boxes seem to be meant if not as left, top, width, height in pixels; empty where all looks well."""
    kept = np.flatnonzero(~annotations.raw_crowd)
    kept = kept[:: max(1, len(kept) // _MOST_BOXES)]
    boxes, images = annotations.raw_boxes[kept], annotations.raw_images[kept]
    if not len(boxes):
        return ""
    sizes = np.column_stack([annotations.widths, annotations.heights])[images]
    low, last = boxes[:, :2], boxes[:, 2:]
    if boxes.min() >= 0 and boxes.max() <= 1 and sizes.min() > 2:
        return "every bbox lies within 0 to 1, as shares of the image do: multiply them by its width and height"
    if np.mean((low + last > sizes + 1).any(axis=1)) < _SOME:
        return ""
    read_wrongly = "many reach out of their images if read as left, top, width, height"
    if np.mean(_within(low, last, sizes)) >= _NEARLY_ALL:
        return f"every bbox reads as two corners, and {read_wrongly}: subtract the first from the second"
    if np.mean(_within(low - last / 2, low + last / 2, sizes)) >= _NEARLY_ALL:
        return f"every bbox reads as centre and size, and {read_wrongly}: subtract half the size from the centre"
    return ""


def _within(low: NDArray[np.float64], high: NDArray[np.float64], sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether corners ``[n, 2]`` span boxes within images of (width, height) ``sizes``, but for a pixel."""
    return np.asarray(((low >= -1) & (high >= low) & (high <= sizes + 1)).all(axis=1))
