"""EMA: exponential moving average of the weights, used for validation and stored in checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from rtdetrv2_train.training.module import DetectionModule

_CONSTANTS = ("anchors", "valid_mask", "num_points_scale")


class _RampedEMA(AveragedModel):
    """EMA of parameters and floating-point buffers, with a decay that the caller sets before each update."""

    def __init__(self, model: nn.Module, device: torch.device | int | None = None, **_: Any) -> None:
        super().__init__(model, device, use_buffers=True)
        self.decay = 0.0
        self._pairs: _Pairs | None = None  # found once, as that takes a tenth of a step of a small model

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Update all tensors, in a few fused operations."""
        pairs = self._pairs = self._pairs or _Pairs.of(self.module, model)
        for mine, theirs in pairs.copied:
            mine.copy_(theirs)
        torch._foreach_mul_(pairs.averaged, self.decay)
        torch._foreach_add_(pairs.averaged, pairs.current, alpha=1 - self.decay)
        self.n_averaged += 1


@dataclass(frozen=True)
class _Pairs:
    """Tensors of the EMA beside those that are trained, which stay the same objects as long as a run lasts.

    Attributes:
        averaged: of the EMA.
        current: those that it averages.
        copied: counters, constants of the configuration, and what is frozen, which a mean would round.
    """

    averaged: list[Tensor]
    current: list[Tensor]
    copied: list[tuple[Tensor, Tensor]]

    @classmethod
    def of(cls, average: nn.Module, model: nn.Module) -> _Pairs:
        frozen = tuple(f"model.{name}." for name in getattr(getattr(model, "model", None), "frozen", ()))
        pairs = cls([], [], [])
        for (name, mine), theirs in zip(_tensors(average), (t for _, t in _tensors(model)), strict=True):
            if not mine.is_floating_point() or name.endswith(_CONSTANTS) or name.startswith(frozen):
                pairs.copied.append((mine, theirs))
            else:
                pairs.averaged.append(mine)
                pairs.current.append(theirs)
        return pairs


def _tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*((n, p.detach()) for n, p in module.named_parameters()), *module.named_buffers()]


class EMA(WeightAveraging):
    """The paper's EMA, with decay ``decay * (1 - exp(-updates / ramp))`` at each update, buffers included.

    Validation uses the EMA weights. Checkpoints hold the EMA as ``state_dict``, and the weights that the optimizer
    trains as ``current_model_state``.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make the EMA when fitting begins."""
        if stage == "fit":
            self._average_model = _RampedEMA(pl_module, pl_module.device)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the EMA after each optimizer step."""
        assert isinstance(self._average_model, _RampedEMA)
        assert isinstance(pl_module, DetectionModule)
        self._average_model.decay = pl_module.schedule.ema_decay_at(trainer.global_step)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do not swap the EMA in before the last checkpoint has been written."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the EMA into the model."""
        super().on_train_end(trainer, pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Drop the EMA after fitting, so that later evaluation does not swap it in again."""
        self._average_model = None
