"""Hungarian matching of predictions to ground truth (DETR, arXiv 2005.12872, section 3.1).

Costs of all layers and images are computed together, only between predictions and boxes of the same image, and cross to
the host in one copy, where SciPy solves the assignments.

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
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from rtdetrv2_train.batch import Targets
from rtdetrv2_train.boxes import cxcywh_to_xyxy

# below this many entries a problem is solved sooner than it is handed to another thread
THREADING_PAYS_FROM = 3_000
_HIGH_COST = 1e9


@dataclass(frozen=True)
class Assignment:
    """Pairs of query and ground-truth box.

    Attributes:
        query: int64 ``[G, K]``, or ``[1, K]`` when all sets share it: index of the query within its image.
        target: int64, same shape: index of the box among all boxes of the batch.
    """

    query: Tensor
    target: Tensor


class PendingAssignment:
    """Costs on their way to the host; other work can be queued on the device before :meth:`solve`."""

    def __init__(self, cost_GNQ: Tensor, counts: tuple[int, ...]) -> None:
        self._device = cost_GNQ.device
        self._counts = counts
        self._arrived: torch.cuda.Event | None = None
        if cost_GNQ.is_cuda:
            self._cost = torch.empty(cost_GNQ.shape, dtype=cost_GNQ.dtype, pin_memory=True)
            self._cost.copy_(cost_GNQ, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()
        else:
            self._cost = cost_GNQ.cpu()

    def solve(self) -> Assignment:
        """Wait for the costs and assign.

        Returns:
            for each set the pairs of least total cost; an image with more boxes than queries leaves some boxes out.
            Costs that are not finite, as of predictions that are not, count as high; the loss shows it.
        """
        if self._arrived is not None:
            self._arrived.synchronize()
        cost_GNQ = self._cost.numpy()
        if not np.isfinite(cost_GNQ).all():
            cost_GNQ = np.nan_to_num(cost_GNQ, nan=_HIGH_COST, posinf=_HIGH_COST, neginf=_HIGH_COST)
        num_sets = len(cost_GNQ)
        ends = list(accumulate(self._counts))
        spans = [(end - count, end) for end, count in zip(ends, self._counts, strict=True) if count]
        problems = [(cost_GNQ[index, start:end], start) for index in range(num_sets) for start, end in spans]
        if problems and max(cost.size for cost, _ in problems) >= THREADING_PAYS_FROM:
            solved = list(_threads().map(_solve, problems))
        else:
            solved = [_solve(problem) for problem in problems]
        pairs = np.concatenate(solved, 1) if solved else np.zeros((2, 0), dtype=np.int64)
        query, target = torch.from_numpy(pairs).to(self._device, non_blocking=True).view(2, num_sets, -1)
        return Assignment(query=query, target=target)


def _solve(problem: tuple[np.ndarray, int]) -> np.ndarray:
    """Pairs (query, box) as int64 ``[2, k]`` for a cost ``[n, Q]`` whose first box has the index ``start``."""
    cost, start = problem
    box, query = linear_sum_assignment(cost)
    return np.stack([query, box + start])


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(os.cpu_count() or 1, 8), thread_name_prefix="matcher")


class HungarianMatcher:
    """Matching costs of the paper: focal classification, L1 and GIoU.

    Args:
        class_weight: weight of the classification cost.
        box_weight: weight of the L1 distance of normalised cxcywh boxes.
        giou_weight: weight of the negative GIoU.
        alpha: balance of the focal cost.
        gamma: its exponent.
    """

    def __init__(
        self,
        class_weight: float = 2.0,
        box_weight: float = 5.0,
        giou_weight: float = 2.0,
        alpha: float = 0.25,
        gamma: float = 2.0,
    ) -> None:
        self.class_weight = class_weight
        self.box_weight = box_weight
        self.giou_weight = giou_weight
        self.alpha = alpha
        self.gamma = gamma

    @torch.no_grad()
    def begin(self, logits_GBQC: Tensor, boxes_GBQ4: Tensor, targets: Targets) -> PendingAssignment:
        """Compute the costs and send them to the host.

        Args:
            logits_GBQC: class logits, ``[G, B, Q, C]`` float32.
            boxes_GBQ4: cxcywh in [0, 1], ``[G, B, Q, 4]`` float32.
            targets: ground truth.
        """
        return PendingAssignment(self.costs(logits_GBQC, boxes_GBQ4, targets), targets.counts)

    def costs(self, logits_GBQC: Tensor, boxes_GBQ4: Tensor, targets: Targets) -> Tensor:
        """The cost of giving each box to each query of its image, ``[G, N, Q]``."""
        # Coordinates lie in planes [G, N, Q] of their own, not four by four, which every operation runs through faster;
        # what a prediction alone determines is computed once for all boxes of its image.
        corners_GBQ4 = cxcywh_to_xyxy(boxes_GBQ4)
        sizes_GBQ2 = corners_GBQ4[..., 2:] - corners_GBQ4[..., :2]
        area_GBQ1 = sizes_GBQ2[..., :1] * sizes_GBQ2[..., 1:]
        planes = torch.cat([boxes_GBQ4, corners_GBQ4, area_GBQ1], -1).permute(3, 0, 1, 2).contiguous()
        predicted = planes.index_select(2, targets.image_index)
        truth_corners = cxcywh_to_xyxy(targets.boxes)
        truth = torch.cat([targets.boxes, truth_corners], -1).t()[:, None, :, None]
        truth_size = truth_corners[:, 2:] - truth_corners[:, :2]
        truth_area_N1 = truth_size[:, :1] * truth_size[:, 1:]

        distance = (predicted[:4] - truth[:4]).abs_().sum(0)
        low, high, truth_low, truth_high = predicted[4:6], predicted[6:8], truth[4:6], truth[6:8]
        shared = torch.minimum(high, truth_high).sub_(torch.maximum(low, truth_low)).clamp_(min=0)
        hull = torch.maximum(high, truth_high).sub_(torch.minimum(low, truth_low))
        intersection, hull_area = shared[0] * shared[1], hull[0] * hull[1]
        union = (predicted[8] + truth_area_N1).sub_(intersection)
        giou = (intersection / union).sub_((hull_area - union).div_(hull_area))

        of_class = logits_GBQC.transpose(2, 3).contiguous()  # rows of queries, to be picked whole
        probability = of_class[:, targets.image_index, targets.labels].sigmoid_()
        absence = 1 - probability
        negative = (absence + 1e-8).log_().mul_(probability**self.gamma).mul_(self.alpha - 1)
        positive = (probability + 1e-8).log_().mul_(absence**self.gamma).mul_(-self.alpha)
        cost = distance.mul_(self.box_weight).add_(positive.sub_(negative), alpha=self.class_weight)
        return cost.sub_(giou, alpha=self.giou_weight)
