"""COCO metrics of detections that one or many ranks collect.

Bit for bit the numbers of pycocotools on the same boxes, with its traps removed: ids beyond 2^53 keep their last
digits, an annotation with id 0 can be matched, an evaluation without any detection works, and a box of NaN matches
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.evaluation.analysis.boxes import EvaluatedBoxes
from rtdetrv2_train.evaluation.backends import AUTO, BENCHMARK_LIMIT, PrecisionRecall, backend_named, mean_of_measured
from rtdetrv2_train.evaluation.gather import gather_rows, is_distributed
from rtdetrv2_train.evaluation.metrics import ClassMetrics, CocoMetrics
from rtdetrv2_train.ground_truth import GroundTruth
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

    Call :meth:`update` for each batch, :meth:`gather` once when several ranks share the work, :meth:`compute` on rank
    0, and :meth:`reset` before the next round.

    Args:
        ground_truth: of the data set. It is not changed.
        category_ids: the category id of each class index, in the order of the model's classes.
        backend: the package that counts, see :data:`rtdetrv2_train.evaluation.backends.BACKENDS`.
        max_detections: detections of each class in an image for a further AP and AR, above 100; None for the
            benchmark's alone.

    Raises:
        UserError: if the ground truth lacks a category that the model knows, or the backend is not known or not
            installed, or ``max_detections`` is no number above 100.
    """

    def __init__(
        self,
        ground_truth: GroundTruth,
        category_ids: Sequence[int],
        backend: str = AUTO,
        max_detections: int | None = None,
    ) -> None:
        self._count = backend_named(backend)
        if max_detections is not None and not (isinstance(max_detections, int) and max_detections > BENCHMARK_LIMIT):
            raise UserError(
                f"evaluation.max_detections={max_detections}: give a whole number above the benchmark's "
                f"{BENCHMARK_LIMIT}, or null"
            )
        self._max_detections = max_detections
        self._whole_truth = self._truth = ground_truth
        # Ranks from 1 replace the ids in the backends. Their order is that of the ids: it decides between detections
        # of equal score and in which order means are summed, so that any other would change the last digits.
        ranks = {category_id: rank for rank, category_id in enumerate(ground_truth.category_ids, start=1)}
        unknown = [int(category_id) for category_id in category_ids if int(category_id) not in ranks]
        if unknown:
            raise UserError(
                f"category id {unknown[0]} of the model's classes is not among the ground truth's 'categories' "
                f"({len(ranks)} of them); use the annotation file that belongs to these classes or add the category"
            )
        self._rank_of_label = np.array([ranks[int(i)] for i in category_ids], dtype=np.int64)
        self._parts: list[_Collected] = []

    def update(self, detections: Detections, image_ids: Tensor) -> None:
        """Add the detections of a batch.

        Args:
            detections: of B images, on any device. Of each image, pycocotools counts the best 100 of each class. Those
                with NaN or Inf in box or score are left out.
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
        foreign = np.setdiff1d(image_ids.numpy(), self._truth.image_ids)
        if len(foreign):
            raise UserError(
                f"image id {foreign[0]} is not in the ground truth ({len(self._truth.image_ids)} images); "
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
        """Hand what all ranks have collected to rank 0, after which the others hold nothing.

        A collective operation: every rank must call it, also one without detections. An image that several ranks
        have counts once, as the lowest of these ranks saw it. Does nothing with a world size of 1.
        """
        if not is_distributed():
            return
        own = _Collected.concatenated(self._parts).every_image_once()
        together = _Collected(*(gather_rows(getattr(own, f.name)) for f in fields(_Collected)))
        self._parts = [together.every_image_once()]

    def leave_out_unseen(self) -> None:
        """Measure on the images only whose detections have been collected, until :meth:`reset`."""
        seen = _Collected.concatenated(self._parts).image_ids
        self._truth = self._whole_truth.of_images(seen.numpy())

    def compute(self) -> CocoMetrics:
        """The metrics over all images of the ground truth; an image without detections counts as one where none are.

        May be called at any time and repeatedly; what has been collected stays.
        """
        return self.metrics_of(self.count())

    def count(self) -> PrecisionRecall:
        """Precision and recall over all images, from which :meth:`metrics_of` takes the numbers."""
        collected = _Collected.concatenated(self._parts).every_image_once()
        return self._count(self._truth, self._found(collected), self._max_detections)

    def metrics_of(self, counted: PrecisionRecall) -> CocoMetrics:
        """The metrics from precision and recall."""
        # In the order in which pycocotools summarises, which is that of the fields.
        names = [f.name for f in fields(CocoMetrics)][: len(counted.summary)]
        AP, AR = counted.at_max_detections
        return CocoMetrics(
            **dict(zip(names, counted.summary, strict=True)),
            per_class=self._per_class(counted.precision, counted.recall),
            images=len(self._truth.image_ids),
            all_images=len(self._whole_truth.image_ids),
            most_boxes=self._truth.most_boxes,
            max_detections=self._max_detections,
            AP_max_detections=AP,
            AR_max_detections=AR,
        )

    def boxes_found(self) -> EvaluatedBoxes:
        """Ground truth and all detections as flat arrays, for the analysis."""
        found = self._found(_Collected.concatenated(self._parts).every_image_once())
        truth = self._truth
        return EvaluatedBoxes(
            image_ids=truth.image_ids,
            class_names=truth.class_names,
            truth_images=truth.images,
            truth_classes=truth.classes,
            truth_boxes=truth.boxes,
            truth_crowd=truth.crowd,
            found_images=found[:, 0].astype(np.int64) - 1,
            found_classes=found[:, 6].astype(np.int64) - 1,
            found_boxes=found[:, 1:5],
            found_scores=found[:, 5],
        )

    def reset(self) -> None:
        """Forget all detections."""
        self._parts = []
        self._truth = self._whole_truth

    def _found(self, collected: _Collected) -> np.ndarray:
        """Image, left, top, width, height, score, category of each detection, ``[D, 7]``; ids are ranks from 1."""
        # Widths and areas in float64, so that they equal those of an evaluation from a JSON file of results.
        corners = collected.boxes.double().numpy()
        images = np.repeat(
            np.searchsorted(self._truth.image_ids, collected.image_ids.numpy()) + 1, collected.counts.numpy()
        )
        classes = self._rank_of_label[collected.labels.numpy()]
        return np.column_stack(
            [images, corners[:, :2], corners[:, 2:] - corners[:, :2], collected.scores.double().numpy(), classes]
        )

    def _per_class(self, precision_TRKAM: np.ndarray, recall_TKAM: np.ndarray) -> list[ClassMetrics]:
        # Area range 0 is "all", and the last limit is 100 detections.
        precision, recall = precision_TRKAM[:, :, :, 0, -1], recall_TKAM[:, :, 0, -1]
        truth = self._truth
        num_boxes = np.bincount(truth.classes[~truth.crowd], minlength=len(truth.class_names))
        return [
            ClassMetrics(
                name=name,
                AP=mean_of_measured(precision[:, :, k]),
                AP50=mean_of_measured(precision[0, :, k]),
                AR100=mean_of_measured(recall[:, k]),
                num_boxes=int(num_boxes[k]),
            )
            for k, name in enumerate(truth.class_names)
        ]
