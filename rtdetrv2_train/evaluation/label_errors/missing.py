"""Detections without a label: what may be an object that was never labelled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rtdetrv2_train.evaluation.analysis.boxes import EvaluatedBoxes
from rtdetrv2_train.evaluation.label_errors.evidence import SAME_OBJECT, Floats, Ints, log_odds

_LEAST_SCORE = 0.05


@dataclass(frozen=True)
class Heads:
    """H detections, each the best of those that mean the same object, whatever their classes.

    Attributes:
        found: int64 ``[H]``, indices of detections.
        overlap: ``[H]``, the largest IoU with a better one of its image.
    """

    found: Ints
    overlap: Floats

    @classmethod
    def of(cls, boxes: EvaluatedBoxes) -> Heads:
        """Leave out what overlaps a better detection by :data:`SAME_OBJECT`."""
        candidates = np.flatnonzero(boxes.found_scores >= _LEAST_SCORE)
        order = candidates[np.lexsort((-boxes.found_scores[candidates], boxes.found_images[candidates]))]
        starts = np.flatnonzero(np.diff(boxes.found_images[order], prepend=-1))
        found, overlap = [], []
        for of_image in np.split(order, starts[1:]) if len(order) else []:
            kept, most = _suppressed(_iou_matrix(boxes.found_boxes[of_image]))
            found.append(of_image[kept])
            overlap.append(most)
        return cls(np.concatenate([*found, np.zeros(0, np.int64)]), np.concatenate([*overlap, np.zeros(0)]))


def features(heads: Heads, of_labels: Floats, boxes: EvaluatedBoxes, usual: Floats) -> Floats:
    """The numbers that tell objects from what is none, ``[H, 4]``.

    Args:
        heads: the detections.
        of_labels: ``[H]``, IoU with labels of something else.
        boxes: the detections, too.
        usual: ``[K]``, log-odds of the scores that are usual for each class.
    """
    odds = log_odds(boxes.found_scores[heads.found])
    return np.stack([odds, odds - usual[boxes.found_classes[heads.found]], heads.overlap, of_labels], axis=1)


def _suppressed(iou: Floats) -> tuple[Ints, Floats]:
    """Places of the detections that overlap no better one too much, and the most that each overlaps a better one."""
    kept: list[int] = []
    most: list[float] = []
    for place in range(len(iou)):
        largest = float(iou[place, kept].max(initial=0))
        if largest < SAME_OBJECT:
            kept.append(place)
            most.append(largest)
    return np.array(kept, dtype=np.int64), np.array(most)


def _iou_matrix(boxes: Floats) -> Floats:
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    sides = np.minimum(high[:, None], high[None]) - np.maximum(low[:, None], low[None])
    inner = sides.clip(min=0).prod(axis=2)
    area = boxes[:, 2:].prod(axis=1)
    return inner / np.maximum(area[:, None] + area[None] - inner, 1e-9)
