"""How the total batch size is split over ranks and gradient accumulation into a batch size per device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lightning.pytorch import Trainer
from torch import nn

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.training.recipe import AUTO


@dataclass(frozen=True)
class BatchSize:
    """A total batch size, split into equal batches.

    Attributes:
        world_size: number of ranks, one per device.
        accumulated: batches per rank and optimizer step (gradient accumulation).
        per_device: images of one such batch, the batch size per device.
    """

    world_size: int
    accumulated: int
    per_device: int

    @classmethod
    def of(cls, trainer: Trainer) -> BatchSize:
        """The split of a run, as the trainer and the data module have it."""
        per_device: int = trainer.datamodule.batch_size  # type: ignore[attr-defined]
        return cls(trainer.world_size, trainer.accumulate_grad_batches, per_device)

    @property
    def total(self) -> int:
        """Images of one optimizer step."""
        return self.world_size * self.accumulated * self.per_device

    def batchnorm_note(self, model: nn.Module, synchronised: bool) -> str | None:
        """A note for users if BatchNorm sees fewer images than the step has; results then depend on the split."""
        seen = self.per_device * (self.world_size if synchronised else 1)
        if seen == self.total or not any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
            return None
        way_out = "" if synchronised or self.world_size == 1 else "; trainer.sync_batchnorm=true turns SyncBatchNorm on"
        return (
            f"BatchNorm takes its statistics from {seen} images at a time, not from the {self.total} of a step{way_out}"
        )

    def __str__(self) -> str:
        parts = [f"{self.world_size} device{'s' * (self.world_size > 1)}", f"{self.per_device} images"]
        if self.accumulated > 1:
            parts.append(f"{self.accumulated} batches of gradient accumulation")
        return f"{self.total} images a step ({' x '.join(parts)})"


def share_out(
    total: int, world_size: int, accumulated: int | Literal["auto"] = AUTO, most_per_device: int | None = None
) -> BatchSize:
    """Split the total batch size.

    Args:
        total: images of one optimizer step.
        world_size: number of ranks.
        accumulated: batches of gradient accumulation; ``auto``: as few as ``most_per_device`` allows.
        most_per_device: largest batch size per device; None: no limit.

    Raises:
        UserError: if there is no such split.
    """
    if accumulated == AUTO:
        share = _equal_parts(total, world_size, f"{world_size} devices")
        most = most_per_device or share
        batches = next(n for n in range(1, share + 1) if share % n == 0 and share // n <= most)
    else:
        batches = int(accumulated)
    what = f"{world_size} devices with gradient accumulation over {batches} batches"
    per_device = _equal_parts(total, world_size * batches, what)
    if most_per_device and per_device > most_per_device:
        raise UserError(
            f"recipe.max_batch_size_per_device={most_per_device} does not allow batches of {per_device}, which "
            f"trainer.accumulate_grad_batches={batches} asks for: leave it at auto"
        )
    return BatchSize(world_size, batches, per_device)


def _equal_parts(total: int, parts: int, what: str) -> int:
    if total >= parts and total % parts == 0:
        return total // parts
    sizes = [size for size in (total // parts * parts, (total // parts + 1) * parts) if size]
    divisors = [n for n in range(1, total + 1) if total % n == 0]
    numbers = [*[n for n in divisors if n < parts][-1:], *[n for n in divisors if n > parts][:1]]
    raise UserError(
        f"recipe.total_batch_size={total} cannot be split over {what}: use {' or '.join(map(str, sizes))}, or "
        f"{' or '.join(map(str, numbers))} batches a step (trainer.devices x trainer.accumulate_grad_batches)"
    )
