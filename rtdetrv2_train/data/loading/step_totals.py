"""What the batches of one optimizer step hold together, over processes and accumulated batches."""

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

    Processes exchange two integers a step between their hosts, so that no device is waited for.

    Args:
        batches_per_step: accumulated batches of one process.
        world_size: number of processes, which all have to make and to use this at the same time.
        patience: how long to wait for a process before giving up; None: PyTorch's half an hour.
    """

    def __init__(self, batches_per_step: int = 1, world_size: int = 1, patience: timedelta | None = None) -> None:
        self.batches_per_step = batches_per_step
        self.world_size = world_size
        # of its own: NCCL's group moves what is on a device only
        self._hosts: Any = dist.new_group(backend="gloo", timeout=patience) if world_size > 1 else None

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
