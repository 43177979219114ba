"""Curves of each class at IoU 0.50: precision over recall, and precision, recall and F1 over the score threshold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.evaluation.analysis.boxes import EvaluatedBoxes
from rtdetrv2_train.evaluation.analysis.matching import Matches
from rtdetrv2_train.evaluation.metrics import NOTHING_TO_MEASURE

RECALLS = np.linspace(0, 1, 101)
"""Where precision is read off; the benchmark's."""
THRESHOLDS = np.linspace(0, 1, 101)
"""Where F1 is computed."""


@dataclass(frozen=True)
class Curves:
    """Curves of one class, or of all together.

    Attributes:
        precision_at_recall: float64 ``[101]`` at :data:`RECALLS`, the highest precision with at least that recall.
        precision: float64 ``[101]``, of detections with at least each of :data:`THRESHOLDS`; 1 where there are none.
        recall: float64 ``[101]``, the same.
        f1: float64 ``[101]``, their harmonic mean.
        num_boxes: of the ground truth.
    """

    precision_at_recall: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    num_boxes: int

    @property
    def best(self) -> int:
        """Index of the threshold with the highest F1; in the middle where several are equal."""
        highest = np.flatnonzero(self.f1 >= self.f1.max() - 1e-12)
        return int(highest[len(highest) // 2])

    @property
    def best_threshold(self) -> float:
        """The score threshold with the highest F1."""
        return float(THRESHOLDS[self.best])

    def at_best(self) -> dict[str, float]:
        """That threshold, and F1, precision and recall there."""
        names = {"F1": self.f1, "precision": self.precision, "recall": self.recall}
        return {"best_threshold": self.best_threshold, **{key: float(curve[self.best]) for key, curve in names.items()}}


def curves_of(boxes: EvaluatedBoxes, matches: Matches, of_class: int | None = None) -> Curves:
    """The curves of a class, or, with every box counting the same, of all classes."""
    chosen = matches.counted & (True if of_class is None else boxes.found_classes == of_class)
    wanted = ~boxes.truth_crowd & (True if of_class is None else boxes.truth_classes == of_class)
    rows = np.flatnonzero(chosen)
    rows = rows[np.argsort(matches.place[rows])]
    right = matches.truth_of[rows] >= 0
    scores = boxes.found_scores[rows]
    num_boxes = int(wanted.sum())

    num_right = np.concatenate([[0], np.cumsum(right)])
    taken = np.searchsorted(-scores, -THRESHOLDS, side="right")
    precision = np.where(taken > 0, num_right[taken] / np.maximum(taken, 1), 1.0)
    recall = num_right[taken] / max(num_boxes, 1)
    f1 = 2 * num_right[taken] / np.maximum(taken + num_boxes, 1)
    return Curves(precision_at_recall(right, num_boxes), precision, recall, f1, num_boxes)


def precision_at_recall(right: NDArray[np.bool_], num_boxes: int) -> NDArray[np.float64]:
    """The benchmark's interpolated precision, ``[101]``.

    Args:
        right: bool ``[D]``, whether each detection found a box, best first.
        num_boxes: boxes to be found.
    """
    if not len(right) or not num_boxes:
        return np.zeros(len(RECALLS))
    num_right = np.cumsum(right)
    precision = num_right / np.arange(1, len(right) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(num_right / num_boxes, RECALLS, side="left")
    return np.append(envelope, 0.0)[np.minimum(places, len(right))]


def average_precision(right: NDArray[np.bool_], num_boxes: int) -> float:
    """AP; -1 where there is no box. Arguments as for :func:`precision_at_recall`."""
    return float(precision_at_recall(right, num_boxes).mean()) if num_boxes else NOTHING_TO_MEASURE
