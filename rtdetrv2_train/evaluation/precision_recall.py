"""Precision and recall of all classes from arrays of boxes, equal to pycocotools bit for bit but far faster.

pycocotools keeps a dictionary for each box and loops over images, classes, area ranges, thresholds and boxes in
Python. Nearly all detections overlap no box of their class; here only those that do are looked at one by one. For 250
made-up images with 300 detections each and 80 classes, on one core, that takes 1 second instead of 12.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pycocotools import mask as overlaps
from pycocotools.cocoeval import Params

from rtdetrv2_train.evaluation.matching import match_detections

# Letters: N boxes, T IoU thresholds, R recall thresholds, K classes, A ranges of area, M limits on detections.


@dataclass(frozen=True)
class BoxTable:
    """Boxes of many images, ground truth or detections.

    Attributes:
        images: int64 ``[N]``, numbers that sort as the image ids do.
        classes: int64 ``[N]``, from 0, in the order of the category ids.
        boxes: float64 ``[N, 4]``, left, top, width, height.
        areas: float64 ``[N]``.
        scores: float64 ``[N]``; of ground truth all equal.
        crowd: bool ``[N]``; of detections all False.
    """

    images: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    scores: np.ndarray
    crowd: np.ndarray

    def rows(self, chosen: np.ndarray | slice) -> BoxTable:
        """Some rows, by slice, indices or mask."""
        return BoxTable(
            self.images[chosen],
            self.classes[chosen],
            self.boxes[chosen],
            self.areas[chosen],
            self.scores[chosen],
            self.crowd[chosen],
        )

    def sorted(self) -> BoxTable:
        """By class, then image, then descending score; rows that tie keep their order."""
        return self.rows(np.lexsort((-self.scores, self.images, self.classes)))


def precision_recall(
    truth: BoxTable, found: BoxTable, num_classes: int, params: Params
) -> tuple[np.ndarray, np.ndarray]:
    """Precision at each recall threshold, and the recall reached.

    Args:
        truth: ground truth.
        found: detections.
        num_classes: K.
        params: thresholds, area ranges and limits of pycocotools.

    Returns:
        precision float64 ``[T, R, K, A, M]`` and recall float64 ``[T, K, A, M]``, -1 where a class has no box that
        counts.
    """
    T, R, A, M = len(params.iouThrs), len(params.recThrs), len(params.areaRng), len(params.maxDets)
    precision_TRKAM, recall_TKAM = -np.ones((T, R, num_classes, A, M)), -np.ones((T, num_classes, A, M))
    truth, found = truth.sorted(), found.sorted()
    bounds = np.arange(num_classes + 1)
    truth_bounds, found_bounds = (np.searchsorted(table.classes, bounds) for table in (truth, found))
    for k in range(num_classes):
        _fill_in_class(
            truth.rows(slice(truth_bounds[k], truth_bounds[k + 1])),
            found.rows(slice(found_bounds[k], found_bounds[k + 1])),
            params,
            precision_TRKAM[:, :, k],
            recall_TKAM[:, k],
        )
    return precision_TRKAM, recall_TKAM


def _fill_in_class(
    truth: BoxTable, found: BoxTable, params: Params, precision_TRAM: np.ndarray, recall_TAM: np.ndarray
) -> None:
    ignored_AN = truth.crowd | _outside(truth.areas, params)
    ranks = np.arange(len(found.images)) - np.searchsorted(found.images, found.images)
    found, ranks = found.rows(ranks < max(params.maxDets)), ranks[ranks < max(params.maxDets)]
    matched_ATN, ignored_ATN = _match_images(truth, found, ignored_AN, params)
    ignored_ATN |= ~matched_ATN & _outside(found.areas, params)[:, None]
    order = np.argsort(-found.scores, kind="stable")
    for m, limit in enumerate(params.maxDets):
        counted = order[ranks[order] < limit]
        for a, of_range in enumerate(ignored_AN):
            num_boxes = int(np.count_nonzero(~of_range))
            if num_boxes:
                right_TN = matched_ATN[a][:, counted] & ~ignored_ATN[a][:, counted]
                wrong_TN = ~matched_ATN[a][:, counted] & ~ignored_ATN[a][:, counted]
                precision_TRAM[:, :, a, m], recall_TAM[:, a, m] = _curve(right_TN, wrong_TN, num_boxes, params.recThrs)


def _outside(areas: np.ndarray, params: Params) -> np.ndarray:
    """Whether an area lies outside a range, bool ``[A, N]``."""
    return np.stack([(areas < low) | (areas > high) for low, high in params.areaRng])


def _match_images(
    truth: BoxTable, found: BoxTable, ignored_AN: np.ndarray, params: Params
) -> tuple[np.ndarray, np.ndarray]:
    shape = (len(params.areaRng), len(params.iouThrs), len(found.images))
    matched_ATN, ignored_ATN = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    for image in np.intersect1d(truth.images, found.images):
        of_truth, of_found = (slice(*np.searchsorted(table.images, [image, image + 1])) for table in (truth, found))
        crowd = truth.crowd[of_truth]
        iou_DG = overlaps.iou(found.boxes[of_found], truth.boxes[of_truth], crowd.astype(int).tolist())
        matched_ATN[:, :, of_found], ignored_ATN[:, :, of_found] = match_detections(
            iou_DG, crowd, ignored_AN[:, of_truth], params.iouThrs.tolist()
        )
    return matched_ATN, ignored_ATN


def _curve(
    right_TN: np.ndarray, wrong_TN: np.ndarray, num_boxes: int, recall_thresholds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Interpolated precision ``[T, R]`` at the recall thresholds and the final recall ``[T]``."""
    precision_TR = np.zeros((len(right_TN), len(recall_thresholds)))
    if right_TN.shape[1] == 0:
        return precision_TR, np.zeros(len(right_TN))
    right_sum_TN = np.cumsum(right_TN, axis=1, dtype=np.float64)
    wrong_sum_TN = np.cumsum(wrong_TN, axis=1, dtype=np.float64)
    recall_TN = right_sum_TN / num_boxes
    # The order of the sum and the smallest step keep the last digits those of pycocotools.
    precision_TN = right_sum_TN / (wrong_sum_TN + right_sum_TN + np.spacing(1))
    envelope_TN = np.maximum.accumulate(precision_TN[:, ::-1], axis=1)[:, ::-1]
    for t, recall_N in enumerate(recall_TN):
        reached = np.searchsorted(recall_N, recall_thresholds, side="left")
        within = reached < len(recall_N)
        precision_TR[t, within] = envelope_TN[t, reached[within]]
    return precision_TR, recall_TN[:, -1]
