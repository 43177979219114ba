"""Objects too small or too many for the model, and images without any."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.inspection.conventions import boxes_in_shares, convention_of
from rtdetrv2_train.data.inspection.findings import Finding, counted
from rtdetrv2_train.data.inspection.object_sizes import STRIDES, sample_of_boxes, sides_at, size_advice

_MANY_UNSEEN = 0.01  # of the images with objects
_MOST_EMPTY = 0.5


def size_findings(part: str, table: AnnotationTable, image_size: Sequence[int], most_boxes: int) -> Iterator[Finding]:
    """What a model of an input size cannot see in a part.

    Args:
        part: its name.
        table: of it.
        image_size: (height, width) of the input in pixels.
        most_boxes: that the model can find in an image.
    """
    if not convention_of(table):
        yield from _small(part, table, image_size)
        yield from _unseen(part, table, image_size)
    counts = np.diff(table.offsets)
    if len(crowded := np.flatnonzero(counts > most_boxes)):
        yield Finding(
            "crowded_images",
            "warning",
            part,
            len(crowded),
            len(table),
            "images",
            f"{counted(len(crowded), 'image')} with up to {counts.max()} boxes, of which the model finds {most_boxes}",
            f"model.architecture.decoder.num_queries={-(-int(counts.max()) // 100) * 100}, or tiles of the images",
            images=crowded,
        )
    if len(empty := np.flatnonzero(counts == 0)):
        share = len(empty) / len(table)
        yield Finding(
            "images_without_boxes",
            "warning" if share > _MOST_EMPTY else "note",
            part,
            len(empty),
            len(table),
            "images",
            f"{counted(len(empty), 'image')} of {len(table):,} ({share:.0%}) without a box",
            "they teach what is no object; where objects were forgotten, annotate them or take the images out",
            images=empty,
        )


def _small(part: str, table: AnnotationTable, image_size: Sequence[int]) -> Iterator[Finding]:
    if advice := size_advice(table, image_size):
        kept = sample_of_boxes(table)
        small = kept[sides_at(table, image_size, kept) < STRIDES[0]]
        yield Finding(
            "small_boxes",
            "warning",
            part,
            len(small),
            len(kept),
            "boxes",
            advice,
            "a larger model.image_size, or tiles: see the recommendations",
            images=table.raw_images[small],
            boxes=small,
        )


def _unseen(part: str, table: AnnotationTable, image_size: Sequence[int]) -> Iterator[Finding]:
    """Images of which no object is large enough, though there are some."""
    usual = ~table.raw_crowd & (table.raw_boxes[:, 2:] > 0).all(axis=1) & ~boxes_in_shares(table)
    kept = np.flatnonzero(usual)
    largest = np.full(len(table), -1.0)
    np.maximum.at(largest, table.raw_images[kept], sides_at(table, image_size, kept))
    unseen = np.flatnonzero((largest >= 0) & (largest < STRIDES[0]))
    if not len(unseen):
        return
    with_objects = int((largest >= 0).sum())
    height, width = image_size
    size = f"{STRIDES[0]} x {STRIDES[0]} pixels at {height} x {width}"
    yield Finding(
        "unseen_images",
        "warning" if len(unseen) > _MANY_UNSEEN * with_objects else "note",
        part,
        len(unseen),
        with_objects,
        "images",
        f"{counted(len(unseen), 'image')} without an object of {size}",
        "the model can hardly find anything there: a larger model.image_size, or tiles",
        images=unseen,
    )
