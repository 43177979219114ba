"""Weighted sums of samples of a feature map: the inner loop of deformable attention.

Shape suffixes: N maps (batch x heads), C channels of a head, P points, Q queries, h and w height and width of a map.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rtdetrv2_train.ops.conv_norm_act import recompute_pays


def sample_bilinear_reference(values_NChw: Tensor, locations_NPQ2: Tensor, weights_NPQ: Tensor) -> Tensor:
    """The plain formula that :func:`sample_bilinear` equals."""
    samples_NCPQ = F.grid_sample(values_NChw, 2 * locations_NPQ2 - 1, align_corners=False)
    return (samples_NCPQ * weights_NPQ[:, None]).sum(2)


def sample_bilinear(values_NChw: Tensor, locations_NPQ2: Tensor, weights_NPQ: Tensor) -> Tensor:
    """Weighted sum of bilinear samples. Outside of the map every value is zero.

    Args:
        values_NChw: ``[N, C, h, w]``.
        locations_NPQ2: x and y in [0, 1], ``[N, P, Q, 2]``.
        weights_NPQ: ``[N, P, Q]``.

    Returns:
        ``[N, C, Q]``.
    """
    inputs = (values_NChw, 2 * locations_NPQ2 - 1, weights_NPQ)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs):
        sampled_NCQ: Tensor = _Bilinear.apply(*inputs)
        return sampled_NCQ
    samples_NCPQ = _samples(*inputs[:2])  # an autograd function could not be exported
    return samples_NCPQ.mul_(weights_NPQ[:, None]).sum(2)


def sample_nearest(values_NChw: Tensor, locations_NPQ2: Tensor, weights_NPQ: Tensor) -> Tensor:
    """As :func:`sample_bilinear`, but with the nearest pixels, so that no ``grid_sample`` is needed.

    Locations are clamped to the map: columns by its width, rows by its height.
    """
    height, width = values_NChw.shape[2:]
    column = (locations_NPQ2[..., 0] * width + 0.5).long().clamp(0, width - 1)
    row = (locations_NPQ2[..., 1] * height + 0.5).long().clamp(0, height - 1)
    index = (row * width + column).flatten(1)[:, None].expand(-1, values_NChw.shape[1], -1)
    samples = values_NChw.flatten(2).gather(2, index).unflatten(2, locations_NPQ2.shape[1:3])
    return (samples * weights_NPQ[:, None]).sum(2)


class _Bilinear(torch.autograd.Function):
    """Samples are the decoder's largest tensor and cheap to recompute. The backward pass recomputes large ones."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, grid: Tensor, weights: Tensor) -> Tensor:
        samples = _samples(values, grid)
        kept = None if recompute_pays(samples) else samples
        ctx.save_for_backward(values, grid, weights, kept)
        weights = weights[:, None]
        return (samples.mul_(weights) if kept is None else samples * weights).sum(2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        values, grid, weights, samples = ctx.saved_tensors
        if samples is None:
            samples = _samples(values, grid)
        gradient = gradients[0][:, :, None]
        of_weights = (samples * gradient).sum(1)
        of_values, of_grid = torch.ops.aten.grid_sampler_2d_backward(
            gradient * weights[:, None], values.to(grid.dtype), grid, 0, 0, False, [True, True]
        )
        return of_values.to(values.dtype), of_grid, of_weights.to(weights.dtype)


def _samples(values: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(values.to(grid.dtype), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
