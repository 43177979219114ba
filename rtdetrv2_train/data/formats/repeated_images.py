"""Images that a COCO file lists under several ids, as Label Studio does for each annotator."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from rtdetrv2_train.data.formats.coco_entries import AnnotationEntry, ImageEntry

logger = logging.getLogger(__name__)

_SAME = 0.8  # IoU of boxes of one object by two annotators


class RepeatedImages:
    """The images that are listed more than once, and what was annotated on them.

    Args:
        images: all entries.
        annotation_file: for messages.
    """

    def __init__(self, images: Iterable[ImageEntry], annotation_file: Path) -> None:
        first: dict[str, int] = {}
        self.first_ids: dict[int, int] = {}
        for image in images:
            name = image.file_name
            name = os.path.normpath(name) if "./" in name else name  # ./a.jpg is a.jpg
            if (of := first.setdefault(name, image.id)) != image.id:
                self.first_ids[image.id] = of
        self._file = annotation_file
        self._seen: dict[tuple[int, int], list[AnnotationEntry]] = {}
        self._left_out = 0
        self._concerned = {*self.first_ids, *self.first_ids.values()}

    def is_double(self, row: AnnotationEntry) -> bool:
        """Whether a box was annotated before, under another id of the same image."""
        if row.image_id not in self._concerned:
            return False
        before = self._seen.setdefault((self.first_ids.get(row.image_id, row.image_id), row.category_id), [])
        double = any(_iou(row.bbox, other.bbox) >= _SAME for other in before if other.image_id != row.image_id)
        self._left_out += double
        if not double:
            before.append(row)
        return double

    def warn(self) -> None:
        """Say that there are such images."""
        if self.first_ids:
            logger.warning(
                "'%s' lists %d images again under another id, as Label Studio does for each annotator: each counts "
                "once, with the boxes of all but %d that are of the same object",
                self._file,
                len(self.first_ids),
                self._left_out,
            )


def _iou(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """IoU of two boxes, xywh."""
    corners = np.array([one, other], dtype=np.float64)
    corners[:, 2:] += corners[:, :2]
    sides = np.minimum(*corners[:, 2:]) - np.maximum(*corners[:, :2])
    shared = float(np.prod(np.clip(sides, 0, None)))
    areas = float(np.prod(corners[:, 2:] - corners[:, :2], axis=1).sum())
    return shared / (areas - shared) if areas > shared else 0.0
