"""Matchability-aware loss, MAL (DEIM, Huang et al., arXiv 2412.04234; exponents and weights as in their code).

Shape suffixes: G prediction sets, B batch, Q queries, C classes, K matched pairs of one set.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def mal_loss_reference(logits_GBQC: Tensor, matched: tuple[Tensor, ...], iou_GK: Tensor, gamma: float) -> Tensor:
    """The plain formula that :func:`mal_loss` equals."""
    target = torch.zeros_like(logits_GBQC).index_put_(matched, iou_GK.pow(gamma))
    weight = logits_GBQC.detach().sigmoid().pow(gamma).index_put_(matched, torch.ones_like(iou_GK))
    loss = F.binary_cross_entropy_with_logits(logits_GBQC, target, weight, reduction="none")
    return loss.flatten(1).sum(1)


def mal_loss(logits_GBQC: Tensor, matched: tuple[Tensor, ...], iou_GK: Tensor, gamma: float = 1.5) -> Tensor:
    """MAL, summed over each prediction set. The gradient is computed together with the loss.

    With the score p and the IoU q, a matched pair costs ``-(q^gamma log p + (1 - q^gamma) log(1 - p))``, everything
    else ``-p^gamma log(1 - p)``, where the factor ``p^gamma`` has no gradient.

    Args:
        logits_GBQC: class logits ``[G, B, Q, C]``.
        matched: indices of set, image, query and class of the matched pairs, each ``[G, K]`` or broadcastable to it.
        iou_GK: IoU of each pair, ``[G, K]`` without gradient.
        gamma: exponent of the IoU that a score should reach, and of the score of negatives.

    Returns:
        ``[G]``.
    """
    loss_G: Tensor = _MAL.apply(logits_GBQC, matched, iou_GK, gamma)
    return loss_G


class _MAL(torch.autograd.Function):
    """A positive counts in full and should score q^gamma, a negative is weighted by score^gamma.

    Binary cross-entropy of a logit x is softplus(x) - target * x, so the term with a target concerns positives alone.
    Weights have no gradient, so that of x is weight * (score - target). It is known as soon as the loss is.
    """

    @staticmethod
    def forward(ctx: Any, logits_GBQC: Tensor, at: tuple[Tensor, ...], iou_GK: Tensor, gamma: float) -> Tensor:
        score = logits_GBQC.sigmoid()
        target_GK = iou_GK.pow(gamma)
        weight = _power(score, gamma).index_put_(at, torch.ones_like(iou_GK))
        # softplus(x) = max(x, 0) - log(max(score, 1 - score)) is exact in both tails; log1p is several times slower
        softplus = logits_GBQC.relu().sub_(torch.maximum(score, 1 - score).log_())
        everywhere_G = torch.linalg.vecdot(weight.flatten(1), softplus.flatten(1))
        if ctx.needs_input_grad[0]:
            matched_GK = score[at] - target_GK
            ctx.save_for_backward(weight.mul_(score).index_put_(at, matched_GK))
        return everywhere_G - (target_GK * logits_GBQC[at]).sum(1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient_GBQC,) = ctx.saved_tensors
        return gradients[0][:, None, None, None] * gradient_GBQC, None, None, None


def _power(score: Tensor, gamma: float) -> Tensor:
    """``score ** gamma`` as a new tensor. PyTorch has no short way for 1.5, and its ``pow`` is ten times slower."""
    return score.sqrt().mul_(score) if gamma == 1.5 else score.pow(gamma)
