"""Hungarian matching of predictions to ground truth (DETR, arXiv 2005.12872, section 3.1).

Costs of all layers and images are computed together, only between predictions and boxes of the same image. A GPU solves
the assignments itself, without the host (``ops/assignment.py``). Elsewhere threads solve them with SciPy.

Shape suffixes: G prediction sets (decoder layers and the encoder), B batch, Q queries, C classes, N boxes of the batch,
K matched pairs of one set.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from rtdetrv2_train.ops.assignment import HIGH_COST, solve_assignments, solves_on
from rtdetrv2_train.ops.host_copy import HostCopy
from rtdetrv2_train.ops.matching_cost import CostWeights, matching_cost
from rtdetrv2_train.types import Targets

# number of costs of all assignments; smaller problems are solved faster by a single thread
THREADS_PAY_FROM = 2**20


@dataclass(frozen=True)
class Assignment:
    """Pairs of query and ground-truth box.

    Attributes:
        query: int64 ``[G, K]``, or ``[1, K]`` when all sets share it: index of the query within its image.
        target: int64, same shape: index of the box among all boxes of the batch.
    """

    query: Tensor
    target: Tensor


class SolvedAssignment:
    """Assignments that the device has been told to find."""

    def __init__(self, cost_NGQ: Tensor, targets: Targets) -> None:
        self._assignment = Assignment(*solve_assignments(cost_NGQ, targets.image_index, targets.counts))

    def solve(self) -> Assignment:
        """The assignments, on the device; the same as those of :class:`PendingAssignment` unless costs are equal."""
        return self._assignment


class PendingAssignment:
    """Assignments that threads solve as soon as their costs have arrived. Call :meth:`solve` when they are needed."""

    def __init__(self, cost_NGQ: Tensor, counts: tuple[int, ...]) -> None:
        self._device = cost_NGQ.device
        self._num_sets = cost_NGQ.shape[1]
        self._cost = HostCopy(cost_NGQ)
        ends = list(accumulate(counts))
        spans = [(end - count, end) for end, count in zip(ends, counts, strict=True) if count]
        problems = [(index, *span) for index in range(self._num_sets) for span in spans]
        tasks = [[problem] for problem in problems] if cost_NGQ.numel() >= THREADS_PAY_FROM else [problems]
        self._solved = [_threads().submit(self._solve, task) for task in tasks if task]

    def solve(self) -> Assignment:
        """Wait for the assignments.

        Returns:
            for each set the pairs of least total cost. An image with more boxes than queries leaves some boxes out.
            A cost that is NaN or Inf, because the prediction is, counts as high; the loss then shows NaN or Inf.
        """
        solved = [task.result() for task in self._solved]
        pairs = np.concatenate(solved, 1) if solved else np.zeros((2, 0), dtype=np.int64)
        query, target = torch.from_numpy(pairs).to(self._device, non_blocking=True).view(2, self._num_sets, -1)
        return Assignment(query=query, target=target)

    def _solve(self, problems: list[tuple[int, int, int]]) -> NDArray[np.int64]:
        """Pairs (query, box), ``[2, k]``, of problems given by the index of the set and the range of boxes."""
        cost = self._cost.read().numpy()
        pairs = []
        for index, start, end in problems:
            cost_nQ = cost[start:end, index]
            try:
                box, query = linear_sum_assignment(cost_nQ)
            except ValueError:  # a cost is NaN or Inf
                finite = np.nan_to_num(cost_nQ, nan=HIGH_COST, posinf=HIGH_COST, neginf=HIGH_COST)
                box, query = linear_sum_assignment(finite)
            pairs.append(np.stack([query, box + start]))
        return np.concatenate(pairs, 1)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(os.cpu_count() or 1, 8), thread_name_prefix="matcher")


if hasattr(os, "register_at_fork"):  # threads do not survive a fork: a child that waited for them would hang
    os.register_at_fork(after_in_child=_threads.cache_clear)


class HungarianMatcher:
    """Matching costs of the paper: focal classification, L1 and GIoU.

    Args:
        class_weight: weight of the classification cost.
        box_weight: weight of the L1 distance of normalised cxcywh boxes.
        giou_weight: weight of the negative GIoU.
        alpha: alpha of the focal cost.
        gamma: gamma of the focal cost.
    """

    def __init__(
        self,
        class_weight: float = 2.0,
        box_weight: float = 5.0,
        giou_weight: float = 2.0,
        alpha: float = 0.25,
        gamma: float = 2.0,
    ) -> None:
        self.weights = CostWeights(class_weight, box_weight, giou_weight, alpha, gamma)

    @torch.no_grad()
    def begin(self, logits_GBQC: Tensor, boxes_GBQ4: Tensor, targets: Targets) -> SolvedAssignment | PendingAssignment:
        """Compute the costs and start the search for assignments.

        Args:
            logits_GBQC: class logits, ``[G, B, Q, C]`` float32.
            boxes_GBQ4: cxcywh in [0, 1], ``[G, B, Q, 4]`` float32.
            targets: ground truth.
        """
        cost_NGQ = matching_cost(logits_GBQC, boxes_GBQ4, targets, self.weights)
        if solves_on(cost_NGQ.device.type):
            return SolvedAssignment(cost_NGQ, targets)
        return PendingAssignment(cost_NGQ, targets.counts)
