"""The whole analysis of a data set's detections, beyond the twelve metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.evaluation.analysis.boxes import EvaluatedBoxes
from rtdetrv2_train.evaluation.analysis.confusion import Calibration, calibration_of, confusion_matrix
from rtdetrv2_train.evaluation.analysis.curves import Curves, curves_of
from rtdetrv2_train.evaluation.analysis.matching import Matches, match, overlapping_pairs
from rtdetrv2_train.evaluation.analysis.mistakes import LEAST_OVERLAP, Mistakes, find_mistakes
from rtdetrv2_train.evaluation.backends import PrecisionRecall
from rtdetrv2_train.evaluation.coco import CocoEvaluator
from rtdetrv2_train.evaluation.metrics import NOTHING_TO_MEASURE, CocoMetrics, measured

SIZES = ("small", "medium", "large")


@dataclass(frozen=True)
class Analysis:
    """What a report shows. K classes, I images.

    Attributes:
        metrics: the benchmark's numbers.
        boxes: ground truth and detections.
        matches: at IoU 0.50.
        curves: of each class.
        overall: curves of all classes together; its best threshold is the one to deploy with.
        size_AP: float64 ``[K, 3]``, AP of small, medium and large boxes; -1 where there are none.
        confusion: int64 ``[K + 1, K + 1]``, at that threshold; see :func:`confusion_matrix`.
        mistakes: their kinds and what they cost.
        calibration: of the scores.
        image_f1: float64 ``[I]``, F1 of each image at that threshold; 1 for an image with neither boxes nor detections.
    """

    metrics: CocoMetrics
    boxes: EvaluatedBoxes
    matches: Matches
    curves: tuple[Curves, ...]
    overall: Curves
    size_AP: NDArray[np.float64]  # noqa: N815
    confusion: NDArray[np.int64]
    mistakes: Mistakes
    calibration: Calibration
    image_f1: NDArray[np.float64]

    @property
    def threshold(self) -> float:
        """The score threshold to deploy with: the highest F1 over all boxes."""
        return self.overall.best_threshold

    def class_rows(self) -> list[dict[str, Any]]:
        """A row of numbers for each class, ready for JSON and tables; None where there was nothing to measure."""
        return [
            {
                "name": of_class.name,
                "num_boxes": of_class.num_boxes,
                "AP": measured(of_class.AP),
                "AP50": measured(of_class.AP50),
                "AR100": measured(of_class.AR100),
                **{f"AP_{size}": measured(float(self.size_AP[k, i])) for i, size in enumerate(SIZES)},
                **(curves.at_best() if curves.num_boxes else dict.fromkeys(curves.at_best())),
            }
            for k, (of_class, curves) in enumerate(zip(self.metrics.per_class, self.curves, strict=True))
        ]

    def as_dict(self) -> dict[str, Any]:
        """The numbers, ready for JSON."""
        return {
            "threshold": self.threshold,
            "classes": self.class_rows(),
            "confusion": {"classes": [*self.boxes.class_names, "background"], "counts": self.confusion.tolist()},
            "AP50_lost": self.mistakes.cost,
            "calibration": {
                "expected_error": self.calibration.expected_error,
                "count": self.calibration.count.tolist(),
                "score": self.calibration.score.tolist(),
                "right": self.calibration.right.tolist(),
            },
        }


def analyse(evaluator: CocoEvaluator) -> Analysis:
    """Analyse what an evaluator has collected."""
    counted = evaluator.count()
    boxes = evaluator.boxes_found()
    pairs = overlapping_pairs(boxes, LEAST_OVERLAP)
    matches = match(boxes, pairs)
    overall = curves_of(boxes, matches)
    return Analysis(
        metrics=evaluator.metrics_of(counted),
        boxes=boxes,
        matches=matches,
        curves=tuple(curves_of(boxes, matches, k) for k in range(len(boxes.class_names))),
        overall=overall,
        size_AP=_size_precision(counted),
        confusion=confusion_matrix(boxes, pairs, overall.best_threshold),
        mistakes=find_mistakes(boxes, pairs, matches),
        calibration=calibration_of(boxes, matches),
        image_f1=_image_f1(boxes, matches, overall.best_threshold),
    )


def _size_precision(counted: PrecisionRecall) -> NDArray[np.float64]:
    """``[K, 3]``; areas 1 to 3 are small, medium and large, and the last limit is 100 detections."""
    precision = counted.precision[:, :, :, 1:, -1]
    there = (precision > -1).all((0, 1))
    return np.where(there, precision.mean((0, 1)), NOTHING_TO_MEASURE)


def _image_f1(boxes: EvaluatedBoxes, matches: Matches, threshold: float) -> NDArray[np.float64]:
    size = len(boxes.image_ids)
    sure = matches.counted & (boxes.found_scores >= threshold)
    found = np.bincount(boxes.found_images[sure], minlength=size)
    right = np.bincount(boxes.found_images[sure & (matches.truth_of >= 0)], minlength=size)
    wanted = np.bincount(boxes.truth_images[~boxes.truth_crowd], minlength=size)
    return np.where(found + wanted > 0, 2 * right / np.maximum(found + wanted, 1), 1.0)
