"""The same picture twice, within a part and in two of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.inspection.alike import Alike, Pictures, groups_of
from rtdetrv2_train.data.inspection.findings import Finding, Level, Parts, counted
from rtdetrv2_train.data.inspection.looks import Look

_ROUNDING = 0.01  # share of the image, by which boxes of copies may differ


def duplicate_findings(parts: Parts, looks: Mapping[str, Sequence[Look]]) -> Iterator[Finding]:
    """Copies and near-duplicates, within each part and between what is trained on and every other part.

    Args:
        parts: ``train``, and perhaps others.
        looks: at each image of each part.
    """
    pictures = Pictures([look for part in parts for look in looks[part]])
    alike = pictures.alike()
    starts = dict(zip(parts, np.cumsum([0, *(len(table) for table in parts.values())]).tolist(), strict=False))
    for part, table in parts.items():
        yield from _within(part, table, alike, starts[part])
        if part != "train":
            yield from _between(part, table, parts["train"], pictures, alike, starts)


def _within(part: str, table: AnnotationTable, alike: Alike, start: int) -> Iterator[Finding]:
    inside = (alike.one >= start) & (alike.other < start + len(table))
    own = Alike(alike.one[inside] - start, alike.other[inside] - start, alike.copies[inside])
    copies, first = _later_ones(groups_of(own, len(table), copies_only=True))
    if len(copies):
        differing = sum(
            not same_boxes(table, i, table, j) for i, j in zip(copies.tolist(), first.tolist(), strict=True)
        )
        yield _finding(
            "duplicates",
            "warning",
            part,
            table,
            copies,
            first,
            part,
            f"{counted(len(copies), 'image')} already here as another one, {differing} of them annotated differently",
            "keep one of each; fix=true keeps the first where the boxes are the same",
            fixable=differing < len(copies),
        )
    near, beside = _later_ones(groups_of(own, len(table)))
    new = ~np.isin(near, copies)
    if new.any():
        message = f"{counted(int(new.sum()), 'image')} nearly the same as another one here, such as frames of a video"
        remedy = "nothing within a part; frames of one video belong in the same part"
        yield _finding("near_duplicates", "note", part, table, near[new], beside[new], part, message, remedy)


def _between(
    part: str,
    table: AnnotationTable,
    train: AnnotationTable,
    pictures: Pictures,
    alike: Alike,
    starts: Mapping[str, int],
) -> Iterator[Finding]:
    own, others = (np.arange(len(t)) + starts[name] for name, t in ((part, table), ("train", train)))
    partners = pictures.partners(alike, own, others)
    for copy, check, what in (
        (True, "leaked_copies", "trained on, too"),
        (False, "leaked_near_duplicates", "nearly the same as one that is trained on"),
    ):
        found = [(image, other) for image, (other, is_copy) in partners.items() if is_copy == copy]
        if found:
            images, beside = np.array(found, dtype=np.int64).T
            yield _finding(
                check,
                "error",
                part,
                table,
                images - starts[part],
                beside - starts["train"],
                "train",
                f"{counted(len(found), 'image')} of {len(table):,} {what}: AP will be too high",
                "take them out of one part; fix=true takes them out of what is trained on"
                if copy
                else "keep such images in one part, whole videos and places: data.val.fraction splits so",
                fixable=copy,
            )


def same_boxes(table: AnnotationTable, image: int, other_table: AnnotationTable, other: int) -> bool:
    """Whether two images have the same boxes and classes, in shares of the image and but for rounding."""

    def rows(of: AnnotationTable, index: int) -> NDArray[np.float64]:
        boxes, labels = of.targets(index)
        height, width = of.size(index)
        found = np.column_stack([boxes / [width, height, width, height], labels])
        return np.asarray(found[np.lexsort(np.round(found, 2).T)])

    one, another = rows(table, image), rows(other_table, other)
    return len(one) == len(another) and bool(np.allclose(one, another, atol=_ROUNDING))


def _later_ones(groups: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Images that are not the first of their group, and the first ones."""
    _, first, of_group = np.unique(groups, return_index=True, return_inverse=True)
    firsts = first[of_group.ravel()]
    later = np.flatnonzero(firsts != np.arange(len(groups)))
    return later, firsts[later]


def _finding(
    check: str,
    level: Level,
    part: str,
    table: AnnotationTable,
    images: NDArray[np.int64],
    beside: NDArray[np.int64],
    other_part: str,
    message: str,
    remedy: str,
    fixable: bool = False,
) -> Finding:
    return Finding(
        check,
        level,
        part,
        len(images),
        len(table),
        "images",
        message,
        remedy,
        images=images,
        beside_images=beside,
        other_part=other_part,
        mended_by_fix=fixable,
    )
