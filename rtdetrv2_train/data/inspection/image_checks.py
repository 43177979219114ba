"""Images that are missing, damaged, of another size than annotated, turned, flat, or in no annotation file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.images.reading import PixelRange
from rtdetrv2_train.data.inspection.findings import Finding, Level, Unit, counted, quoted_names
from rtdetrv2_train.data.inspection.looks import MISSING, Look

_USED = 0.5  # of the values that are read: less is flat
_HIGHEST = 65535.0
_SKIP = "bring them, or train without them: data.on_bad_image=skip; fix=true leaves them out"


class Sizes(NamedTuple):
    """Which images of a part are not as they were annotated, bool ``[I]`` each.

    Attributes:
        swapped: height and width are those of the annotations the other way round, and EXIF does not say why.
        other: they are others.
        undecided: EXIF says that the image is to be turned, and nothing tells whether boxes are meant so.
    """

    swapped: NDArray[np.bool_]
    other: NDArray[np.bool_]
    undecided: NDArray[np.bool_]


def image_findings(part: str, table: AnnotationTable, looks: Sequence[Look], sizes: Sizes) -> Iterator[Finding]:
    """What is wrong with the images of a part.

    Args:
        part: its name.
        table: of it.
        looks: at each of its images.
        sizes: of `sizes_of_images`.
    """
    yield from _absent(part, table, looks)
    yield from _of_sizes(part, table, looks, sizes)
    yield from _deep(part, table, looks)
    plain = np.array([look.plain and not look.error for look in looks], dtype=bool)
    if len(which := np.flatnonzero(plain)):
        with_boxes = int((np.diff(table.offsets)[which] > 0).sum())
        level: Level = "warning" if with_boxes else "note"
        message = f"{counted(len(which), 'image')} of one colour, {with_boxes} of them with boxes"
        yield _finding("plain_images", level, part, table, which, message, "replace them, or take them out")


def sizes_of_images(table: AnnotationTable, looks: Sequence[Look]) -> Sizes:
    """Compare the sizes of images with the annotated ones, as they are read for training."""
    found = Sizes(*np.zeros((3, len(table)), dtype=bool))
    exif = table.reading.exif
    for index, look in enumerate(looks):
        if look.error:
            continue
        annotated, header = table.size(index), look.header
        turn = header.turn(exif, annotated)
        size = header.upright_size if turn > 1 else (header.height, header.width)
        found.undecided[index] = header.orientation > 1 and turn == 1 and exif == "auto"
        if size != annotated:
            found.swapped[index] = size == annotated[::-1]
            found.other[index] = size != annotated[::-1]
    return found


def unlisted_finding(part: str, table: AnnotationTable, names: Sequence[str], total: int) -> Finding | None:
    """Files of the folder of images that no annotation file names.

    Args:
        part: of the folder.
        table: of the part.
        names: of those files.
        total: files of images in the folder.
    """
    if not names:
        return None
    return Finding(
        "unlisted_images",
        "note",
        part,
        len(names),
        total,
        "images",
        f"{counted(len(names), 'image')} in '{table.image_folder}' without labels: {quoted_names(names, 3)}",
        "annotate them, or list them as images without objects",
        notes=list(names),
    )


def _absent(part: str, table: AnnotationTable, looks: Sequence[Look]) -> Iterator[Finding]:
    missing = np.array([look.error == MISSING for look in looks], dtype=bool)
    damaged = np.array([look.error not in ("", MISSING) for look in looks], dtype=bool)
    total = len(table) + len(table.unreadable)
    if missing.any():
        yield _finding(
            "missing_images",
            "error",
            part,
            table,
            np.flatnonzero(missing),
            f"{counted(int(missing.sum()), 'image')} of {total:,} missing",
            _SKIP,
            fixable=True,
            notes=[str(table.path(index)) for index in np.flatnonzero(missing).tolist()],
        )
    notes = [f"{table.file_names[index]}: {looks[index].error}" for index in np.flatnonzero(damaged).tolist()]
    notes += [f"{name}: missing or damaged" for name in table.unreadable]
    if notes:
        yield Finding(
            "unreadable_images",
            "error",
            part,
            len(notes),
            total,
            "images",
            f"{counted(len(notes), 'image')} of {total:,} that cannot be read, such as {notes[0]}",
            _SKIP,
            notes=notes,
            mended_by_fix=True,
        )


def _of_sizes(part: str, table: AnnotationTable, looks: Sequence[Look], sizes: Sizes) -> Iterator[Finding]:
    def differences(which: NDArray[np.int64]) -> list[str]:
        return [
            f"{table.widths[i]} x {table.heights[i]} annotated, {looks[i].width} x {looks[i].height} stored"
            for i in which.tolist()
        ]

    if len(which := np.flatnonzero(sizes.swapped)):
        yield _finding(
            "swapped_sizes",
            "error",
            part,
            table,
            which,
            f"{counted(len(which), 'image')} with width and height swapped in the labels, or turned after annotating",
            "correct the sizes, or the images; fix=true swaps sizes where all boxes fit the image as it is",
            fixable=True,
            notes=differences(which),
        )
    if len(which := np.flatnonzero(sizes.other)):
        yield _finding(
            "other_sizes",
            "error",
            part,
            table,
            which,
            f"{counted(len(which), 'image')} of another size than annotated{_common_factor(table, looks, which)}",
            "boxes are taken as they are: scale them, or use the images that were annotated",
            notes=differences(which),
        )
    if len(which := np.flatnonzero(sizes.undecided)):
        yield _finding(
            "undecided_exif",
            "warning",
            part,
            table,
            which,
            f"{counted(len(which), 'image')} with an orientation in EXIF, and no annotated size tells what it means",
            "look whether the boxes fit: data.exif=apply turns the images, data.exif=ignore says that all is right",
        )


def _common_factor(table: AnnotationTable, looks: Sequence[Look], which: NDArray[np.int64]) -> str:
    factors = {
        (round(looks[i].width / table.widths[i], 2), round(looks[i].height / table.heights[i], 2))
        for i in which.tolist()
    }
    if len(factors) != 1:
        return ""
    across, down = factors.pop()
    return f", {across:g} times as wide and {down:g} times as high"


def _deep(part: str, table: AnnotationTable, looks: Sequence[Look]) -> Iterator[Finding]:
    """Images of more than 8 bits, which are flat where their range is not known."""
    which = np.array([i for i, look in enumerate(looks) if look.deep and look.high > 1], dtype=np.int64)
    if not len(which):
        return
    lows, highs = (np.array([getattr(looks[i], name) for i in which.tolist()]) for name in ("low", "high"))
    low, high = _range_of(table.reading.pixel_range)
    flat = which[(highs > 255) & (highs - lows.clip(low) < _USED / 4 * (high - low))]
    values = f"values from {lows.min():g} to {highs.max():g}"
    if len(flat):
        yield _finding(
            "flat_images",
            "warning",
            part,
            table,
            flat,
            f"{counted(len(flat), 'image')} of more than 8 bits, {values}, while {low:g} to {high:g} become 0 to "
            "255: they come out dark or flat",
            f"data.pixel_range=[{lows.min():g},{highs.max():g}], if all images are of that kind, or store them alike",
        )
    else:
        yield _finding(
            "deep_images",
            "note",
            part,
            table,
            which,
            f"{counted(len(which), 'image')} of more than 8 bits, {values}; {low:g} to {high:g} become 0 to 255",
            "nothing, if they look right here; else data.pixel_range",
        )


def _range_of(pixel_range: PixelRange | None) -> PixelRange:
    return (0.0, _HIGHEST) if pixel_range is None else pixel_range


def _finding(
    check: str,
    level: Level,
    part: str,
    table: AnnotationTable,
    which: NDArray[np.int64],
    message: str,
    remedy: str,
    fixable: bool = False,
    notes: Sequence[str] = (),
) -> Finding:
    unit: Unit = "images"
    return Finding(
        check,
        level,
        part,
        len(which),
        len(table),
        unit,
        message,
        remedy,
        images=which,
        notes=notes,
        mended_by_fix=fixable,
    )
