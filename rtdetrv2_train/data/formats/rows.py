"""Boxes on their way to the table, for formats that name classes or sizes of images only as they are read."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.data.table_builder import TableBuilder


class Rows:
    """Takes boxes with the names of their labels. Annotations are numbered from 1 as they come."""

    def __init__(self) -> None:
        self.labels: dict[str, int] = {}
        """Every label, in the order in which it was first met."""
        self._images, self._labels, self._ids = array("q"), array("q"), array("q")
        self._boxes, self._areas, self._crowd = array("d"), array("d"), array("b")
        self._problems: list[tuple[int, int, str]] = []
        self._count = 0

    def add(
        self, image_id: int, label: str, box: Sequence[float], crowd: bool = False, area: float | None = None
    ) -> None:
        """Add a box.

        Args:
            image_id: of its image.
            label: its name.
            box: four finite numbers, in whatever form the format has.
            crowd: whether this is a crowd region.
            area: in square pixels; None: that of the box.
        """
        self._count += 1
        self._images.append(image_id)
        self._labels.append(self.labels.setdefault(label, len(self.labels)))
        self._ids.append(self._count)
        self._boxes.extend(box)
        self._areas.append(math.nan if area is None else area)
        self._crowd.append(crowd)

    def add_problem(self, image_id: int, reason: str) -> None:
        """Note a box that is left out."""
        self._count += 1
        self._problems.append((image_id, self._count, reason))

    def forget_areas(self) -> None:
        """Let every area be that of the box."""
        self._areas = array("d", [math.nan]) * len(self._areas)

    @property
    def boxes(self) -> NDArray[np.float64]:
        """The numbers of all boxes, float64 ``[N, 4]``."""
        return np.array(self._boxes, dtype=np.float64).reshape(-1, 4)

    @property
    def images(self) -> NDArray[np.int64]:
        """The id of the image of each box, int64 ``[N]``."""
        return np.array(self._images, dtype=np.int64)

    def fill(self, builder: TableBuilder, ids: Mapping[str, int], boxes: NDArray[np.float64] | None = None) -> None:
        """Add everything to a table that has the images.

        Args:
            builder: of the table.
            ids: category of each label; a label without one is a problem.
            boxes: float64 ``[N, 4]``, xywh in pixels; None where those added are that already.
        """
        names = list(self.labels)
        boxes = self.boxes if boxes is None else boxes
        rows = zip(self._images, self._labels, boxes.tolist(), self._ids, self._areas, self._crowd, strict=True)
        for image_id, label, box, annotation_id, area, crowd in rows:
            category = ids.get(names[label])
            if category is None:
                builder.add_problem(image_id, annotation_id, f"unknown label '{names[label]}'")
            else:
                builder.add_annotation(image_id, category, box, annotation_id, area, bool(crowd))
        for image_id, annotation_id, reason in self._problems:
            builder.add_problem(image_id, annotation_id, reason)


def numbered(names: Sequence[str]) -> dict[str, int]:
    """Categories for names, from 1 in their order."""
    return {name: number for number, name in enumerate(names, 1)}
