"""The annotation table: all of a detection data set's annotations as flat arrays, whatever format they come from.

Arrays instead of Python objects: workers share the memory of the process that forked them only until they touch an
object, and reading one already changes its reference count. The arrays are mapped from the index of the annotation
file, so that unrelated processes share them too.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.classes import Classes, match_classes
from rtdetrv2_train.data.array_folder import ArrayFolder
from rtdetrv2_train.data.images.decode import Reading, StoredImage
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.ground_truth import GroundTruth

logger = logging.getLogger(__name__)

_MOST_NAMED = 5
_AS_ANNOTATED = Reading("auto")


@dataclass(frozen=True)
class AnnotationProblem:
    """A box that cannot be trained on.

    Attributes:
        file_name: image that the box belongs to, as the annotation file names it; empty for an unknown image.
        annotation_id: id in the annotation file, None where it has none.
        reason: what is wrong with the box.
    """

    file_name: str
    annotation_id: int | None
    reason: str

    def __str__(self) -> str:
        return f"{self.file_name or 'no image'}, annotation {self.annotation_id}: {self.reason}"


@dataclass(frozen=True)
class AnnotationTable:
    """One annotation file: I images, C classes, N boxes to train on, M annotations to evaluate on.

    Attributes:
        annotation_file: the file that this was read from.
        image_folder: folder that ``file_names`` are relative to.
        category_ids: the file's id of every label, ascending.
        class_names: the name of every label.
        problems: the boxes left out of training, and why.
        image_ids: int64 ``[I]``.
        file_names: str ``[I]``.
        heights: int64 ``[I]``, pixels, as the file says; of the turned image where EXIF is applied.
        widths: int64 ``[I]``, the same.
        offsets: int64 ``[I + 1]``; the boxes of image i are ``boxes[offsets[i]:offsets[i + 1]]``.
        boxes: float32 ``[N, 4]``, xyxy pixels, clipped to the image; without crowd regions and broken boxes.
        labels: int64 ``[N]``, contiguous from 0.
        raw_images: int64 ``[M]``, position of the image, in the order of the file.
        raw_labels: int64 ``[M]``.
        raw_boxes: float64 ``[M, 4]``, xywh pixels, as in the file.
        raw_areas: float64 ``[M]``, square pixels.
        raw_crowd: bool ``[M]``, whether the annotation is a crowd region.
        index: the folder that the arrays are mapped from; None where they are in memory.
        reading: how image files are read.
        unreadable: names of the images that could not be read, and are left out with their boxes.
        reader_notes: what was said of the labels as they were read: what is left out, or counts once.
    """

    annotation_file: Path
    image_folder: Path
    category_ids: tuple[int, ...]
    class_names: tuple[str, ...]
    problems: tuple[AnnotationProblem, ...]
    image_ids: NDArray[np.int64]
    file_names: NDArray[np.str_]
    heights: NDArray[np.int64]
    widths: NDArray[np.int64]
    offsets: NDArray[np.int64]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    raw_images: NDArray[np.int64]
    raw_labels: NDArray[np.int64]
    raw_boxes: NDArray[np.float64]
    raw_areas: NDArray[np.float64]
    raw_crowd: NDArray[np.bool_]
    index: ArrayFolder | None = None
    reading: Reading = _AS_ANNOTATED
    unreadable: tuple[str, ...] = ()
    reader_notes: tuple[str, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which opens the index itself: everything but the arrays that lie there."""
        arrays = self.index.arrays if self.index else {}
        return {name: value for name, value in vars(self).items() if arrays.get(name, self) is not value}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update({**(state["index"].arrays if state["index"] else {}), **state})

    def __len__(self) -> int:
        """Number of images."""
        return len(self.image_ids)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.category_ids)

    def targets(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Boxes ``[n, 4]`` (xyxy pixels) and labels ``[n]`` to train image number ``index`` on."""
        of_image = slice(self.offsets[index], self.offsets[index + 1])
        return self.boxes[of_image].copy(), self.labels[of_image].copy()

    def path(self, index: int) -> Path:
        """File of image number ``index``."""
        return self.image_folder / str(self.file_names[index])

    @property
    def classes(self) -> Classes:
        """The classes of the file."""
        return Classes(self.class_names, self.category_ids, str(self.annotation_file))

    def size(self, index: int) -> tuple[int, int]:
        """Annotated (height, width) of image number ``index``."""
        return int(self.heights[index]), int(self.widths[index])

    def image(self, index: int) -> StoredImage:
        """Image number ``index`` as it was annotated, turned where EXIF counts.

        Raises:
            UnreadableImageError: if the file is missing or damaged.
        """
        return StoredImage.read(self.path(index), self.reading, self.size(index))

    def subset(self, images: NDArray[np.int64]) -> AnnotationTable:
        """The table of some of the images.

        Args:
            images: their positions, ascending.
        """
        position = np.full(len(self), -1)
        position[images] = np.arange(len(images))
        counts = np.diff(self.offsets)
        boxes, raw = (position >= 0).repeat(counts), position[self.raw_images] >= 0
        return replace(
            self,
            image_ids=self.image_ids[images],
            file_names=self.file_names[images],
            heights=self.heights[images],
            widths=self.widths[images],
            offsets=np.concatenate([[0], np.cumsum(counts[images])]),
            boxes=self.boxes[boxes],
            labels=self.labels[boxes],
            raw_images=position[self.raw_images[raw]],
            raw_labels=self.raw_labels[raw],
            raw_boxes=self.raw_boxes[raw],
            raw_areas=self.raw_areas[raw],
            raw_crowd=self.raw_crowd[raw],
            index=None,
        )

    def relabelled(self, classes: Classes) -> AnnotationTable:
        """The same annotations with other classes and their labels, matched by name.

        Annotations of classes that are not among them are left out, with a warning: a model of those classes could
        never find them.

        Args:
            classes: those that count, usually of the annotations trained on or of a model.

        Raises:
            UserError: if no class is among them, or it is not clear which is which.
        """
        if (self.category_ids, self.class_names) == (classes.ids, classes.names):
            return self
        matched = match_classes(self.class_names, classes.names)
        unknown = [label for label, found in enumerate(matched) if found is None]
        if unknown and len(unknown) == self.num_classes:
            raise UserError(
                f"'{self.annotation_file}' and '{classes.source}' have no class in common: "
                f"{self.classes.listed(unknown)} here, {classes.listed(range(len(classes.names)))} there; "
                "give both the same names"
            )
        if unknown:
            logger.warning(
                "'%s' has classes that '%s' lacks; their annotations are left out: %s",
                self.annotation_file,
                classes.source,
                self.classes.listed(unknown),
            )
        new_labels = np.array([-1 if found is None else found for found in matched], dtype=np.int64)
        labels, raw_labels = new_labels[self.labels], new_labels[self.raw_labels]
        kept, raw_kept = labels >= 0, raw_labels >= 0
        return replace(
            self,
            category_ids=classes.ids,
            class_names=classes.names,
            offsets=np.concatenate([[0], np.cumsum(kept)])[self.offsets],
            boxes=self.boxes[kept],
            labels=labels[kept],
            raw_images=self.raw_images[raw_kept],
            raw_labels=raw_labels[raw_kept],
            raw_boxes=self.raw_boxes[raw_kept],
            raw_areas=self.raw_areas[raw_kept],
            raw_crowd=self.raw_crowd[raw_kept],
        )

    def ground_truth(self) -> GroundTruth:
        """What detections are evaluated against.

        Boxes are as in the file: not clipped, with crowd regions and broken boxes. Metrics therefore equal those
        computed from the file itself. Left out are only annotations that cannot be read, and those of unknown images
        or categories. Where no box at all could be found by a detector, there is nothing to measure on.
        """
        usable = slice(None if len(self.boxes) else 0)
        order = np.argsort(self.image_ids)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        return GroundTruth(
            image_ids=self.image_ids[order],
            category_ids=self.category_ids,
            class_names=self.class_names,
            images=rank[self.raw_images[usable]],
            classes=self.raw_labels[usable],
            boxes=self.raw_boxes[usable],
            areas=self.raw_areas[usable],
            crowd=self.raw_crowd[usable],
        )

    def log_summary(self) -> None:
        """Log how much there is, and warn of images and boxes that are left out."""
        unused = np.flatnonzero(np.bincount(self.labels, minlength=self.num_classes) == 0).tolist()
        named = ", ".join(f"'{self.class_names[label]}'" for label in unused[:_MOST_NAMED])
        logger.info(
            "'%s': %d images (%d without a box), %d boxes, %d classes%s",
            self.annotation_file,
            len(self),
            int((np.diff(self.offsets) == 0).sum()),
            len(self.boxes),
            self.num_classes,
            f" ({len(unused)} without a box: {named}{', ...' * (len(unused) > _MOST_NAMED)})" if unused else "",
        )
        if self.unreadable:
            logger.warning(
                "'%s': %d of %d images are missing or cannot be read, and are left out with their boxes; the first is "
                "'%s'",
                self.annotation_file,
                len(self.unreadable),
                len(self) + len(self.unreadable),
                self.unreadable[0],
            )
        if self.problems:
            more = len(self.problems) - _MOST_NAMED
            logger.warning(
                "'%s': %d broken boxes are left out of training: %s%s",
                self.annotation_file,
                len(self.problems),
                "; ".join(map(str, self.problems[:_MOST_NAMED])),
                f"; and {more} more" if more > 0 else "",
            )
