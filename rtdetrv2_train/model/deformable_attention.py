"""Multi-scale deformable attention with its own number of points per level (RT-DETRv2, sections 2.1 and 2.2).

Shape suffixes: B batch, Q queries, H heads, P points, D model width, C channels of a head, N positions of all feature
maps, h and w height and width of one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import Literal

import torch
from torch import Tensor, nn

from rtdetrv2_train.ops.deformable_sampling import sample_bilinear, sample_nearest

SamplingMethod = Literal["default", "discrete"]


class MultiScaleDeformableAttention(nn.Module):
    """Each query samples a few points of each feature map around its reference box.

    Args:
        width: model width D.
        num_heads: number of heads H, a divisor of ``width``.
        num_points: sampling points per head for each level.
        method: ``default`` samples bilinearly; ``discrete`` reads the nearest pixel, which needs no ``grid_sample`` at
            deployment. Discrete sampling gives the offsets no gradient, so they are frozen.
        offset_scale: scale of the offsets as a fraction of the reference box.

    Raises:
        ValueError: if ``method`` is unknown.
    """

    num_points_scale: Tensor

    def __init__(
        self,
        width: int,
        num_heads: int,
        num_points: Sequence[int],
        method: SamplingMethod = "default",
        offset_scale: float = 0.5,
    ) -> None:
        super().__init__()
        if method not in ("default", "discrete"):
            raise ValueError(f"unknown sampling method '{method}': use default or discrete")
        self.num_heads = num_heads
        self.num_points = list(num_points)
        self.method = method
        self.offset_scale = offset_scale
        total_points = num_heads * sum(num_points)
        self.sampling_offsets = nn.Linear(width, total_points * 2)
        self.attention_weights = nn.Linear(width, total_points)
        self.value_proj = nn.Linear(width, width)
        self.output_proj = nn.Linear(width, width)
        self.register_buffer("num_points_scale", torch.tensor([1 / n for n in num_points for _ in range(n)]))
        self._reset_parameters()
        self.sampling_offsets.requires_grad_(method == "default")

    def _reset_parameters(self) -> None:
        # At the start each head looks in one direction, its n-th point n steps away (Deformable DETR, section A.4).
        angles = torch.arange(self.num_heads) * (2.0 * math.pi / self.num_heads)
        directions_H2 = torch.stack([angles.cos(), angles.sin()], -1)
        directions_H2 = directions_H2 / directions_H2.abs().amax(-1, keepdim=True)
        steps_P = torch.cat([torch.arange(1, n + 1) for n in self.num_points])
        nn.init.zeros_(self.sampling_offsets.weight)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_((directions_H2[:, None] * steps_P[None, :, None]).flatten())
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(self, query_BQD: Tensor, reference_BQ4: Tensor, values: Sequence[Tensor]) -> Tensor:
        """Attend to the feature maps.

        Args:
            query_BQD: queries with their position embedding, ``[B, Q, D]``.
            reference_BQ4: reference boxes, cxcywh in [0, 1], ``[B, Q, 4]``.
            values: what is sampled, ``[B, D, h, w]`` for each level: :meth:`values` of the feature maps.

        Returns:
            ``[B, Q, D]``.
        """
        batch, num_queries, _ = query_BQD.shape
        heads = self.num_heads
        # Queries are the innermost dimension, which is fastest for every operation. Heads are merged with the batch,
        # as grid_sample has no dimension of its own for them.
        offsets_BHPQ2 = self.sampling_offsets(query_BQD).view(batch, num_queries, heads, -1, 2).permute(0, 2, 3, 1, 4)
        logits_BHPQ = self.attention_weights(query_BQD).view(batch, num_queries, heads, -1).permute(0, 2, 3, 1)
        weights = logits_BHPQ.flatten(0, 1).softmax(1)

        reference_B11Q4 = reference_BQ4[:, None, None]
        reach = reference_B11Q4[..., 2:] * (self.num_points_scale[:, None, None] * self.offset_scale)
        locations = (reference_B11Q4[..., :2] + offsets_BHPQ2 * reach).flatten(0, 1)

        sample = sample_bilinear if self.method == "default" else sample_nearest
        of_level = zip(values, locations.split(self.num_points, 1), weights.split(self.num_points, 1), strict=True)
        parts = [
            sample(value_BDhw.unflatten(1, (heads, -1)).flatten(0, 1), points, weight)
            for value_BDhw, points, weight in of_level
        ]
        attended = reduce(torch.add, parts)  # [B * H, C, Q]
        return self.output_proj(attended.view(batch, -1, num_queries).transpose(1, 2))

    def values(self, memory_BND: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
        """``value_proj`` of every position, in the layout that sampling needs.

        Args:
            memory_BND: positions of all feature maps, one map after the other, ``[B, N, D]``.
            sizes: (height, width) of each map.

        Returns:
            ``[B, D, h, w]`` for each level.
        """
        weight_BDD = self.value_proj.weight.expand(memory_BND.shape[0], -1, -1)
        values_BDN = torch.baddbmm(self.value_proj.bias[:, None], weight_BDD, memory_BND.transpose(1, 2))
        parts = values_BDN.split([height * width for height, width in sizes], 2)
        return [part.unflatten(2, size) for part, size in zip(parts, sizes, strict=True)]
