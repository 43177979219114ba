"""From the entries of an annotation file, one at a time, to the annotation table."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rtdetrv2_train.data.annotations import AnnotationProblem, AnnotationTable
from rtdetrv2_train.data.images.sizes import UNREADABLE
from rtdetrv2_train.errors import UserError

NO_AREA, OUTSIDE = "has no width or no height", "lies outside the image"
"""What is said of boxes that are left out, though the table has them as they are in the file."""

# Stands in the array of ids for an annotation without one.
_NO_ID = -(2**63)


class TableBuilder:
    """Takes images, then annotations, and makes the table.

    Numbers go straight into arrays: a million annotations as Python objects would take a gigabyte.

    Args:
        annotation_file: the file that is being read.
        image_folder: folder that the names of images are relative to.
        categories: id and name of each category.
    """

    def __init__(self, annotation_file: Path, image_folder: Path, categories: Mapping[int, str]) -> None:
        self.annotation_file = annotation_file
        self.image_folder = image_folder
        self.categories = dict(sorted(categories.items()))
        self.repeated_images = 0
        self._labels = {category_id: label for label, category_id in enumerate(self.categories)}
        self._positions: dict[int, int] = {}
        self._names: list[str] = []
        self._image_ids = array("q")
        self._sizes = array("q")
        self._problems: list[AnnotationProblem] = []
        self._unreadable: dict[int, str] = {}
        self._ids, self._images, self._raw_labels, self._crowd = array("q"), array("q"), array("q"), array("b")
        self._boxes, self._areas = array("d"), array("d")

    def add_image(self, image_id: int, file_name: str, height: int, width: int) -> None:
        """Add an image; one that is the same as an earlier one counts once.

        An image whose size is `UNREADABLE` is left out, with its annotations.

        Args:
            image_id: its id, of 64 bits.
            file_name: relative to the folder of images.
            height: in pixels.
            width: in pixels.

        Raises:
            UserError: if another image has the same id.
        """
        if (height, width) == UNREADABLE:
            self._unreadable[image_id] = file_name
            return
        first = self._positions.setdefault(image_id, len(self._names))
        if first < len(self._names):
            if (self._names[first], *self._sizes[2 * first : 2 * first + 2]) == (file_name, height, width):
                self.repeated_images += 1
                return
            raise UserError(
                f"image id {image_id} of '{self.annotation_file}' stands for both '{self._names[first]}' and "
                f"'{file_name}': give every image its own id"
            )
        self._names.append(file_name)
        self._image_ids.append(image_id)
        self._sizes.extend((height, width))

    def add_other_id(self, image_id: int, of: int) -> None:
        """Let annotations of one id belong to an image that was added under another."""
        if of in self._unreadable:
            self._unreadable[image_id] = self._unreadable[of]
        else:
            self._positions[image_id] = self._positions[of]

    def add_annotation(
        self,
        image_id: int,
        category_id: int,
        box: Sequence[float],
        annotation_id: int | None = None,
        area: float | None = None,
        crowd: bool = False,
    ) -> None:
        """Add an annotation of an image that has been added before.

        Args:
            image_id: id of the image; an unknown one is a problem.
            category_id: id of the category; an unknown one is a problem.
            box: four finite numbers, xywh in pixels.
            annotation_id: id in the file, for messages.
            area: in square pixels; None, NaN or Inf: that of the box.
            crowd: whether this is a crowd region.
        """
        position, label = self._positions.get(image_id), self._labels.get(category_id)
        if position is None or label is None:
            unknown = f"image_id {image_id}" if position is None else f"category_id {category_id}"
            if not crowd:  # of unreadable images there is no problem either
                self.add_problem(image_id, annotation_id, f"unknown {unknown}")
            return
        self._ids.append(_NO_ID if annotation_id is None else annotation_id)
        self._images.append(position)
        self._raw_labels.append(label)
        self._boxes.extend(box)
        self._areas.append(box[2] * box[3] if area is None or not math.isfinite(area) else area)
        self._crowd.append(crowd)

    def add_problem(self, image_id: int | None, annotation_id: int | None, reason: str) -> None:
        """Note an annotation that is left out."""
        if image_id in self._unreadable:
            return
        position = None if image_id is None else self._positions.get(image_id)
        file_name = "" if position is None else self._names[position]
        self._problems.append(AnnotationProblem(file_name, annotation_id, reason))

    def table(self) -> AnnotationTable:
        """The table of everything that was added.

        Raises:
            UserError: if no image can be read.
        """
        unreadable = tuple(dict.fromkeys(self._unreadable.values()))
        if unreadable and not self._names:
            raise UserError(
                f"none of the {len(unreadable)} images of '{self.annotation_file}' can be read, the first is "
                f"'{unreadable[0]}': put images that can be read into '{self.image_folder}'"
            )
        sizes = np.array(self._sizes, dtype=np.int64).reshape(-1, 2)
        images, labels = np.array(self._images, dtype=np.int64), np.array(self._raw_labels, dtype=np.int64)
        raw_boxes = np.array(self._boxes, dtype=np.float64).reshape(-1, 4)
        crowd = np.array(self._crowd, dtype=bool)
        corners = np.concatenate([raw_boxes[:, :2], raw_boxes[:, :2] + raw_boxes[:, 2:]], axis=1)
        boxes = np.clip(corners, 0, np.tile(sizes[images, ::-1], 2).astype(np.float64)).astype(np.float32)
        empty = ~crowd & (raw_boxes[:, 2:] <= 0).any(axis=1)
        outside = ~crowd & ~empty & (boxes[:, 2:] <= boxes[:, :2]).any(axis=1)
        kept = np.flatnonzero(~(crowd | empty | outside))
        kept = kept[np.argsort(images[kept], kind="stable")]
        problems = [self._problem(place, NO_AREA) for place in np.flatnonzero(empty).tolist()]
        for place in np.flatnonzero(outside).tolist():
            height, width = sizes[images[place]]
            problems.append(self._problem(place, f"{OUTSIDE} ({width} x {height})"))
        return AnnotationTable(
            annotation_file=self.annotation_file,
            image_folder=self.image_folder,
            category_ids=tuple(self.categories),
            class_names=tuple(self.categories.values()),
            problems=(*self._problems, *problems),
            image_ids=np.array(self._image_ids, dtype=np.int64),
            file_names=np.array(self._names, dtype=np.str_),
            heights=sizes[:, 0].copy(),
            widths=sizes[:, 1].copy(),
            offsets=np.concatenate([[0], np.cumsum(np.bincount(images[kept], minlength=len(sizes)))]),
            boxes=boxes[kept],
            labels=labels[kept],
            raw_images=images,
            raw_labels=labels,
            raw_boxes=raw_boxes,
            raw_areas=np.array(self._areas, dtype=np.float64),
            raw_crowd=crowd,
            unreadable=unreadable,
        )

    def _problem(self, place: int, fault: str) -> AnnotationProblem:
        """What is wrong with the box of an annotation that was added."""
        box = [float(f"{side:g}") for side in self._boxes[4 * place : 4 * place + 4]]
        annotation_id = self._ids[place]
        return AnnotationProblem(
            self._names[self._images[place]],
            None if annotation_id == _NO_ID else annotation_id,
            f"bbox {box} {fault}",
        )
