"""Which detections of one class in one image find a box, by COCO's rules."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Letters: D detections, G ground-truth boxes, T IoU thresholds, A ranges of area.

_HIGHEST_THRESHOLD = 1 - 1e-10


def match_detections(
    iou_DG: np.ndarray, crowd_G: np.ndarray, ignored_AG: np.ndarray, thresholds: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Give each detection, best first, the box that it overlaps most among those still free.

    A box that counts goes before an ignored one, however much that overlaps; of boxes that overlap equally the last
    is taken; a crowd can be taken many times. These are the rules of pycocotools, ties included, at the cost of
    looking only at the few pairs that overlap enough.

    Args:
        iou_DG: float64 ``[D, G]``, detections by descending score.
        crowd_G: bool ``[G]``.
        ignored_AG: bool ``[A, G]``: a match with such a box is neither right nor wrong.
        thresholds: T thresholds that an IoU must reach.

    Returns:
        bool ``[A, T, D]`` whether a detection is matched, and bool ``[A, T, D]`` whether that is with an ignored box.
    """
    shape = (len(ignored_AG), len(thresholds), len(iou_DG))
    matched_ATD, with_ignored_ATD = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    floors = [min(threshold, _HIGHEST_THRESHOLD) for threshold in thresholds]
    candidates = _candidates(iou_DG, min(floors))
    crowds: list[bool] = crowd_G.tolist()
    for a, ignored in enumerate(ignored_AG.tolist()):
        for t, floor in enumerate(floors):
            taken: set[int] = set()
            for detection, pairs in candidates.items():
                free = [(g, iou) for g, iou in pairs if iou >= floor and (g not in taken or crowds[g])]
                best = _last_of_the_largest([pair for pair in free if not ignored[pair[0]]] or free)
                if best is not None:
                    taken.add(best)
                    matched_ATD[a, t, detection] = True
                    with_ignored_ATD[a, t, detection] = ignored[best]
    return matched_ATD, with_ignored_ATD


def _candidates(iou_DG: np.ndarray, floor: float) -> dict[int, list[tuple[int, float]]]:
    """For each detection that overlaps some box enough, these boxes and their IoUs; detections and boxes in order."""
    candidates: dict[int, list[tuple[int, float]]] = {}
    for detection, box in np.argwhere(iou_DG >= floor).tolist():
        candidates.setdefault(detection, []).append((box, float(iou_DG[detection, box])))
    return candidates


def _last_of_the_largest(pairs: Sequence[tuple[int, float]]) -> int | None:
    return max(pairs, key=lambda pair: (pair[1], pair[0]))[0] if pairs else None
