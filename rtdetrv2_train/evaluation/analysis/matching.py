"""Matching detections to ground truth: overlapping pairs, and COCO's assignment at one IoU.

Assignments equal those of pycocotools: detections choose in the order of their scores, of each class and image the best
100 count, and what lies in a crowd region counts neither as right nor as wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.evaluation.analysis.boxes import EvaluatedBoxes
from rtdetrv2_train.evaluation.backends import BENCHMARK_LIMIT

_BOXES_AT_A_TIME = 2_000


@dataclass(frozen=True)
class Pairs:
    """P overlapping pairs of a detection and a box of the same image, whatever their classes.

    Attributes:
        found: int64 ``[P]``, indices of detections.
        truth: int64 ``[P]``, indices of boxes of the ground truth.
        iou: float64 ``[P]``; with a crowd region, the share of the detection that lies in it.
    """

    found: NDArray[np.int64]
    truth: NDArray[np.int64]
    iou: NDArray[np.float64]

    def where(self, chosen: NDArray[np.bool_]) -> Pairs:
        """The chosen pairs."""
        return Pairs(self.found[chosen], self.truth[chosen], self.iou[chosen])


@dataclass(frozen=True)
class Matches:
    """The assignment of D detections and G boxes.

    Attributes:
        truth_of: int64 ``[D]``, the box that a detection found; -1 for none.
        counted: bool ``[D]``, False for detections in crowd regions and those beyond the best 100.
        found: bool ``[G]``, whether a box was found; crowd regions never are.
        place: int64 ``[D]``, the place of each detection in the order of scores.
    """

    truth_of: NDArray[np.int64]
    counted: NDArray[np.bool_]
    found: NDArray[np.bool_]
    place: NDArray[np.int64]


def overlapping_pairs(boxes: EvaluatedBoxes, minimum: float) -> Pairs:
    """All pairs with at least the minimum of overlap, above 0."""
    order = np.argsort(boxes.found_images, kind="stable")
    starts = np.searchsorted(boxes.found_images[order], np.arange(len(boxes.image_ids) + 1))
    parts = []
    for first in range(0, len(boxes.truth_images), _BOXES_AT_A_TIME):
        chunk = np.arange(first, min(first + _BOXES_AT_A_TIME, len(boxes.truth_images)))
        images = boxes.truth_images[chunk]
        counts = starts[images + 1] - starts[images]
        truth = np.repeat(chunk, counts)
        within = np.arange(len(truth)) - np.repeat(np.cumsum(counts) - counts, counts)
        found = order[np.repeat(starts[images], counts) + within]
        iou = _overlaps(boxes.found_boxes[found], boxes.truth_boxes[truth], boxes.truth_crowd[truth])
        kept = (iou >= minimum) & (iou > 0)
        parts.append(Pairs(found[kept], truth[kept], iou[kept]))
    nothing = np.zeros(0, dtype=np.int64)
    return Pairs(
        np.concatenate([nothing, *(part.found for part in parts)]),
        np.concatenate([nothing, *(part.truth for part in parts)]),
        np.concatenate([np.zeros(0), *(part.iou for part in parts)]),
    )


def match(boxes: EvaluatedBoxes, pairs: Pairs, threshold: float = 0.5) -> Matches:
    """Assign detections to boxes of their class as the benchmark does.

    Args:
        boxes: ground truth and detections.
        pairs: all that overlap by at least the threshold; others may be among them.
        threshold: least IoU of a match.
    """
    place = _places(boxes)
    considered = _best_of_each_class(boxes, place)
    same_class = boxes.found_classes[pairs.found] == boxes.truth_classes[pairs.truth]
    usable = pairs.where(same_class & (pairs.iou >= threshold) & considered[pairs.found])
    in_crowd = boxes.truth_crowd[usable.truth]
    single = usable.where(~in_crowd)
    # The best detection chooses first, and takes the box that it overlaps most; of equal ones the last.
    order = np.lexsort((-single.truth, -single.iou, place[single.found]))
    truth_of = assign(single.found[order], single.truth[order], len(place))
    found = np.zeros(len(boxes.truth_images), dtype=bool)
    found[truth_of[truth_of >= 0]] = True
    forgiven = boxes.found_boxes[:, 2:].prod(1) < 0  # of no size that the benchmark counts: sides of both signs
    forgiven[usable.found[in_crowd]] = True
    return Matches(truth_of, considered & ~(forgiven & (truth_of < 0)), found, place)


def assign(found: NDArray[np.int64], truth: NDArray[np.int64], num_found: int) -> NDArray[np.int64]:
    """Pair up detections and boxes that are both still free, in the given order: ``[D]``, -1 for none."""
    truth_of = np.full(num_found, -1, dtype=np.int64)
    taken: set[int] = set()
    assigned: set[int] = set()
    for detection, box in zip(found.tolist(), truth.tolist(), strict=True):
        if detection not in assigned and box not in taken:
            truth_of[detection] = box
            assigned.add(detection)
            taken.add(box)
    return truth_of


def _overlaps(found: NDArray[np.float64], truth: NDArray[np.float64], crowd: NDArray[np.bool_]) -> NDArray[np.float64]:
    high = np.minimum(found[:, :2] + found[:, 2:], truth[:, :2] + truth[:, 2:])
    sides = (high - np.maximum(found[:, :2], truth[:, :2])).clip(min=0)
    intersection = sides[:, 0] * sides[:, 1]
    area = found[:, 2] * found[:, 3]
    union = np.where(crowd, area, area + truth[:, 2] * truth[:, 3] - intersection)
    return np.divide(intersection, union, out=np.zeros_like(union), where=intersection > 0)


def _places(boxes: EvaluatedBoxes) -> NDArray[np.int64]:
    """The place of each detection in the order of scores; equal ones in the order of images, then as they came."""
    order = np.lexsort((boxes.found_images, -boxes.found_scores))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    return place


def _best_of_each_class(boxes: EvaluatedBoxes, place: NDArray[np.int64]) -> NDArray[np.bool_]:
    group = boxes.found_images * len(boxes.class_names) + boxes.found_classes
    order = np.lexsort((place, group))
    _, first, counts = np.unique(group[order], return_index=True, return_counts=True)
    rank = np.arange(len(order)) - np.repeat(first, counts)
    kept = np.zeros(len(order), dtype=bool)
    kept[order[rank < BENCHMARK_LIMIT]] = True
    return kept
