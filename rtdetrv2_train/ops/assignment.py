"""Exact assignment on the device: one Triton program solves the problem of one image in one prediction set.

It is the algorithm of SciPy's ``linear_sum_assignment`` (shortest augmenting paths with dual variables, Crouse 2016) in
double precision, so that both find the same least cost. The host neither waits for the costs nor for the pairs.

Shape suffixes: G prediction sets, B batch, Q queries, N boxes of the batch, K matched pairs of one set.
"""

from __future__ import annotations

import functools
import logging

import torch
from torch import Tensor

HIGH_COST = 1e9  # of a pair whose cost is NaN or Inf

log = logging.getLogger(__name__)


@functools.cache
def solves_on(device_type: str) -> bool:
    """Whether :func:`solve_assignments` can be used on devices of this type, which is tried once on a small problem.

    Triton comes with PyTorch for GPUs, but not for every system. It also needs a C compiler when it first runs.
    """
    if device_type != "cuda":
        return False
    try:
        cost_NGQ = torch.zeros(1, 1, 2, device=device_type)
        solve_assignments(cost_NGQ, torch.zeros(1, dtype=torch.int64, device=device_type), (1,))
    except Exception as error:  # whatever Triton, its compiler or the driver raise
        log.warning("assignments are solved by SciPy, which a GPU has to wait for, as Triton fails: %s", error)
        return False
    return True


def solve_assignments(cost_NGQ: Tensor, image_index_N: Tensor, counts: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The pairs of least total cost, for every image and every prediction set.

    Args:
        cost_NGQ: cost of each box with each query of its image, ``[N, G, Q]``, on a GPU. NaN and Inf count as high.
        image_index_N: int64 ``[N]``, the image of each box, in ascending order; on the same device.
        counts: number of boxes of each image, on the host.

    Returns:
        query and box of each pair, int64 ``[G, K]`` each, on the device. K is the sum over images of the smaller of
        their boxes and the queries. Boxes are indices among all N.
    """
    num_boxes, _, num_queries = cost_NGQ.shape
    device = cost_NGQ.device
    pairs = [min(count, num_queries) for count in counts]
    image_B = torch.arange(len(counts), device=device)
    first_B = torch.searchsorted(image_index_N, image_B)
    count_B = torch.searchsorted(image_index_N, image_B, right=True) - first_B
    pairs_B = count_B.clamp(max=num_queries)
    first_pair_B = pairs_B.cumsum(0) - pairs_B
    column_GK = _columns(cost_NGQ, first_B, count_B, first_pair_B, sum(pairs), max(counts, default=0))
    if max(counts, default=0) <= num_queries:  # the rows are boxes, each of which has its pair
        return column_GK, torch.arange(num_boxes, device=device).expand_as(column_GK)
    # In an image with more boxes than queries the rows are queries.
    image_K = torch.repeat_interleave(image_B, pairs_B, output_size=sum(pairs))
    row_K = torch.arange(sum(pairs), device=device) - first_pair_B[image_K]
    swapped_K, first_K = (count_B > num_queries)[image_K], first_B[image_K]
    query_GK = torch.where(swapped_K, row_K, column_GK)
    return query_GK, torch.where(swapped_K, column_GK, row_K) + first_K


@torch.library.custom_op("rtdetrv2_train::assigned_columns", mutates_args=())
def _columns(
    cost_NGQ: Tensor, first_B: Tensor, count_B: Tensor, first_pair_B: Tensor, num_pairs: int, most_boxes: int
) -> Tensor:
    column_GK = first_B.new_empty(cost_NGQ.shape[1], num_pairs)
    if num_pairs:
        from rtdetrv2_train.ops import assignment_kernel  # imports Triton

        assignment_kernel.launch(cost_NGQ, first_B, count_B, first_pair_B, column_GK, most_boxes)
    return column_GK


@_columns.register_fake
def _shape_of_columns(
    cost_NGQ: Tensor, first_B: Tensor, count_B: Tensor, first_pair_B: Tensor, num_pairs: int, most_boxes: int
) -> Tensor:
    return first_B.new_empty(cost_NGQ.shape[1], num_pairs)
