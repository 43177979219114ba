"""Kinds of mistakes, and the AP that each costs.

After the idea of TIDE (Bolya et al., ECCV 2020): each wrong detection is of one kind, and a kind costs what AP50 would
gain if an oracle corrected all mistakes of that kind and no others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.evaluation.analysis.boxes import EvaluatedBoxes
from rtdetrv2_train.evaluation.analysis.curves import average_precision
from rtdetrv2_train.evaluation.analysis.matching import Matches, Pairs
from rtdetrv2_train.evaluation.metrics import NOTHING_TO_MEASURE

RIGHT, CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, BACKGROUND = range(6)
KINDS = ("right", "classification", "localisation", "both", "duplicate", "background")
"""Names of what a detection can be; the sixth kind of mistake, ``missed``, has no detection."""
MISSED = "missed"
LEAST_OVERLAP = 0.1
"""IoU below which a detection lies on background."""
_FOUND = 0.5


@dataclass(frozen=True)
class Mistakes:
    """Mistakes among D detections and G boxes.

    Attributes:
        kind: int64 ``[D]``, index into :data:`KINDS`; -1 for detections that do not count.
        meant: int64 ``[D]``, the box that a wrong detection overlaps most among those that make it its kind; -1 for
            background.
        missed: bool ``[G]``, boxes that no detection found or was mistaken about.
        cost: AP50 lost to each kind of mistake, in [0, 1].
    """

    kind: NDArray[np.int64]
    meant: NDArray[np.int64]
    missed: NDArray[np.bool_]
    cost: dict[str, float]


def find_mistakes(boxes: EvaluatedBoxes, pairs: Pairs, matches: Matches) -> Mistakes:
    """Classify each detection that matches no box, and compute what each kind of mistake costs.

    In this order: a duplicate overlaps a box of its class, which another found, by 0.5; a classification mistake
    overlaps a box of another class by 0.5; a localisation mistake overlaps a box of its class by 0.1; a mistake in both
    one of another class; what is left lies on background.

    Args:
        boxes: ground truth and detections.
        pairs: all with an overlap of at least :data:`LEAST_OVERLAP`.
        matches: at IoU 0.50.
    """
    own, other = _most_overlapping(boxes, pairs)
    kind = np.full(len(boxes.found_images), BACKGROUND)
    meant = np.full(len(kind), -1)
    # From the last to the first, so that the first that applies is left.
    for number, best, least in (
        (BOTH, other, LEAST_OVERLAP),
        (LOCALISATION, own, LEAST_OVERLAP),
        (CLASSIFICATION, other, _FOUND),
        (DUPLICATE, own, _FOUND),
    ):
        applies = best.iou >= least
        kind[applies], meant[applies] = number, best.truth[applies]
    right = matches.truth_of >= 0
    kind[right], meant[right] = RIGHT, matches.truth_of[right]
    kind[~matches.counted] = -1

    missed = ~matches.found & ~boxes.truth_crowd
    correctable = np.isin(kind, (CLASSIFICATION, LOCALISATION))
    missed[meant[correctable]] = False
    return Mistakes(kind, meant, missed, _costs(boxes, matches, kind, meant, missed))


@dataclass(frozen=True)
class _Best:
    truth: NDArray[np.int64]
    iou: NDArray[np.float64]


def _most_overlapping(boxes: EvaluatedBoxes, pairs: Pairs) -> tuple[_Best, _Best]:
    """For each detection the box of its class, and of another, that it overlaps most; IoU 0 where there is none."""
    same = boxes.found_classes[pairs.found] == boxes.truth_classes[pairs.truth]
    usable = ~boxes.truth_crowd[pairs.truth]
    results = []
    for chosen in (same, ~same):
        of_kind = pairs.where(chosen & usable)
        order = np.argsort(of_kind.iou, kind="stable")
        truth, iou = np.full(len(boxes.found_images), -1), np.zeros(len(boxes.found_images))
        truth[of_kind.found[order]], iou[of_kind.found[order]] = of_kind.truth[order], of_kind.iou[order]
        results.append(_Best(truth, iou))
    return results[0], results[1]


def _costs(
    boxes: EvaluatedBoxes,
    matches: Matches,
    kind: NDArray[np.int64],
    meant: NDArray[np.int64],
    missed: NDArray[np.bool_],
) -> dict[str, float]:
    """What AP50 gains when one kind is corrected: a correctable detection then finds the box it meant, if free."""
    counted = kind >= 0
    wanted = ~boxes.truth_crowd
    base = _ap50(boxes, matches, counted, kind == RIGHT, boxes.found_classes, wanted)
    costs = {}
    for number in (CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, BACKGROUND):
        wrong = kind == number
        kept, right, classes = counted & ~wrong, kind == RIGHT, boxes.found_classes
        if number in (CLASSIFICATION, LOCALISATION):
            rows = np.flatnonzero(wrong)
            rows = rows[np.argsort(matches.place[rows])]
            rows = rows[~matches.found[meant[rows]]]
            _, first = np.unique(meant[rows], return_index=True)
            corrected = rows[first]
            kept, right, classes = kept.copy(), right.copy(), classes.copy()
            kept[corrected], right[corrected], classes[corrected] = True, True, boxes.truth_classes[meant[corrected]]
        costs[KINDS[number]] = _ap50(boxes, matches, kept, right, classes, wanted) - base
    costs[MISSED] = _ap50(boxes, matches, counted, kind == RIGHT, boxes.found_classes, wanted & ~missed) - base
    return {name: max(cost, 0.0) for name, cost in costs.items()}


def _ap50(
    boxes: EvaluatedBoxes,
    matches: Matches,
    kept: NDArray[np.bool_],
    right: NDArray[np.bool_],
    classes: NDArray[np.int64],
    wanted: NDArray[np.bool_],
) -> float:
    rows = np.flatnonzero(kept)
    rows = rows[np.lexsort((matches.place[rows], classes[rows]))]
    ends = np.cumsum(np.bincount(classes[rows], minlength=len(boxes.class_names)))
    counts = np.bincount(boxes.truth_classes[wanted], minlength=len(boxes.class_names))
    parts = np.split(right[rows], ends[:-1])
    of_classes = [average_precision(part, int(count)) for part, count in zip(parts, counts, strict=True)]
    measured = [ap for ap in of_classes if ap != NOTHING_TO_MEASURE]
    return float(np.mean(measured)) if measured else 0.0
