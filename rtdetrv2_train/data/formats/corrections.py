"""The labels of a set beside what they are suggested to become, ready to be written for a tool of annotation."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.formats.writers import upright
from rtdetrv2_train.suggestion import Suggestion

logger = logging.getLogger(__name__)

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Region:
    """A box of an image.

    Attributes:
        label: name of the class.
        box: left, top, right, bottom in pixels, within the image.
        note: what is suspicious about it; empty for nothing.
        suspicion: of the suggestion; 0 for none.
    """

    label: str
    box: Box
    note: str = ""
    suspicion: float = 0.0


@dataclass(frozen=True)
class ReviewedImage:
    """An image to be looked at.

    Attributes:
        index: position in the annotation table.
        name: of its file, relative to the folder of images.
        height: pixels, of the image as it is seen.
        width: the same.
        labels: the set's own boxes, with notes.
        added: boxes that are suggested beside them.
        proposed: all boxes as they would be if every suggestion were right.
    """

    index: int
    name: str
    height: int
    width: int
    labels: list[Region] = field(default_factory=list)
    added: list[Region] = field(default_factory=list)
    proposed: list[Region] = field(default_factory=list)

    @property
    def suspicion(self) -> float:
        """The highest of its regions'."""
        return max((region.suspicion for region in (*self.labels, *self.added)), default=0.0)


def reviewed_images(table: AnnotationTable, suggestions: Sequence[Suggestion]) -> list[ReviewedImage]:
    """All images of a set with their boxes and suggestions, in the order of the table.

    Boxes are cut at the border of their image and turned as its EXIF says, as tools show images. Crowd regions and
    broken boxes are left out, which the log says: these tools have no form for them.

    Args:
        table: the set.
        suggestions: about it, with boxes in the same pixels.
    """
    own = len(table.raw_images)
    turned = upright(_with_found_boxes(table, suggestions))
    images = [ReviewedImage(i, name, *turned.size(i)) for i, name in enumerate(turned.file_names.tolist())]
    corners = _within_images(turned)
    seen = (corners[:, 2:] > corners[:, :2]).all(axis=1) & ~turned.raw_crowd
    if left_out := int((~seen[:own]).sum()):
        logger.warning("%d crowd regions and broken boxes are left out, for which the tool has no form", left_out)
    found = {place: own + row for row, place in enumerate(_with_found(suggestions))}
    about = {it.annotation: place for place, it in enumerate(suggestions) if it.annotation is not None}
    for row in np.flatnonzero(seen[:own]).tolist():
        image = images[turned.raw_images[row]]
        region = Region(turned.class_names[turned.raw_labels[row]], _as_box(corners[row]))
        place = about.get(row)
        if place is None:
            image.labels.append(region)
            image.proposed.append(region)
            continue
        region = replace(region, note=str(suggestions[place]), suspicion=suggestions[place].suspicion)
        image.labels.append(region)
        better = _as_box(corners[found[place]]) if place in found else region.box
        image.proposed.extend(_corrected(region, suggestions[place], better))
    for place, row in found.items():
        if suggestions[place].kind == "missing box" and seen[row]:
            label, note = str(suggestions[place].found_class), str(suggestions[place])
            image = images[turned.raw_images[row]]
            image.added.append(Region(label, _as_box(corners[row]), note, suggestions[place].suspicion))
            image.proposed.append(image.added[-1])
    return images


def by_suspicion(images: Sequence[ReviewedImage]) -> list[ReviewedImage]:
    """The images with the most suspicious ones first."""
    return sorted(images, key=lambda image: -image.suspicion)


def _corrected(region: Region, suggestion: Suggestion, better: Box) -> list[Region]:
    """What becomes of a label if the suggestion is right."""
    if suggestion.kind == "no object":
        return []
    if suggestion.kind == "wrong class":
        return [replace(region, label=str(suggestion.found_class))]
    return [replace(region, box=better)]


def _with_found(suggestions: Sequence[Suggestion]) -> list[int]:
    """Places of the suggestions with a detection."""
    return [place for place, suggestion in enumerate(suggestions) if suggestion.found_box is not None]


def _with_found_boxes(table: AnnotationTable, suggestions: Sequence[Suggestion]) -> AnnotationTable:
    """The table with the boxes of detections after its own, so that all become upright together."""
    found = [suggestions[place] for place in _with_found(suggestions)]
    positions = {image_id: index for index, image_id in enumerate(table.image_ids.tolist())}
    images = np.array([positions[suggestion.image_id] for suggestion in found], dtype=np.int64)
    boxes = np.array([suggestion.found_box for suggestion in found], dtype=np.float64).reshape(-1, 4)
    return replace(
        table,
        index=None,
        raw_images=np.concatenate([table.raw_images, images]),
        raw_labels=np.concatenate([table.raw_labels, np.zeros(len(found), dtype=np.int64)]),
        raw_boxes=np.concatenate([table.raw_boxes, boxes]),
        raw_areas=np.concatenate([table.raw_areas, boxes[:, 2:].prod(axis=1)]),
        raw_crowd=np.concatenate([table.raw_crowd, np.zeros(len(found), dtype=bool)]),
    )


def _within_images(table: AnnotationTable) -> NDArray[np.float64]:
    """Corners of all boxes, cut at the border of their image, ``[M, 4]``."""
    sizes = np.stack([table.widths, table.heights], axis=1)[table.raw_images].astype(np.float64)
    low, high = table.raw_boxes[:, :2], table.raw_boxes[:, :2] + table.raw_boxes[:, 2:]
    return np.concatenate([low.clip(0, sizes), high.clip(0, sizes)], axis=1)


def _as_box(corners: NDArray[np.float64]) -> Box:
    left, top, right, bottom = corners.tolist()
    return left, top, right, bottom
