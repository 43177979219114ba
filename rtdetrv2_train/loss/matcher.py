"""Hungarian matching of predictions to ground truth (DETR, arXiv 2005.12872, section 3.1).

Costs of all layers and images are computed together, only between predictions and boxes of the same image, and cross to
the host in one copy, where threads solve the assignments with SciPy while the device goes on.

Shape suffixes: G prediction sets (decoder layers and the encoder), B batch, Q queries, C classes, N boxes of the batch,
K matched pairs of one set.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from rtdetrv2_train.batch import Targets

# entries of all problems; fewer are solved by one thread before several have passed them around
THREADS_PAY_FROM = 2**20
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
    """Assignments that threads solve as soon as their costs have arrived; other work can go on before :meth:`solve`."""

    def __init__(self, cost_NGQ: Tensor, counts: tuple[int, ...]) -> None:
        self._device = cost_NGQ.device
        self._num_sets = cost_NGQ.shape[1]
        self._arrived: torch.cuda.Event | None = None
        if cost_NGQ.is_cuda:
            cost = torch.empty(cost_NGQ.shape, dtype=cost_NGQ.dtype, pin_memory=True)
            cost.copy_(cost_NGQ, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()
        else:
            cost = cost_NGQ.cpu()
        self._cost: NDArray[np.floating[Any]] = cost.numpy()
        ends = list(accumulate(counts))
        spans = [(end - count, end) for end, count in zip(ends, counts, strict=True) if count]
        problems = [(index, *span) for index in range(self._num_sets) for span in spans]
        tasks = [[problem] for problem in problems] if self._cost.size >= THREADS_PAY_FROM else [problems]
        self._solved = [_threads().submit(self._solve, task) for task in tasks if task]

    def solve(self) -> Assignment:
        """Wait for the assignments.

        Returns:
            for each set the pairs of least total cost; an image with more boxes than queries leaves some boxes out.
            Costs that are not finite, as of predictions that are not, count as high; the loss shows it.
        """
        solved = [task.result() for task in self._solved]
        pairs = np.concatenate(solved, 1) if solved else np.zeros((2, 0), dtype=np.int64)
        query, target = torch.from_numpy(pairs).to(self._device, non_blocking=True).view(2, self._num_sets, -1)
        return Assignment(query=query, target=target)

    def _solve(self, problems: list[tuple[int, int, int]]) -> NDArray[np.int64]:
        """Pairs (query, box), ``[2, k]``, of problems given by the index of their set and the span of their boxes."""
        if self._arrived is not None:
            self._arrived.synchronize()
        pairs = []
        for index, start, end in problems:
            cost_nQ = self._cost[start:end, index]
            try:
                box, query = linear_sum_assignment(cost_nQ)
            except ValueError:  # costs that are not finite
                finite = np.nan_to_num(cost_nQ, nan=_HIGH_COST, posinf=_HIGH_COST, neginf=_HIGH_COST)
                box, query = linear_sum_assignment(finite)
            pairs.append(np.stack([query, box + start]))
        return np.concatenate(pairs, 1)


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
        """The cost of giving each box to each query of its image, ``[N, G, Q]``."""
        # Of two intervals with centres c and half lengths h, the hull is h + h' + d long and h + h' - d are
        # shared, where d is the larger of |c - c'| and |h - h'|: what the L1 cost is made of gives GIoU too, without
        # corners. Numbers of one kind lie side by side, which every operation runs through faster; R is G x Q.
        num_classes = logits_GBQC.shape[-1]
        truth_N5 = _centre_half_area(targets.boxes)
        predicted_BR5 = _centre_half_area(boxes_GBQ4.transpose(0, 1).flatten(1, 2))
        predicted_N5R = predicted_BR5.transpose(1, 2).contiguous().index_select(0, targets.image_index)
        truth_N51 = truth_N5[..., None]
        distance_N4R = (predicted_N5R[:, :4] - truth_N51[:, :4]).abs_()
        centre_N2R, half_N2R = distance_N4R[:, :2], distance_N4R[:, 2:]
        cost_NR = torch.add(centre_N2R, half_N2R, alpha=2).sum(1).mul_(self.box_weight)

        shift_N2R = torch.maximum(centre_N2R, half_N2R)
        reach_N2R = predicted_N5R[:, 2:4] + truth_N51[:, 2:4]
        width_NR, height_NR = (reach_N2R - shift_N2R).clamp_(min=0).unbind(1)
        intersection_NR = width_NR.mul_(height_NR)
        width_NR, height_NR = reach_N2R.add_(shift_N2R).unbind(1)
        hull_NR = width_NR.mul_(height_NR)
        union_NR = (predicted_N5R[:, 4] + truth_N51[:, 4]).sub_(intersection_NR)
        cost_NR.sub_(intersection_NR.div_(union_NR), alpha=self.giou_weight)
        cost_NR.sub_(union_NR.div_(hull_NR).sub_(1), alpha=self.giou_weight)

        of_class = logits_GBQC.permute(1, 3, 0, 2).reshape(-1, cost_NR.shape[1])  # rows for each image and class
        score_NR = of_class.index_select(0, targets.image_index * num_classes + targets.labels).sigmoid_()
        absence_NR = 1 - score_NR
        negative_NR, positive_NR = score_NR.pow(self.gamma), absence_NR.pow(self.gamma)
        cost_NR.addcmul_(negative_NR, absence_NR.add_(1e-8).log_(), value=self.class_weight * (1 - self.alpha))
        cost_NR.addcmul_(positive_NR, score_NR.add_(1e-8).log_(), value=-self.class_weight * self.alpha)
        return cost_NR.unflatten(1, (len(logits_GBQC), -1))


def _centre_half_area(boxes: Tensor) -> Tensor:
    """Of cxcywh ``[..., 4]``: centre x, centre y, half width, half height and area, ``[..., 5]``."""
    return torch.cat([boxes[..., :2], boxes[..., 2:] * 0.5, boxes[..., 2:].prod(-1, keepdim=True)], -1)
