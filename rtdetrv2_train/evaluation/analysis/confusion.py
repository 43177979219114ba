"""The confusion matrix with background, and the calibration of scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.evaluation.analysis.boxes import EvaluatedBoxes
from rtdetrv2_train.evaluation.analysis.matching import Matches, Pairs, assign

_FOUND = 0.5
_BINS = 10


def confusion_matrix(boxes: EvaluatedBoxes, pairs: Pairs, threshold: float) -> NDArray[np.int64]:
    """Boxes by their class and that of the detection on them.

    Detections and boxes that overlap by at least 0.5 are paired, those of one class first, then those that overlap
    most. Detections in crowd regions are left out.

    Args:
        boxes: ground truth and detections.
        pairs: all that overlap by at least 0.5; others may be among them.
        threshold: detections with a score below are left out.

    Returns:
        ``[K + 1, K + 1]``: rows are the classes of the ground truth, columns those detected; the last of each is
        background: boxes not found, and detections of nothing.
    """
    size = len(boxes.class_names) + 1
    sure = boxes.found_scores >= threshold
    near = pairs.where((pairs.iou >= _FOUND) & sure[pairs.found])
    in_crowd = boxes.truth_crowd[near.truth]
    single = near.where(~in_crowd)
    other = boxes.found_classes[single.found] != boxes.truth_classes[single.truth]
    order = np.lexsort((-single.iou, other))
    truth_of = assign(single.found[order], single.truth[order], len(sure))

    paired = truth_of >= 0
    ignored = np.zeros(len(sure), dtype=bool)
    ignored[near.found[in_crowd]] = True
    nothing = sure & ~paired & ~ignored
    missed = ~boxes.truth_crowd
    missed[truth_of[paired]] = False
    matrix = np.zeros((size, size), dtype=np.int64)
    np.add.at(matrix, (boxes.truth_classes[truth_of[paired]], boxes.found_classes[paired]), 1)
    matrix[:-1, -1] = np.bincount(boxes.truth_classes[missed], minlength=size - 1)
    matrix[-1, :-1] = np.bincount(boxes.found_classes[nothing], minlength=size - 1)
    return matrix


@dataclass(frozen=True)
class Calibration:
    """Scores beside how often they are right, at IoU 0.50, in ten bins from 0 to 1.

    Attributes:
        count: int64 ``[10]``, detections in each bin.
        score: float64 ``[10]``, their mean score; the middle of an empty bin.
        right: float64 ``[10]``, the share of them that found a box; 0 in an empty bin.
    """

    count: NDArray[np.int64]
    score: NDArray[np.float64]
    right: NDArray[np.float64]

    @property
    def expected_error(self) -> float:
        """Mean distance of score and share, over all detections with a score of at least 0.1."""
        count = self.count[1:]
        return float((count * np.abs(self.score - self.right)[1:]).sum() / max(count.sum(), 1))


def calibration_of(boxes: EvaluatedBoxes, matches: Matches) -> Calibration:
    """How well the scores serve as probabilities."""
    scores, right = boxes.found_scores[matches.counted], matches.truth_of[matches.counted] >= 0
    bins = np.clip((scores * _BINS).astype(np.int64), 0, _BINS - 1)
    count = np.bincount(bins, minlength=_BINS)
    many = np.maximum(count, 1)
    middle = (np.arange(_BINS) + 0.5) / _BINS
    mean = np.bincount(bins, weights=scores, minlength=_BINS) / many
    return Calibration(
        count, np.where(count > 0, mean, middle), np.bincount(bins, weights=right, minlength=_BINS) / many
    )
