"""Totals of the batches of one optimizer step, over all ranks and gradient accumulation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist

from rtdetrv2_train.types import Batch, StepTotals


class OptimizerSteps:
    """Tells every batch the totals of its optimizer step.

    Ranks exchange two integers a step over their hosts, so that no device is waited for.

    Args:
        batches_per_step: batches that one rank accumulates.
        world_size: number of ranks, which all have to create and use this at the same time.
        timeout: how long to wait for a rank before giving up; None: PyTorch's half an hour.
    """

    def __init__(self, batches_per_step: int = 1, world_size: int = 1, timeout: timedelta | None = None) -> None:
        self.batches_per_step = batches_per_step
        self.world_size = world_size
        # its own group: NCCL's moves tensors on a device only
        self._hosts: Any = dist.new_group(backend="gloo", timeout=timeout) if world_size > 1 else None

    def of(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches, each with the totals of its step; a step is read as a whole before its first batch."""
        if self.batches_per_step == self.world_size == 1:
            yield from batches
            return
        iterator = iter(batches)
        while step := list(islice(iterator, self.batches_per_step)):
            totals = self._totals(step)
            yield from (Batch(batch.images, replace(batch.targets, step=totals)) for batch in step)

    def _totals(self, step: list[Batch]) -> StepTotals:
        counts = [batch.targets.counts for batch in step]
        own = torch.tensor([sum(map(sum, counts)), max(max(of_batch, default=0) for of_batch in counts)])
        of_ranks = [own]
        if self._hosts is not None:
            of_ranks = [torch.empty_like(own) for _ in range(self.world_size)]
            dist.all_gather(of_ranks, own, group=self._hosts)
        boxes, most = torch.stack(of_ranks).unbind(1)
        return StepTotals(max(int(boxes.sum()), 1) / (len(step) * self.world_size), int(most.max()))
