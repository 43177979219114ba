from __future__ import annotations

import multiprocessing

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from rtdetrv2_train.boxes import cxcywh_to_xyxy, overlap
from rtdetrv2_train.loss import matcher as matching
from rtdetrv2_train.loss.matcher import HungarianMatcher, PendingAssignment
from rtdetrv2_train.ops.matching_cost import CostWeights, matching_cost, matching_cost_reference
from rtdetrv2_train.types import Targets
from tests.support import REFERENCE, made


def test_assignment_equals_the_reference() -> None:
    expected = np.load(REFERENCE / "matcher.npz")
    logits = made.uniform("mlogits", (3, 300, 80)) * 8 - 6
    u = made.uniform("mboxes", (3, 300, 4))
    boxes = torch.cat([u[..., :2], u[..., 2:] * 0.4 + 0.02], -1)
    targets = Targets.from_list(made.targets([7, 0, 60]))
    found = HungarianMatcher().begin(logits[None], boxes[None], targets).solve()
    for image, first in enumerate((0, 7, 7)):
        mine = targets.image_index[found.target[0]] == image
        pairs = {(int(q), int(t) - first) for q, t in zip(found.query[0][mine], found.target[0][mine], strict=True)}
        wanted = set(zip(expected[f"query_{image}"].tolist(), expected[f"target_{image}"].tolist(), strict=True))
        assert pairs == wanted


def test_each_prediction_set_is_matched_as_if_alone() -> None:
    logits, boxes = made.normal("logits", (3, 2, 30, 4)), made.uniform("boxes", (3, 2, 30, 4)) * 0.5 + 0.1
    targets = Targets.from_list(made.targets([40, 3], num_classes=4))
    matcher = HungarianMatcher()
    together = matcher.begin(logits, boxes, targets).solve()
    assert together.query.shape == (3, 30 + 3)  # 40 boxes share 30 queries
    for index in range(3):
        alone = matcher.begin(logits[index : index + 1], boxes[index : index + 1], targets).solve()
        assert torch.equal(alone.query[0], together.query[index])
        assert torch.equal(alone.target[0], together.target[index])


def test_several_threads_give_the_assignment_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, boxes = made.normal("logits", (3, 3, 30, 4)), made.uniform("boxes", (3, 3, 30, 4)) * 0.5 + 0.1
    targets = Targets.from_list(made.targets([9, 0, 4], num_classes=4))
    expected = HungarianMatcher().begin(logits, boxes, targets).solve()
    monkeypatch.setattr(matching, "THREADS_PAY_FROM", 0)
    found = HungarianMatcher().begin(logits, boxes, targets).solve()
    assert torch.equal(found.query, expected.query)
    assert torch.equal(found.target, expected.target)


def test_cost_is_the_sum_of_focal_l1_and_giou_costs() -> None:
    logits, boxes = made.normal("logits", (2, 1, 8, 4)), made.uniform("boxes", (2, 1, 8, 4)) * 0.5 + 0.1
    targets = Targets.from_list(made.targets([5], num_classes=4))
    probability = logits[:, 0].sigmoid()[:, :, targets.labels].transpose(1, 2)  # [G, N, Q]
    positive = 0.25 * (1 - probability) ** 2 * -(probability + 1e-8).log()
    negative = 0.75 * probability**2 * -(1 - probability + 1e-8).log()
    pairs = boxes[:, 0, None], targets.boxes[:, None]
    giou = overlap(cxcywh_to_xyxy(pairs[0]), cxcywh_to_xyxy(pairs[1]))[1]
    expected = 2 * (positive - negative) + 5 * (pairs[0] - pairs[1]).abs().sum(-1) - 2 * giou
    found = matching_cost(logits, boxes, targets, CostWeights())
    torch.testing.assert_close(
        matching_cost_reference(logits, boxes, targets, CostWeights()), found, rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(found, expected.transpose(0, 1), rtol=1e-5, atol=1e-5)


def test_total_cost_is_the_least_possible() -> None:
    logits, boxes = made.normal("logits", (1, 1, 8, 4)), made.uniform("boxes", (1, 1, 8, 4)) * 0.5 + 0.1
    targets = Targets.from_list(made.targets([5], num_classes=4))
    cost = matching_cost(logits, boxes, targets, CostWeights())[:, 0].numpy()
    rows, columns = linear_sum_assignment(cost)
    found = HungarianMatcher().begin(logits, boxes, targets).solve()
    assert cost[found.target[0], found.query[0]].sum() == pytest.approx(cost[rows, columns].sum())


def test_no_box_at_all_gives_no_pair() -> None:
    targets = Targets.from_list(made.targets([0, 0]))
    found = HungarianMatcher().begin(torch.zeros(2, 2, 9, 80), torch.rand(2, 2, 9, 4), targets).solve()
    assert found.query.shape == found.target.shape == (2, 0)


def test_predictions_with_nan_are_matched_last() -> None:
    targets = Targets.from_list(made.targets([2]))
    boxes = torch.rand(1, 1, 9, 4)
    boxes[0, 0, :7] = float("nan")
    found = HungarianMatcher().begin(torch.zeros(1, 1, 9, 80), boxes, targets).solve()
    assert sorted(found.query[0].tolist()) == [7, 8]


def test_a_forked_process_matches_with_threads_of_its_own() -> None:
    logits, boxes = made.normal("logits", (1, 1, 8, 4)), made.uniform("boxes", (1, 1, 8, 4)) * 0.5 + 0.1
    targets = Targets.from_list(made.targets([5], num_classes=4))
    HungarianMatcher().begin(logits, boxes, targets).solve()  # starts the threads of this process
    cost = matching_cost(logits, boxes, targets, CostWeights())

    def match() -> None:
        PendingAssignment(cost, targets.counts).solve()

    child = multiprocessing.get_context("fork").Process(target=match)
    child.start()
    child.join(timeout=30)
    child.kill()
    assert child.exitcode == 0
