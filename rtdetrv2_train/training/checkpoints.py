"""Checkpoints of a run: the best epoch and the last step."""

from __future__ import annotations

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class BestAndLast(ModelCheckpoint):
    """Lightning's checkpoints, the last of which also knows a run that ``max_steps`` ended within an epoch.

    Lightning writes that one after the epoch has been closed, so that a resumed run would miss the epoch's other batches.
    """

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the last checkpoint at the last step."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if trainer.global_step == trainer.max_steps:
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))
