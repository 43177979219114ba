"""The annotations of a detection data set, read once from a COCO file into flat arrays.

Flat arrays instead of dictionaries, because data loader workers share the memory of the process that forked them only
as long as nothing touches it, and looking at a Python object already does. The arrays are mapped from the file's index,
so that processes that have nothing to do with each other share them too.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.data.columns import ColumnFile
from rtdetrv2_train.data.formats.coco import NO_ID, AnnotationProblem, CocoContent, read_coco_file
from rtdetrv2_train.data.index import SIZES_FROM, Content, open_index
from rtdetrv2_train.errors import UserError

logger = logging.getLogger(__name__)

_PROBLEMS_NAMED = 5


@dataclass(frozen=True)
class CocoAnnotations:
    """All of one annotation file: I images, M annotations as they stand in the file, N boxes to train on, C classes.

    Attributes:
        annotation_file: the file this was read from.
        image_folder: folder that ``file_names`` are relative to.
        image_ids: int64 ``[I]``.
        file_names: str ``[I]``.
        heights: int64 ``[I]``, pixels, as the file says.
        widths: int64 ``[I]``, pixels, as the file says.
        category_ids: the file's id of every label, ascending.
        class_names: the name of every label.
        offsets: int64 ``[I + 1]``; the boxes of image i are ``boxes[offsets[i]:offsets[i + 1]]``.
        boxes: float32 ``[N, 4]``, xyxy pixels, clipped to the image; no crowd region and no broken box among them.
        labels: int64 ``[N]``, contiguous from 0.
        raw_ids: int64 ``[M]``, annotation ids, unique and at least 1.
        raw_image_ids: int64 ``[M]``.
        raw_category_ids: int64 ``[M]``.
        raw_boxes: float64 ``[M, 4]``, xywh pixels, unchanged.
        raw_areas: float64 ``[M]``, square pixels.
        raw_crowd: int64 ``[M]``, the file's ``iscrowd``.
        problems: the boxes left out of training, and why.
        index: the file that the arrays are mapped from; None where they are in memory.
    """

    annotation_file: Path
    image_folder: Path
    image_ids: NDArray[np.int64]
    file_names: NDArray[np.str_]
    heights: NDArray[np.int64]
    widths: NDArray[np.int64]
    category_ids: tuple[int, ...]
    class_names: tuple[str, ...]
    offsets: NDArray[np.int64]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    raw_ids: NDArray[np.int64]
    raw_image_ids: NDArray[np.int64]
    raw_category_ids: NDArray[np.int64]
    raw_boxes: NDArray[np.float64]
    raw_areas: NDArray[np.float64]
    raw_crowd: NDArray[np.int64]
    problems: tuple[AnnotationProblem, ...]
    index: ColumnFile | None = None

    @classmethod
    def load(cls, annotation_file: Path, image_folder: Path) -> CocoAnnotations:
        """Read a COCO annotation file; broken boxes are left out of the training targets and named in the log.

        Args:
            annotation_file: JSON file with ``images``, ``annotations`` and ``categories``.
            image_folder: folder that the ``file_name`` of the images is relative to.

        Raises:
            UserError: if the file is missing or is not a COCO annotation file.
        """
        annotation_file, image_folder = Path(annotation_file), Path(image_folder)
        try:
            index = open_index(annotation_file, image_folder, lambda: _indexed(annotation_file, image_folder))
        except OSError as error:
            raise UserError(f"the annotation file '{annotation_file}' cannot be read: {error.strerror}") from error
        facts, arrays = (index.facts, index.arrays) if isinstance(index, ColumnFile) else index
        annotations = cls(
            annotation_file=annotation_file,
            image_folder=image_folder,
            category_ids=tuple(facts["category_ids"]),
            class_names=tuple(facts["class_names"]),
            problems=tuple(AnnotationProblem(*problem) for problem in facts["problems"]),
            index=index if isinstance(index, ColumnFile) else None,
            **arrays,
        )
        annotations._log_summary()
        return annotations

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which opens the index itself: the names of arrays in place of what lies in it."""
        inside = {id(values): name for name, values in self.index.arrays.items()} if self.index else {}
        return {
            name: _InIndex(inside[id(value)]) if id(value) in inside else value for name, value in vars(self).items()
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        index = state["index"]
        for name, value in state.items():
            object.__setattr__(self, name, index.arrays[value.name] if isinstance(value, _InIndex) else value)

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

    def relabelled(self, reference: CocoAnnotations) -> CocoAnnotations:
        """The same annotations with the classes and labels of another file, matched by category id.

        Annotations of categories that the other file lacks are left out, with a warning: a model of those classes
        could never find them.

        Args:
            reference: annotations whose labels count, usually those trained on.

        Raises:
            UserError: if one category id has different names in the two files.
        """
        if self.category_ids == reference.category_ids and self.class_names == reference.class_names:
            return self
        names = dict(zip(reference.category_ids, reference.class_names, strict=True))
        for category_id, name in zip(self.category_ids, self.class_names, strict=True):
            if names.get(category_id, name) != name:
                raise UserError(
                    f"category {category_id} is '{name}' in '{self.annotation_file}' but '{names[category_id]}' in "
                    f"'{reference.annotation_file}': give both files the same categories"
                )
        unknown = [i for i in range(self.num_classes) if self.category_ids[i] not in names]
        if unknown:
            listed = ", ".join(f"'{self.class_names[i]}' (id {self.category_ids[i]})" for i in unknown)
            logger.warning(
                "'%s' has categories that '%s' lacks; their annotations are left out: %s",
                self.annotation_file,
                reference.annotation_file,
                listed,
            )
        own_ids = np.array(self.category_ids, dtype=np.int64)
        kept = np.isin(own_ids[self.labels], reference.category_ids)
        raw_kept = np.isin(self.raw_category_ids, reference.category_ids)
        return replace(
            self,
            category_ids=reference.category_ids,
            class_names=reference.class_names,
            offsets=np.concatenate([[0], np.cumsum(kept)])[self.offsets],
            boxes=self.boxes[kept],
            labels=np.searchsorted(np.array(reference.category_ids), own_ids[self.labels[kept]]).astype(np.int64),
            raw_ids=self.raw_ids[raw_kept],
            raw_image_ids=self.raw_image_ids[raw_kept],
            raw_category_ids=self.raw_category_ids[raw_kept],
            raw_boxes=self.raw_boxes[raw_kept],
            raw_areas=self.raw_areas[raw_kept],
            raw_crowd=self.raw_crowd[raw_kept],
        )

    def ground_truth(self) -> dict[str, Any]:
        """Everything that COCO's evaluation needs, as the dictionary that the annotation file held.

        Boxes are as in the file, un-clipped, crowd regions and broken boxes included, so that figures equal those
        computed from the file itself. Left out are only annotations that cannot be read at all.
        """
        return {
            "images": [
                {"id": image_id, "file_name": file_name, "height": height, "width": width}
                for image_id, file_name, height, width in zip(
                    self.image_ids.tolist(),
                    self.file_names.tolist(),
                    self.heights.tolist(),
                    self.widths.tolist(),
                    strict=True,
                )
            ],
            "annotations": [
                {
                    "id": annotation_id,
                    "image_id": image_id,
                    "category_id": category_id,
                    "bbox": box,
                    "area": area,
                    "iscrowd": crowd,
                }
                for annotation_id, image_id, category_id, box, area, crowd in zip(
                    self.raw_ids.tolist(),
                    self.raw_image_ids.tolist(),
                    self.raw_category_ids.tolist(),
                    self.raw_boxes.tolist(),
                    self.raw_areas.tolist(),
                    self.raw_crowd.tolist(),
                    strict=True,
                )
            ],
            "categories": [
                {"id": category_id, "name": name}
                for category_id, name in zip(self.category_ids, self.class_names, strict=True)
            ],
        }

    def _log_summary(self) -> None:
        without = int((np.diff(self.offsets) == 0).sum())
        logger.info(
            "'%s': %d images (%d without a box), %d boxes, %d classes",
            self.annotation_file,
            len(self),
            without,
            len(self.boxes),
            self.num_classes,
        )
        if self.problems:
            named = "; ".join(str(problem) for problem in self.problems[:_PROBLEMS_NAMED])
            more = f"; and {len(self.problems) - _PROBLEMS_NAMED} more" if len(self.problems) > _PROBLEMS_NAMED else ""
            logger.warning(
                "'%s': %d broken boxes are left out of training: %s%s",
                self.annotation_file,
                len(self.problems),
                named,
                more,
            )


@dataclass(frozen=True)
class _InIndex:
    """Stands for an array of the index."""

    name: str


def _indexed(annotation_file: Path, image_folder: Path) -> Content:
    """What the index of an annotation file holds."""
    content = read_coco_file(annotation_file, image_folder)
    boxes, labels, offsets, problems = _training_targets(content)
    facts = {
        "category_ids": content.category_ids,
        "class_names": content.class_names,
        SIZES_FROM: str(image_folder) if content.sizes_from_images else None,
        "problems": [(problem.file_name, problem.annotation_id, problem.reason) for problem in problems],
    }
    arrays = {
        "image_ids": content.image_ids,
        "file_names": content.file_names,
        "heights": content.heights,
        "widths": content.widths,
        "offsets": offsets,
        "boxes": boxes,
        "labels": labels,
        "raw_ids": content.ids,
        "raw_image_ids": content.box_image_ids,
        "raw_category_ids": content.box_category_ids,
        "raw_boxes": content.boxes,
        "raw_areas": content.areas,
        "raw_crowd": content.crowd,
    }
    return facts, arrays


def _training_targets(
    content: CocoContent,
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], list[AnnotationProblem]]:
    """Clipped boxes, labels and offsets by image, and what had to be left out."""
    order = np.argsort(content.image_ids, kind="stable")
    sorted_ids = content.image_ids[order]
    slots = np.minimum(np.searchsorted(sorted_ids, content.box_image_ids), len(sorted_ids) - 1)
    known_image = sorted_ids[slots] == content.box_image_ids
    images = np.where(known_image, order[slots], 0)

    categories = np.array(content.category_ids, dtype=np.int64)
    labels = np.minimum(np.searchsorted(categories, content.box_category_ids), len(categories) - 1)
    known_category = categories[labels] == content.box_category_ids

    xywh = content.boxes
    limits = np.stack([content.widths[images], content.heights[images]] * 2, axis=1).astype(np.float64)
    corners = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    corners = np.clip(corners, 0, limits).astype(np.float32)
    sides = corners[:, 2:] - corners[:, :2]

    def named(position: int, reason: str) -> AnnotationProblem:
        file_name = str(content.file_names[images[position]]) if known_image[position] else ""
        number = int(content.original_ids[position])
        return AnnotationProblem(file_name, None if number == NO_ID else number, reason)

    problems = list(content.unreadable)
    target = content.crowd == 0
    checks: tuple[tuple[Any, str], ...] = (
        (known_image, "unknown image_id {image}"),
        (known_category, "unknown category_id {category}"),
        ((xywh[:, 2:] > 0).all(axis=1), "bbox {box} has no width or no height"),
        ((sides > 0).all(axis=1), "bbox {box} lies outside the image ({width} x {height})"),
    )
    for passed, reason in checks:
        for position in np.flatnonzero(target & ~passed):
            text = reason.format(
                image=content.box_image_ids[position],
                category=content.box_category_ids[position],
                box=[float(f"{side:g}") for side in content.boxes[position]],
                width=content.widths[images[position]],
                height=content.heights[images[position]],
            )
            problems.append(named(int(position), text))
        target = target & passed

    kept = np.flatnonzero(target)
    kept = kept[np.argsort(images[kept], kind="stable")]
    counts = np.bincount(images[kept], minlength=len(content.image_ids))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return corners[kept], labels[kept].astype(np.int64), offsets, problems
