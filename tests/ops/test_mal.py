"""MAL's value and gradient, against the plain formula in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rtdetrv2_train.ops.mal import mal_loss, mal_loss_reference

AT = (torch.tensor([[0], [1]]), torch.tensor([1]), torch.tensor([[2], [0]]), torch.tensor([3]))
IOU = torch.tensor([[0.7], [0.2]], dtype=torch.float64)


def by_hand(logits: Tensor, gamma: float) -> Tensor:
    """As published, one logit after the other."""
    score, factor = logits.sigmoid(), logits.detach().sigmoid().pow(gamma)
    total = -factor * (1 - score).log()
    for pair, (place, iou) in enumerate(zip([(0, 1, 2, 3), (1, 1, 0, 3)], IOU.flatten(), strict=True)):
        q = iou**gamma
        positive = -(q * score[place].log() + (1 - q) * (1 - score[place]).log())
        change = torch.zeros_like(total)
        change[place] = 1
        total = total * (1 - change) + positive * change
        assert pair == place[0]
    return total.flatten(1).sum(1)


def value_and_gradient(function: object, logits: Tensor, *arguments: object) -> tuple[Tensor, Tensor]:
    leaf = logits.clone().requires_grad_()
    loss = function(leaf, *arguments)  # type: ignore[operator]
    (loss * torch.tensor([1.0, 3.0])).sum().backward()
    assert leaf.grad is not None
    return loss.detach(), leaf.grad


@pytest.mark.parametrize("gamma", [1.5, 2.0, 1.0])
def test_value_and_gradient_are_those_of_the_published_formula(gamma: float) -> None:
    logits = torch.linspace(-8, 8, 48, dtype=torch.float64).view(2, 2, 3, 4)
    expected = value_and_gradient(by_hand, logits, gamma)
    for function in (mal_loss_reference, mal_loss):
        found = value_and_gradient(function, logits, AT, IOU, gamma)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("gamma", [1.5, 2.0])
def test_value_and_gradient_are_exact_for_any_logit(gamma: float) -> None:
    logits = torch.linspace(-60, 60, 48, dtype=torch.float64).view(2, 2, 3, 4)
    expected = value_and_gradient(mal_loss_reference, logits, AT, IOU, gamma)
    torch.testing.assert_close(value_and_gradient(mal_loss, logits, AT, IOU, gamma), expected, rtol=1e-12, atol=1e-12)


def test_a_positive_is_best_where_its_score_is_the_power_of_the_iou() -> None:
    logits = torch.logit(torch.tensor(0.25**1.5, dtype=torch.float64)).view(1, 1, 1, 1).requires_grad_()
    at = tuple(torch.zeros(1, 1, dtype=torch.int64) for _ in range(4))
    mal_loss(logits, at, torch.tensor([[0.25]], dtype=torch.float64)).sum().backward()
    assert logits.grad is not None
    assert logits.grad.item() == pytest.approx(0, abs=1e-15)


def test_a_poor_match_counts_in_full() -> None:
    """Where varifocal loss weights a positive by its IoU, so that one of IoU 0 has no gradient."""
    logits = torch.zeros(1, 1, 1, 1, requires_grad=True)
    at = tuple(torch.zeros(1, 1, dtype=torch.int64) for _ in range(4))
    mal_loss(logits, at, torch.zeros(1, 1)).sum().backward()
    assert logits.grad is not None
    assert logits.grad.item() == pytest.approx(0.5)


def test_a_set_without_a_matched_pair_has_negatives_alone() -> None:
    logits = torch.randn(1, 1, 2, 3, dtype=torch.float64)
    at = tuple(torch.zeros(1, 0, dtype=torch.int64) for _ in range(4))
    expected = -(logits.sigmoid().pow(1.5) * torch.log1p(-logits.sigmoid())).sum()
    found = mal_loss(logits, at, torch.zeros(1, 0, dtype=torch.float64))
    torch.testing.assert_close(found, expected[None], rtol=1e-12, atol=1e-12)
