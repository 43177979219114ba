"""How the total batch of an optimizer step is shared out over processes and accumulated batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.training.recipe import AUTO


@dataclass(frozen=True)
class BatchSplit:
    """A total batch in equal parts.

    Attributes:
        processes: number of processes, one for each device.
        accumulated: batches that each of them accumulates for one optimizer step.
        batch_size: images of one such batch.
    """

    processes: int
    accumulated: int
    batch_size: int

    @property
    def total(self) -> int:
        """Images of one optimizer step."""
        return self.processes * self.accumulated * self.batch_size

    def about_norms(self, model: nn.Module, synchronised: bool) -> str | None:
        """What to tell a user whose batch norms see less than the step, so that results depend on the split."""
        seen = self.batch_size * (self.processes if synchronised else 1)
        if seen == self.total or not any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
            return None
        mend = (
            "" if synchronised or self.processes == 1 else "; trainer.sync_batchnorm=true shares them among processes"
        )
        return (
            f"batch norms take their statistics from {seen} images at a time, not from the {self.total} of a step{mend}"
        )

    def __str__(self) -> str:
        parts = [f"{self.processes} processes" if self.processes > 1 else "1 process", f"{self.batch_size} images"]
        if self.accumulated > 1:
            parts.append(f"{self.accumulated} accumulated batches")
        return f"{self.total} images a step: {' x '.join(parts)}"


def split_batch(
    total: int, processes: int, accumulated: int | Literal["auto"] = AUTO, most_per_device: int | None = None
) -> BatchSplit:
    """Share out the total batch.

    Args:
        total: images of one optimizer step.
        processes: number of processes.
        accumulated: batches of each process; ``auto``: as few as ``most_per_device`` allows.
        most_per_device: images that a device holds at once; None: all of its share.

    Raises:
        UserError: if that is impossible.
    """
    if accumulated == AUTO:
        share = _equal_parts(total, processes, f"{processes} processes")
        most = most_per_device or share
        batches = next(n for n in range(1, share + 1) if share % n == 0 and share // n <= most)
    else:
        batches = int(accumulated)
    what = f"{processes} processes with {batches} accumulated batches each"
    batch_size = _equal_parts(total, processes * batches, what)
    if most_per_device and batch_size > most_per_device:
        raise UserError(
            f"recipe.max_device_batch_size={most_per_device} does not allow batches of {batch_size}, which "
            f"trainer.accumulate_grad_batches={batches} asks for: leave it at auto"
        )
    return BatchSplit(processes, batches, batch_size)


def _equal_parts(total: int, parts: int, what: str) -> int:
    if total >= parts and total % parts == 0:
        return total // parts
    sizes = [size for size in (total // parts * parts, (total // parts + 1) * parts) if size]
    divisors = [n for n in range(1, total + 1) if total % n == 0]
    numbers = [*[n for n in divisors if n < parts][-1:], *[n for n in divisors if n > parts][:1]]
    raise UserError(
        f"recipe.total_batch_size={total} cannot be shared by {what}: use {' or '.join(map(str, sizes))}, or "
        f"{' or '.join(map(str, numbers))} batches a step (trainer.devices x accumulated batches)"
    )
