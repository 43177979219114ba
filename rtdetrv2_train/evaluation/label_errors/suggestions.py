"""The labels of a set that are likely to be wrong, the most likely first."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.evaluation.analysis.boxes import EvaluatedBoxes
from rtdetrv2_train.evaluation.analysis.matching import overlapping_pairs
from rtdetrv2_train.evaluation.label_errors.evidence import (
    LEAST_OVERLAP,
    SAME_OBJECT,
    Evidence,
    Floats,
    Ints,
    Labels,
    Rivals,
    log_odds,
)
from rtdetrv2_train.evaluation.label_errors.judging import (
    BADLY_PLACED,
    NO_OBJECT,
    RIGHT,
    WRONG_CLASS,
    judge_labels,
    judge_unlabelled,
    usual_odds,
)
from rtdetrv2_train.suggestion import BoxXYWH, Suggestion, SuggestionKind

LEAST_SUSPICION = 0.05
"""What any label would be suspected of without a detector: less is no suspicion."""
MISSING = -1
_NAMES: dict[int, SuggestionKind] = {
    NO_OBJECT: "no object",
    WRONG_CLASS: "wrong class",
    BADLY_PLACED: "badly placed",
    MISSING: "missing box",
}


def find_label_errors(boxes: EvaluatedBoxes, rows: Ints, least: float = LEAST_SUSPICION) -> list[Suggestion]:
    """Labels that are likely to be wrong or missing, the most suspicious first.

    The detections may be of a model that was trained on these labels, though those of one that has not seen them say
    more: see ``docs/label_errors.md``. Crowd regions and boxes that are marked as difficult are never suspected, and
    neither are detections in them. Several detections of one object are one suggestion.

    Args:
        boxes: labels and detections of a set; the more detections of low score there are, the better.
        rows: int64 ``[G]``, for each label its row in the annotation table.
        least: suggestions below this suspicion are left out.
    """
    candidates = _candidates(boxes)
    order = np.argsort(-candidates.suspicion, kind="stable")
    order = order[candidates.suspicion[order] >= least]
    return [_suggestion(candidates, int(place), boxes, rows) for place in order]


@dataclass(frozen=True)
class _Candidates:
    """N suspicions, in any order.

    Attributes:
        kind: int64 ``[N]``, keys of ``_NAMES``.
        suspicion: ``[N]``.
        label: int64 ``[N]``, the label; -1 where one is missing.
        found: int64 ``[N]``, the detection that speaks against it; -1 where there is none.
    """

    kind: Ints
    suspicion: Floats
    label: Ints
    found: Ints

    def where(self, chosen: NDArray[np.bool_]) -> _Candidates:
        """The chosen ones."""
        return _Candidates(*(values[chosen] for values in vars(self).values()))


def _candidates(boxes: EvaluatedBoxes) -> _Candidates:
    pairs = overlapping_pairs(boxes, LEAST_OVERLAP)
    on_crowd = boxes.truth_crowd[pairs.truth]
    rivals = Rivals.of(len(boxes.found_scores), pairs.where(~on_crowd))
    in_crowd = np.zeros(len(boxes.found_scores), dtype=bool)
    in_crowd[pairs.found[on_crowd & (pairs.iou >= SAME_OBJECT)]] = True
    rows = np.flatnonzero(~boxes.truth_crowd & (boxes.truth_boxes[:, 2:] > 0).all(axis=1))
    if not len(rows):
        return _Candidates(rows, np.zeros(0), rows, rows)
    labels = Labels.of(boxes, rows)
    evidence = Evidence.about(labels, boxes, rivals)
    usual = usual_odds(log_odds(evidence.near), labels.classes, len(boxes.class_names))
    kinds, suspicion, found = _of_labels(judge_labels(boxes, rivals, usual, labels, evidence), evidence)
    unlabelled = judge_unlabelled(boxes, rivals, usual, in_crowd, len(rows))
    together = _Candidates(
        np.concatenate([kinds, np.full(len(unlabelled.found), MISSING)]),
        np.concatenate([suspicion, unlabelled.probabilities]),
        np.concatenate([rows, np.full(len(unlabelled.found), -1)]),
        np.concatenate([found, unlabelled.found]),
    )
    return together.where(~_is_second_of_its_place(together, boxes))


def _of_labels(probabilities: Floats, evidence: Evidence) -> tuple[Ints, Floats, Ints]:
    """The most likely kind of error of each label, its suspicion of any, and the detection that speaks against it."""
    errors, against = probabilities[:, 1:].copy(), np.full(probabilities.shape, -1)
    for kind, speaks in ((WRONG_CLASS, evidence.other), (BADLY_PLACED, evidence.nearest)):
        errors[speaks < 0, kind - 1] = 0  # there is nothing to put in the label's place
        against[:, kind] = speaks
    kinds = 1 + errors.argmax(axis=1)
    return kinds, 1 - probabilities[:, RIGHT], against[np.arange(len(kinds)), kinds]


def _is_second_of_its_place(candidates: _Candidates, boxes: EvaluatedBoxes) -> NDArray[np.bool_]:
    """Which of two suggestions for one detection, a missing box and a label beside it, are the less suspicious."""
    missing, beside = (np.flatnonzero(candidates.kind == kind) for kind in (MISSING, BADLY_PLACED))
    found, against = candidates.found[missing], candidates.found[beside]
    pairs = overlapping_pairs(
        replace(
            boxes,
            truth_images=boxes.found_images[against],
            truth_classes=boxes.found_classes[against],
            truth_boxes=boxes.found_boxes[against],
            truth_crowd=np.zeros(len(against), dtype=bool),
            found_images=boxes.found_images[found],
            found_classes=boxes.found_classes[found],
            found_boxes=boxes.found_boxes[found],
            found_scores=boxes.found_scores[found],
        ),
        SAME_OBJECT,
    )
    one, other = missing[pairs.found], beside[pairs.truth]
    second = np.zeros(len(candidates.kind), dtype=bool)
    second[np.where(candidates.suspicion[one] > candidates.suspicion[other], other, one)] = True
    return second


def _suggestion(candidates: _Candidates, place: int, boxes: EvaluatedBoxes, rows: Ints) -> Suggestion:
    label, found = int(candidates.label[place]), int(candidates.found[place])
    image = boxes.truth_images[label] if label >= 0 else boxes.found_images[found]
    suggestion = Suggestion(
        _NAMES[int(candidates.kind[place])], float(candidates.suspicion[place]), int(boxes.image_ids[image])
    )
    if label >= 0:
        suggestion = replace(
            suggestion,
            annotation=int(rows[label]),
            label_class=boxes.class_names[boxes.truth_classes[label]],
            label_box=_as_box(boxes.truth_boxes[label]),
        )
    if found >= 0:
        suggestion = replace(
            suggestion,
            found_class=boxes.class_names[boxes.found_classes[found]],
            found_box=_as_box(boxes.found_boxes[found]),
            found_score=float(boxes.found_scores[found]),
        )
    return suggestion


def _as_box(box: Floats) -> BoxXYWH:
    left, top, width, height = box.tolist()
    return left, top, width, height
