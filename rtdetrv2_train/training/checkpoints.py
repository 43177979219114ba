"""Checkpoints of a run: the best epoch and the last."""

from __future__ import annotations

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor


class BestAndLast(ModelCheckpoint):
    """Lightning's checkpoints, with a last one that is never behind.

    Lightning writes ``last.ckpt`` only where the best epoch has just been written, and, when ``max_steps`` ends the run
    within an epoch, after that epoch has been closed, so that a resumed run would miss its other batches.
    """

    _last_at_step = -1

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the last checkpoint where the run ends within an epoch."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if trainer.global_step == trainer.max_steps and not trainer.is_last_batch:
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the last checkpoint after every epoch."""
        super().on_train_epoch_end(trainer, pl_module)
        self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def _save_last_checkpoint(self, trainer: Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        if self._last_at_step != trainer.global_step:
            self._last_at_step = trainer.global_step
            super()._save_last_checkpoint(trainer, monitor_candidates)
