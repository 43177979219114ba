"""The parts of the search for label errors, against numbers that are computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from rtdetrv2_train.evaluation.analysis.boxes import EvaluatedBoxes
from rtdetrv2_train.evaluation.analysis.matching import overlapping_pairs
from rtdetrv2_train.evaluation.label_errors import made_up
from rtdetrv2_train.evaluation.label_errors.evidence import LEAST_OVERLAP, Evidence, Labels, Rivals, crowding, log_odds
from rtdetrv2_train.evaluation.label_errors.judging import usual_odds
from rtdetrv2_train.evaluation.label_errors.missing import Heads
from rtdetrv2_train.evaluation.label_errors.regression import SoftmaxRegression

# Labels 0 and 1 overlap by an IoU of 1/3; label 2 stands alone, in another image.
LABELS = [[0, 0, 40, 40], [20, 0, 40, 40], [0, 0, 40, 40]]
FOUND = [
    (0, 0, [0, 0, 40, 40], 0.9),  # on label 0
    (0, 1, [0, 0, 40, 40], 0.2),  # the same place, another class
    (0, 0, [15, 0, 40, 40], 0.6),  # nearer to label 1: IoU 35/45, and 25/55 with label 0
    (1, 0, [0, 20, 40, 40], 0.8),  # half on label 2: IoU 1/3
]


def made() -> EvaluatedBoxes:
    return EvaluatedBoxes(
        image_ids=np.array([5, 9]),
        class_names=("cat", "dog"),
        truth_images=np.array([0, 0, 1]),
        truth_classes=np.array([0, 0, 0]),
        truth_boxes=np.array(LABELS, dtype=np.float64),
        truth_crowd=np.zeros(3, dtype=bool),
        found_images=np.array([row[0] for row in FOUND]),
        found_classes=np.array([row[1] for row in FOUND]),
        found_boxes=np.array([row[2] for row in FOUND], dtype=np.float64),
        found_scores=np.array([row[3] for row in FOUND]),
    )


def test_a_detection_belongs_to_the_label_that_it_overlaps_most() -> None:
    boxes = made()
    rivals = Rivals.of(4, overlapping_pairs(boxes, LEAST_OVERLAP))
    assert rivals.label.tolist() == [0, 0, 1, 2]
    assert rivals.first == pytest.approx([1, 1, 35 / 45, 1 / 3])
    assert rivals.second == pytest.approx([1 / 3, 1 / 3, 25 / 55, 0])
    assert rivals.overlap(np.array([2, 2]), np.array([1, 0])) == pytest.approx([25 / 55, 35 / 45])


def test_evidence_is_what_the_own_detections_say() -> None:
    boxes = made()
    rivals = Rivals.of(4, overlapping_pairs(boxes, LEAST_OVERLAP))
    evidence = Evidence.about(Labels.of(boxes, np.arange(3)), boxes, rivals)
    assert evidence.agreeing == pytest.approx([0.9, 0.6 * 35 / 45, 0.8 / 3])
    assert evidence.contrary == pytest.approx([0.2, 0, 0])
    assert evidence.near == pytest.approx([0.9, 0.6, 0.8])
    assert evidence.fit == pytest.approx([1, 35 / 45, 1 / 3])
    assert evidence.nearest.tolist() == [0, 2, 3]
    assert evidence.other.tolist() == [1, -1, -1]
    assert evidence.crowding == pytest.approx([1 / 3, 1 / 3, 0])


def test_a_label_that_stands_for_another_does_not_compete_with_it() -> None:
    boxes = made()
    rivals = Rivals.of(4, overlapping_pairs(boxes, LEAST_OVERLAP))
    box = np.array([[0.0, 0.0, 40.0, 20.0]])
    instead = Labels(np.array([0]), np.array([1]), box, np.array([0]))
    evidence = Evidence.about(instead, boxes, rivals)
    assert (evidence.agreeing[0], evidence.contrary[0]) == pytest.approx((0.1, 0.45))
    beside = Labels(np.array([0]), np.array([1]), box, np.array([-1]))
    assert Evidence.about(beside, boxes, rivals).agreeing.tolist() == [0]  # label 0 fits that detection better
    assert crowding(instead, boxes) == pytest.approx([20 * 20 / (40 * 20 + 40 * 40 - 20 * 20)])
    assert crowding(beside, boxes) == pytest.approx([0.5])


def test_the_best_detection_of_a_place_stands_for_all_of_them() -> None:
    heads = Heads.of(made())
    assert heads.found.tolist() == [0, 2, 3]
    assert heads.overlap == pytest.approx([0, 25 / 55, 0])


def test_usual_odds_of_rare_classes_are_those_of_all() -> None:
    odds = np.array([0.0] * 90 + [2.0] * 90 + [8.0])
    usual = usual_odds(odds, np.array([0] * 90 + [1] * 90 + [2]), 4)
    assert usual == pytest.approx([(90 * 0 + 10 * 2) / 100, 2, (8 + 10 * 2) / 11, 2])
    assert usual_odds(np.zeros(0), np.zeros(0, dtype=np.int64), 2).tolist() == [0, 0]


def test_log_odds_are_bounded() -> None:
    assert log_odds(np.array([0.0, 0.5, 0.8, 1.0])) == pytest.approx([-np.log(99), 0, np.log(4), np.log(99)])


def test_a_regression_on_one_switch_gives_the_shares() -> None:
    switch = np.array([0.0, 0.0, 1.0, 1.0])[:, None]
    kinds = np.array([0, 1, 0, 1])
    weights = np.array([9e4, 1e4, 2e4, 8e4])  # so many that the penalty does not matter
    model = SoftmaxRegression.fit(switch, kinds, weights, 2)
    assert model.probabilities(np.array([[0.0], [1.0]]))[:, 1] == pytest.approx([0.1, 0.8], abs=1e-3)


def test_a_kind_that_never_occurs_is_never_likely() -> None:
    rng = np.random.default_rng(0)
    model = SoftmaxRegression.fit(rng.normal(size=(50, 3)), rng.integers(0, 2, 50), np.ones(50), 3)
    probabilities = model.probabilities(rng.normal(size=(20, 3)))
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(20))
    assert probabilities[:, 2].max() < 0.01


def test_made_up_errors_are_errors() -> None:
    boxes, rng = made(), np.random.default_rng(0)
    rows = np.repeat(np.arange(3), 200)
    labels = Labels.of(boxes, rows)
    moved = made_up.moved(labels, rng)
    assert len(moved.images) > 100
    low = np.maximum(moved.boxes[:, :2], boxes.truth_boxes[moved.instead_of, :2])
    high = np.minimum(
        moved.boxes[:, :2] + moved.boxes[:, 2:],
        boxes.truth_boxes[moved.instead_of, :2] + boxes.truth_boxes[moved.instead_of, 2:],
    )
    inner = (high - low).clip(min=0).prod(axis=1)
    assert (inner / (moved.boxes[:, 2:].prod(axis=1) + 1600 - inner) < 0.6).all()
    renamed = made_up.renamed(labels, np.full(600, -1), 2, rng)
    assert (renamed.classes == 1).all()
    misplaced = made_up.misplaced(labels, boxes, rng)
    assert (crowding(misplaced, boxes) < 0.5).all()
    assert (misplaced.instead_of == -1).all()
