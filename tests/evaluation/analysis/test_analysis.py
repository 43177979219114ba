"""What the analysis says about detections whose faults are known."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from rtdetrv2_train.evaluation.analysis.analysis import Analysis, analyse
from rtdetrv2_train.evaluation.analysis.curves import average_precision
from rtdetrv2_train.evaluation.analysis.mistakes import KINDS
from rtdetrv2_train.evaluation.coco import CocoEvaluator
from tests.evaluation.coco_objects import as_ground_truth
from tests.evaluation.test_coco import annotation, detections, ground_truth, random_case


def analysed(truth: dict[str, Any], categories: list[int], found: Any, images: list[int]) -> Analysis:
    evaluator = CocoEvaluator(as_ground_truth(truth), categories)
    evaluator.update(found, torch.tensor(images))
    return analyse(evaluator)


def scene(*found: tuple[int, list[float], float], boxes: tuple[tuple[int, list[float]], ...]) -> Analysis:
    """One image of classes 1 and 2 with the given boxes (xywh) and detections (class, xyxy, score)."""
    truth = ground_truth([1], [1, 2], [annotation(k + 1, 1, c, box) for k, (c, box) in enumerate(boxes)])
    labels, corners, scores = [[f[0] - 1 for f in found]], [[f[1] for f in found]], [[f[2] for f in found]]
    return analysed(truth, [1, 2], detections(labels, corners, scores), [1])


SQUARE = (1, [0.0, 0.0, 40.0, 40.0])
OTHER = (2, [100.0, 100.0, 40.0, 40.0])
ON_SQUARE = [0.0, 0.0, 40.0, 40.0]
ON_OTHER = [100.0, 100.0, 140.0, 140.0]


@pytest.mark.parametrize("seed", range(40))
def test_matches_give_the_ap50_of_the_benchmark_for_every_class(seed: int) -> None:
    analysis = analysed(*random_case(seed))
    boxes, matches = analysis.boxes, analysis.matches
    for k, of_class in enumerate(analysis.metrics.per_class):
        rows = np.flatnonzero(matches.counted & (boxes.found_classes == k))
        rows = rows[np.argsort(matches.place[rows])]
        found = average_precision(matches.truth_of[rows] >= 0, of_class.num_boxes)
        assert found == pytest.approx(of_class.AP50, abs=1e-9)
        if of_class.num_boxes:
            assert analysis.curves[k].precision_at_recall.mean() == pytest.approx(of_class.AP50)


@pytest.mark.parametrize(
    ("detection", "kind"),
    [
        ((1, ON_SQUARE, 0.9), "right"),
        ((2, ON_SQUARE, 0.9), "classification"),
        ((1, [0, 0, 40, 16], 0.9), "localisation"),
        ((2, [0, 0, 40, 16], 0.9), "both"),
        ((1, [300, 300, 340, 340], 0.9), "background"),
    ],
)
def test_each_kind_of_mistake_is_recognised(detection: tuple[int, list[float], float], kind: str) -> None:
    analysis = scene(detection, boxes=(SQUARE,))
    assert KINDS[analysis.mistakes.kind[0]] == kind
    assert analysis.mistakes.missed[0] == (kind in ("both", "background"))


def test_a_second_detection_of_a_box_is_a_duplicate() -> None:
    analysis = scene((1, ON_SQUARE, 0.9), (1, [1, 1, 41, 41], 0.8), boxes=(SQUARE,))
    assert [KINDS[kind] for kind in analysis.mistakes.kind] == ["right", "duplicate"]


def test_correcting_a_mistake_gains_the_ap_it_costs() -> None:
    # One of two classes is found; the other's only box was taken for the first class, with the lower score.
    analysis = scene((1, ON_SQUARE, 0.9), (1, ON_OTHER, 0.8), boxes=(SQUARE, OTHER))
    assert analysis.metrics.AP50 == pytest.approx(0.5)
    costs = analysis.mistakes.cost
    assert costs["classification"] == pytest.approx(0.5)
    assert [name for name, cost in costs.items() if cost > 1e-9] == ["classification"]


def test_a_false_alarm_before_the_right_one_costs_and_a_missed_box_costs() -> None:
    false_alarm = scene((1, [300, 300, 340, 340], 0.9), (1, ON_SQUARE, 0.8), boxes=(SQUARE,))
    assert false_alarm.mistakes.cost["background"] == pytest.approx(0.5)
    missed = scene((1, ON_SQUARE, 0.8), boxes=(SQUARE, (1, [200.0, 0.0, 40.0, 40.0])))
    assert missed.mistakes.cost["missed"] == pytest.approx(1 - 51 / 101)


def test_the_confusion_matrix_counts_every_sure_detection_and_every_box_once() -> None:
    analysis = scene(
        (1, ON_SQUARE, 0.9),
        (1, ON_OTHER, 0.9),
        (2, [300, 300, 340, 340], 0.9),
        boxes=(SQUARE, OTHER, (2, [0, 200, 9, 9])),
    )
    assert analysis.confusion.tolist() == [[1, 0, 0], [1, 0, 1], [0, 1, 0]]
    for seed in range(10):
        analysis = analysed(*random_case(seed))
        wanted = np.bincount(
            analysis.boxes.truth_classes[~analysis.boxes.truth_crowd], minlength=len(analysis.confusion) - 1
        )
        assert analysis.confusion[:-1].sum(1).tolist() == wanted.tolist()


def test_the_best_threshold_is_where_f1_is_highest() -> None:
    analysis = scene(
        (1, ON_SQUARE, 0.8), (1, [300, 300, 340, 340], 0.3), (1, [400, 300, 440, 340], 0.2), boxes=(SQUARE,)
    )
    curves = analysis.curves[0]
    assert 0.3 < curves.best_threshold <= 0.8
    assert curves.f1[curves.best] == 1
    assert curves.precision[10] == pytest.approx(1 / 3)
    assert curves.recall[90] == 0
    assert analysis.threshold == curves.best_threshold
    assert analysis.image_f1.tolist() == [1]


def test_scores_that_are_right_as_often_as_they_say_are_calibrated() -> None:
    rng = np.random.default_rng(0)
    number, score = 400, 0.75
    right = rng.random(number) < score
    boxes = [annotation(k + 1, k + 1, 1, [0.0, 0.0, 40.0, 40.0]) for k in range(number)]
    truth = ground_truth(list(range(1, number + 1)), [1], boxes)
    corners = np.where(right[:, None], [ON_SQUARE], [ON_OTHER])[:, None]
    images = list(range(1, number + 1))
    honest = analysed(truth, [1], detections(np.zeros((number, 1)), corners, np.full((number, 1), score)), images)
    boastful = analysed(truth, [1], detections(np.zeros((number, 1)), corners, np.full((number, 1), 0.99)), images)
    assert honest.calibration.count[7] == number
    assert honest.calibration.right[7] == right.mean()
    assert honest.calibration.expected_error < 0.05
    assert boastful.calibration.expected_error > 0.2


def test_crowds_and_sizes_count_as_in_the_benchmark() -> None:
    truth = ground_truth(
        [1],
        [1],
        [annotation(1, 1, 1, [0.0, 0.0, 20.0, 20.0]), annotation(2, 1, 1, [100.0, 100.0, 300.0, 300.0], crowd=1)],
    )
    found = detections([[0, 0]], [[[0, 0, 20, 20], [150, 150, 200, 200]]], [[0.8, 0.9]])
    analysis = analysed(truth, [1], found, [1])
    assert analysis.matches.counted.tolist() == [True, False]
    assert analysis.curves[0].num_boxes == 1
    assert analysis.size_AP[0].tolist() == pytest.approx([1, -1, -1])
    assert analysis.confusion.tolist() == [[1, 0], [0, 0]]


def test_nothing_found_and_nothing_to_find_can_be_analysed() -> None:
    for to_find in ([], [annotation(1, 1, 1, [0.0, 0.0, 20.0, 20.0])]):
        truth = ground_truth([1], [1], to_find)
        analysis = analysed(truth, [1], detections(np.zeros((1, 0)), np.zeros((1, 0, 4)), np.zeros((1, 0))), [1])
        (row,) = json.loads(json.dumps(analysis.as_dict(), allow_nan=False))["classes"]
        assert (row["AP"], row["F1"]) == ((0, 0) if to_find else (None, None))
        assert analysis.mistakes.missed.sum() == len(to_find)
