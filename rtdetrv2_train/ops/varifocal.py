"""Varifocal loss (Zhang et al., arXiv 2008.13367, equation 2).

Shape suffixes: G prediction sets, B batch, Q queries, C classes, K matched pairs of one set.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def varifocal_loss_reference(
    logits_GBQC: Tensor, matched: tuple[Tensor, ...], iou_GK: Tensor, alpha: float, gamma: float
) -> Tensor:
    """The plain formula that :func:`varifocal_loss` equals."""
    target = torch.zeros_like(logits_GBQC).index_put_(matched, iou_GK)
    weight = (logits_GBQC.detach().sigmoid().pow(gamma) * alpha).index_put_(matched, iou_GK)
    loss = F.binary_cross_entropy_with_logits(logits_GBQC, target, weight, reduction="none")
    return loss.flatten(1).sum(1)


def varifocal_loss(
    logits_GBQC: Tensor, matched: tuple[Tensor, ...], iou_GK: Tensor, alpha: float = 0.75, gamma: float = 2.0
) -> Tensor:
    """Varifocal loss, summed over each prediction set. The gradient is computed together with the loss.

    Args:
        logits_GBQC: class logits ``[G, B, Q, C]``.
        matched: indices of set, image, query and class of the matched pairs, each ``[G, K]`` or broadcastable to it.
        iou_GK: IoU of each pair, which is the target score, ``[G, K]`` without gradient.
        alpha: weight of the negatives: every query and class that is not matched.
        gamma: exponent of their score.

    Returns:
        ``[G]``.
    """
    loss_G: Tensor = _Varifocal.apply(logits_GBQC, matched, iou_GK, alpha, gamma)
    return loss_G


class _Varifocal(torch.autograd.Function):
    """A positive is weighted by the IoU q that it should predict, a negative by alpha * score^gamma.

    Binary cross-entropy of a logit x is softplus(x) - q * x, so the term with q concerns positives alone. Weights have
    no gradient, so that of x is weight * score - q^2. It is known as soon as the loss is.
    """

    @staticmethod
    def forward(
        ctx: Any, logits_GBQC: Tensor, at: tuple[Tensor, ...], iou_GK: Tensor, alpha: float, gamma: float
    ) -> Tensor:
        score = logits_GBQC.sigmoid()
        weight = score.pow(gamma).mul_(alpha).index_put_(at, iou_GK)
        # softplus(x) = max(x, 0) - log(max(score, 1 - score)) is exact in both tails; log1p is several times slower
        softplus = logits_GBQC.relu().sub_(torch.maximum(score, 1 - score).log_())
        everywhere_G = torch.linalg.vecdot(weight.flatten(1), softplus.flatten(1))
        if ctx.needs_input_grad[0]:
            matched_GK = iou_GK * (score[at] - iou_GK)
            ctx.save_for_backward(weight.mul_(score).index_put_(at, matched_GK))
        return everywhere_G - (iou_GK.square() * logits_GBQC[at]).sum(1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient_GBQC,) = ctx.saved_tensors
        return gradients[0][:, None, None, None] * gradient_GBQC, None, None, None, None
