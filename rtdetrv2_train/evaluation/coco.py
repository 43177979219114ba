"""COCO detection metrics of detections collected on one or many processes.

Bit for bit the numbers of pycocotools on the same boxes, with its traps removed: ids beyond 2^53 keep their last
digits, an annotation with id 0 can be matched, an evaluation without any detection works, and a box of NaN matches
nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.evaluation.analysis.boxes import EvaluatedBoxes
from rtdetrv2_train.evaluation.backends import AUTO, PrecisionRecall, backend_named
from rtdetrv2_train.evaluation.gather import gather_rows, is_distributed
from rtdetrv2_train.evaluation.metrics import NOTHING_TO_MEASURE, ClassMetrics, CocoMetrics
from rtdetrv2_train.types import Detections


@dataclass(frozen=True)
class _Collected:
    """Detections of M images, D in all, one image after the other; on the CPU.

    Attributes:
        image_ids: int64 ``[M]``, ids of the annotation file.
        counts: int64 ``[M]``, detections of each image.
        labels: int32 ``[D]``, class indices.
        boxes: float32 ``[D, 4]``, xyxy in pixels.
        scores: float32 ``[D]``.
    """

    image_ids: Tensor
    counts: Tensor
    labels: Tensor
    boxes: Tensor
    scores: Tensor

    @classmethod
    def concatenated(cls, parts: Sequence[_Collected]) -> _Collected:
        empty = cls(
            image_ids=torch.zeros(0, dtype=torch.int64),
            counts=torch.zeros(0, dtype=torch.int64),
            labels=torch.zeros(0, dtype=torch.int32),
            boxes=torch.zeros(0, 4),
            scores=torch.zeros(0),
        )
        return cls(*(torch.cat([getattr(part, f.name) for part in (empty, *parts)]) for f in fields(cls)))

    def every_image_once(self) -> _Collected:
        """Without the second and later appearances of an image, as samplers make when they fill up the last batch."""
        _, first = np.unique(self.image_ids.numpy(), return_index=True)
        if len(first) == len(self.image_ids):
            return self
        kept = torch.zeros(len(self.image_ids), dtype=torch.bool)
        kept[torch.from_numpy(first)] = True
        rows = torch.repeat_interleave(kept, self.counts)
        return _Collected(
            self.image_ids[kept], self.counts[kept], self.labels[rows], self.boxes[rows], self.scores[rows]
        )


class CocoEvaluator:
    """Collects the detections of a data set and computes its COCO metrics.

    Call :meth:`update` for each batch, :meth:`gather` once when several processes share the work, :meth:`compute` in
    the first one, and :meth:`reset` before the next round.

    Args:
        ground_truth: COCO-style ``images`` (``id``), ``annotations`` (``image_id``, ``category_id``, ``bbox`` as
            left, top, width, height in pixels, and optionally ``area``, by default that of the box, and ``iscrowd``)
            and ``categories`` (``id``, and optionally ``name``). Annotations of other images or categories are left
            out, as pycocotools does. It is not changed.
        category_ids: the category id of each class index, in the order of the model's classes.
        backend: the program that counts, see :data:`rtdetrv2_train.evaluation.backends.BACKENDS`.

    Raises:
        UserError: if a part of the ground truth is missing, it lacks a category that the model knows, or the backend is
            not known or not installed.
    """

    def __init__(self, ground_truth: Mapping[str, Any], category_ids: Sequence[int], backend: str = AUTO) -> None:
        self._count = backend_named(backend)
        for key in ("images", "annotations", "categories"):
            if key not in ground_truth:
                raise UserError(f"the ground truth has no '{key}'; evaluate on an annotation file in COCO's format")
        # Ranks in sorted order replace the ids: pycocotools sorts by id, which decides between detections of equal
        # score and in which order means are summed, so that any other numbering would change the last digits.
        self._image_ids = np.unique(np.array([image["id"] for image in ground_truth["images"]], dtype=np.int64))
        names = {int(category["id"]): str(category.get("name", category["id"])) for category in _sorted(ground_truth)}
        self._category_ranks = {category_id: rank for rank, category_id in enumerate(names, start=1)}
        self._class_names = list(names.values())
        unknown = [int(category_id) for category_id in category_ids if int(category_id) not in names]
        if unknown:
            raise UserError(
                f"category id {unknown[0]} of the model's classes is not among the ground truth's 'categories' "
                f"({len(names)} of them); use the annotation file that belongs to these classes or add the category"
            )
        self._rank_of_label = np.array([self._category_ranks[int(i)] for i in category_ids], dtype=np.int64)
        self._truth = self._usable(ground_truth["annotations"])
        counted = Counter(annotation["category_id"] for annotation in self._truth if not annotation["iscrowd"])
        self._boxes_of_class = [counted[rank] for rank in self._category_ranks.values()]
        self._parts: list[_Collected] = []

    def update(self, detections: Detections, image_ids: Tensor) -> None:
        """Add the detections of a batch.

        Args:
            detections: of B images, on any device. Of each image, pycocotools counts the best 100 of each class. Those
                whose box or score is not finite are left out.
            image_ids: int ``[B]``, ids of the annotation file.

        Raises:
            UserError: if an image is not part of the ground truth.
            ValueError: if the shapes do not fit together, or a label is not a class index.
        """
        labels = detections.labels.detach().to("cpu", torch.int32)
        boxes = detections.boxes.detach().to("cpu", torch.float32)
        scores = detections.scores.detach().to("cpu", torch.float32)
        image_ids = image_ids.detach().to("cpu", torch.int64).reshape(-1)
        if labels.ndim != 2 or boxes.shape != (*labels.shape, 4) or scores.shape != labels.shape:
            raise ValueError(
                f"detections do not fit together: labels {tuple(labels.shape)}, boxes {tuple(boxes.shape)}, "
                f"scores {tuple(scores.shape)}"
            )
        if len(image_ids) != len(labels):
            raise ValueError(f"detections of {len(labels)} images but {len(image_ids)} image ids")
        foreign = np.setdiff1d(image_ids.numpy(), self._image_ids)
        if len(foreign):
            raise UserError(
                f"image id {foreign[0]} is not in the ground truth ({len(self._image_ids)} images); "
                "evaluate with the annotation file that the images come from"
            )
        if labels.numel() and not (int(labels.min()) >= 0 and int(labels.max()) < len(self._rank_of_label)):
            raise ValueError(
                f"labels from {int(labels.min())} to {int(labels.max())}, but {len(self._rank_of_label)} classes"
            )
        # A score of NaN has no place in a ranking. In pycocotools a box of NaN even matches anything, so that a model
        # that has diverged comes out with an AP of 1.
        finite = boxes.isfinite().all(-1) & scores.isfinite()
        self._parts.append(_Collected(image_ids, finite.sum(1), labels[finite], boxes[finite], scores[finite]))

    def gather(self) -> None:
        """Hand what all processes have collected to the first, after which the others hold nothing.

        A collective operation: every rank must call it, also one without detections. An image that several ranks
        have counts once, as the lowest of these ranks saw it. Does nothing in a single process.
        """
        if not is_distributed():
            return
        own = _Collected.concatenated(self._parts).every_image_once()
        together = _Collected(*(gather_rows(getattr(own, f.name)) for f in fields(_Collected)))
        self._parts = [together.every_image_once()]

    def compute(self) -> CocoMetrics:
        """The metrics over all images of the ground truth; an image without detections counts as one where none are.

        May be called at any time and repeatedly; what has been collected stays.
        """
        return self.metrics_of(self.count())

    def count(self) -> PrecisionRecall:
        """Precision and recall over all images, from which :meth:`metrics_of` takes the numbers."""
        truth = {
            "images": [{"id": rank} for rank in range(1, len(self._image_ids) + 1)],
            "categories": [{"id": rank, "name": name} for rank, name in enumerate(self._class_names, start=1)],
            "annotations": self._truth,
        }
        return self._count(truth, self._found(_Collected.concatenated(self._parts).every_image_once()))

    def metrics_of(self, counted: PrecisionRecall) -> CocoMetrics:
        """The metrics among what was counted."""
        # In the order in which pycocotools summarises, which is that of the fields.
        names = [f.name for f in fields(CocoMetrics) if f.name != "per_class"]
        numbers = dict(zip(names, counted.summary, strict=True))
        return CocoMetrics(**numbers, per_class=self._per_class(counted.precision, counted.recall))

    def boxes_found(self) -> EvaluatedBoxes:
        """Everything collected and the ground truth as flat arrays, to look at more closely."""
        collected = _Collected.concatenated(self._parts).every_image_once()
        found = self._found(collected)
        truth = self._truth
        return EvaluatedBoxes(
            image_ids=self._image_ids,
            class_names=tuple(self._class_names),
            truth_images=np.array([a["image_id"] - 1 for a in truth], dtype=np.int64),
            truth_classes=np.array([a["category_id"] - 1 for a in truth], dtype=np.int64),
            truth_boxes=np.array([a["bbox"] for a in truth], dtype=np.float64).reshape(-1, 4),
            truth_crowd=np.array([a["iscrowd"] for a in truth], dtype=bool),
            found_images=found[:, 0].astype(np.int64) - 1,
            found_classes=found[:, 6].astype(np.int64) - 1,
            found_boxes=found[:, 1:5],
            found_scores=found[:, 5],
        )

    def reset(self) -> None:
        """Forget all detections."""
        self._parts = []

    def _usable(self, annotations: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Annotations of known images and categories, under ranks in place of ids."""
        ranks = {image_id: rank for rank, image_id in enumerate(self._image_ids.tolist(), start=1)}
        kept = [a for a in annotations if a["image_id"] in ranks and a["category_id"] in self._category_ranks]
        return [
            {
                "id": number,
                "image_id": ranks[annotation["image_id"]],
                "category_id": self._category_ranks[annotation["category_id"]],
                "bbox": annotation["bbox"],
                "area": annotation.get("area", annotation["bbox"][2] * annotation["bbox"][3]),
                "iscrowd": int(annotation.get("iscrowd", 0)),
            }
            for number, annotation in enumerate(kept, start=1)
        ]

    def _found(self, collected: _Collected) -> np.ndarray:
        """Image, left, top, width, height, score, category of each detection, ``[D, 7]``; ids are ranks from 1."""
        # Widths and areas in float64, so that they equal those of an evaluation from a JSON file of results.
        corners = collected.boxes.double().numpy()
        images = np.repeat(np.searchsorted(self._image_ids, collected.image_ids.numpy()) + 1, collected.counts.numpy())
        classes = self._rank_of_label[collected.labels.numpy()]
        return np.column_stack(
            [images, corners[:, :2], corners[:, 2:] - corners[:, :2], collected.scores.double().numpy(), classes]
        )

    def _per_class(self, precision_TRKAM: np.ndarray, recall_TKAM: np.ndarray) -> list[ClassMetrics]:
        # Area range 0 is "all", and the last limit is 100 detections.
        precision, recall = precision_TRKAM[:, :, :, 0, -1], recall_TKAM[:, :, 0, -1]
        return [
            ClassMetrics(
                name=name,
                AP=_mean_of_measured(precision[:, :, k]),
                AP50=_mean_of_measured(precision[0, :, k]),
                AR100=_mean_of_measured(recall[:, k]),
                num_boxes=self._boxes_of_class[k],
            )
            for k, name in enumerate(self._class_names)
        ]


def _sorted(ground_truth: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return sorted(ground_truth["categories"], key=lambda category: int(category["id"]))


def _mean_of_measured(values: np.ndarray) -> float:
    measured = values[values > -1]
    return float(measured.mean()) if measured.size else NOTHING_TO_MEASURE
