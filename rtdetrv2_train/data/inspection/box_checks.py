"""Boxes that cannot be right: of no area, outside, drawn twice, of two classes, or meant in another way.

Needs annotations only. Whole arrays are compared at once, so that a million boxes take a second.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.inspection.conventions import (
    Convention,
    boxes_as_corners,
    boxes_in_shares,
    convention_of,
    sizes_of,
)
from rtdetrv2_train.data.inspection.findings import Finding, counted, quoted_names
from rtdetrv2_train.data.inspection.same_places import SamePlaces, same_places
from rtdetrv2_train.data.table_builder import NO_AREA, OUTSIDE

_REACH, _REACH_SHARE = 2.0, 0.01  # by which a box may reach out of its image: pixels, and of its side
_LEAST_SIDE = 1.0  # pixels
_MEANT: dict[Convention, str] = {
    "shares": "lie within 0 to 1, as shares of the image do",
    "corners": "read as two corners, and reach out of their images as left, top, width, height",
    "centres": "read as centre and size, and reach out of their images as left, top, width, height",
}
_WAYS_OUT: dict[Convention, str] = {
    "shares": "multiply them by width and height of the image; fix=true does",
    "corners": "subtract the first corner from the second; fix=true does",
    "centres": "subtract half the size from the centre; fix=true does",
}


def box_findings(
    part: str, table: AnnotationTable, of_other_size: NDArray[np.bool_] | None = None
) -> Iterator[Finding]:
    """What is wrong with the boxes of a part.

    Args:
        part: its name.
        table: of it, with its own classes.
        of_other_size: bool ``[I]``, images whose annotated size is known to be wrong, so that it tells nothing of their
            boxes; None where nothing is known.
    """
    yield from _unusable(part, table)
    if convention := convention_of(table):
        everything = np.flatnonzero(~table.raw_crowd)
        yield _of_convention(part, table, convention, everything)
        return  # which makes nonsense of all that follows
    shares, corners = boxes_in_shares(table), boxes_as_corners(table)
    for convention, which in (("shares", shares), ("corners", corners & ~shares)):
        if which.any():
            yield _of_convention(part, table, convention, np.flatnonzero(which))
    usual = ~(shares | corners | table.raw_crowd)
    if of_other_size is not None:
        usual &= ~of_other_size[table.raw_images]
    yield from _of_places(part, table, usual)
    pairs = same_places(table)
    yield from _doubled(part, table, pairs)
    yield from _contradictory(part, table, pairs)


def no_area(table: AnnotationTable) -> NDArray[np.bool_]:
    """Which boxes ``[M]`` are less than a pixel wide or high, crowd regions aside."""
    return np.asarray(~table.raw_crowd & (table.raw_boxes[:, 2:] < _LEAST_SIDE).any(axis=1))


def outside(table: AnnotationTable) -> NDArray[np.bool_]:
    """Which boxes ``[M]`` of some area lie outside of their images, crowd regions aside."""
    return ~table.raw_crowd & ~no_area(table) & (_visible(table) <= 0).any(axis=1)


def reaching_out(table: AnnotationTable) -> NDArray[np.bool_]:
    """Which boxes ``[M]`` reach out of their images by more than rounding, and are not outside altogether."""
    low, high = table.raw_boxes[:, :2], table.raw_boxes[:, :2] + table.raw_boxes[:, 2:]
    sizes = sizes_of(table).astype(np.float64)
    slack = np.maximum(_REACH, _REACH_SHARE * sizes)
    reaching = (low < -slack).any(axis=1) | (high > sizes + slack).any(axis=1)
    return ~table.raw_crowd & ~no_area(table) & reaching & (_visible(table) > 0).all(axis=1)


def _visible(table: AnnotationTable) -> NDArray[np.float64]:
    """Width and height ``[M, 2]`` of what lies within the image; not above 0 where nothing does."""
    low, high = table.raw_boxes[:, :2], table.raw_boxes[:, :2] + table.raw_boxes[:, 2:]
    return np.asarray(np.minimum(high, sizes_of(table)) - low.clip(min=0))


def _unusable(part: str, table: AnnotationTable) -> Iterator[Finding]:
    """Annotations that the reader could not use at all: of unknown images or classes, or without four numbers."""
    left_out = [each for each in table.problems if not each.reason.endswith(NO_AREA) and OUTSIDE not in each.reason]
    if left_out:
        yield Finding(
            "unusable_annotations",
            "warning",
            part,
            len(left_out),
            len(left_out) + len(table.raw_boxes),
            "boxes",
            f"{counted(len(left_out), 'annotation')} of no use, such as one of {left_out[0]}",
            "training leaves them out; correct or remove them in the labels; fix=true leaves them out",
            notes=[str(each) for each in left_out],
            mended_by_fix=True,
        )
    if table.reader_notes:
        yield Finding(
            "reader_notes",
            "note",
            part,
            len(table.reader_notes),
            len(table.raw_boxes),
            "labels",
            f"while the labels were read: {'; '.join(table.reader_notes[:2])}",
            "correct the labels, if that is not what was meant",
            notes=table.reader_notes,
        )


def _of_convention(part: str, table: AnnotationTable, meant: Convention, which: NDArray[np.int64]) -> Finding:
    everything = int((~table.raw_crowd).sum())
    how_many = "all boxes" if len(which) == everything else f"{len(which)} of {everything} boxes"
    return Finding(
        f"boxes_as_{meant}",
        "error",
        part,
        len(which),
        everything,
        "boxes",
        f"{how_many} {_MEANT[meant]}",
        _WAYS_OUT[meant],
        images=table.raw_images[which],
        boxes=which,
        mended_by_fix=True,
    )


def _of_places(part: str, table: AnnotationTable, usual: NDArray[np.bool_]) -> Iterator[Finding]:
    """Boxes of no area, outside, and reaching out, of those that are meant as usual."""
    left_out = "training leaves them out; draw them again, or fix=true removes them"
    cut = "training cuts them at the border, evaluation does not; fix=true cuts them. Many: are the sizes right?"
    for check, found, what, way_out in (
        ("no_area", no_area(table), "of no width or height, or less than a pixel", left_out),
        ("outside", outside(table), "outside of their image", left_out),
        ("reaching_out", reaching_out(table), "reaching out of their image", cut),
    ):
        if len(which := np.flatnonzero(found & usual)):
            first = table.file_names[table.raw_images[which[0]]]
            message = f"{counted(len(which), 'box')} {what}, such as one in '{first}'"
            yield _of_boxes(check, part, table, which, message, way_out)


def _doubled(part: str, table: AnnotationTable, pairs: SamePlaces) -> Iterator[Finding]:
    alike = table.raw_labels[pairs.one] == table.raw_labels[pairs.other]
    which, first = np.unique(pairs.other[alike], return_index=True)
    if len(which):
        yield _of_boxes(
            "doubled_boxes",
            part,
            table,
            which,
            f"{counted(len(which), 'box')} in the place of another one of the same class",
            "the model is taught to find them twice; fix=true keeps the first of them",
            beside=pairs.one[alike][first],
        )


def _contradictory(part: str, table: AnnotationTable, pairs: SamePlaces) -> Iterator[Finding]:
    labels = np.stack([table.raw_labels[pairs.one], table.raw_labels[pairs.other]], axis=1)
    which = np.flatnonzero(labels[:, 0] != labels[:, 1])
    if not len(which):
        return
    kinds, counts = np.unique(np.sort(labels[which], axis=1), axis=0, return_counts=True)
    names = table.class_names
    named = [f"{names[a]} and {names[b]}" for a, b in kinds[np.argsort(-counts, kind="stable")].tolist()]
    yield _of_boxes(
        "contradictory_boxes",
        part,
        table,
        pairs.other[which],
        f"{counted(len(which), 'pair')} of boxes in the same place but of two classes: {quoted_names(named, 3)}",
        "decide on one class; where classes contain each other, as in OpenImages, all is well",
        beside=pairs.one[which],
        fixable=False,
    )


def _of_boxes(
    check: str,
    part: str,
    table: AnnotationTable,
    which: NDArray[np.int64],
    message: str,
    remedy: str,
    beside: NDArray[np.int64] | None = None,
    fixable: bool = True,
) -> Finding:
    return Finding(
        check,
        "warning",
        part,
        len(which),
        int((~table.raw_crowd).sum()),
        "boxes",
        message,
        remedy,
        images=table.raw_images[which],
        boxes=which,
        beside_boxes=np.empty(0, dtype=np.int64) if beside is None else beside,
        mended_by_fix=fixable,
    )
