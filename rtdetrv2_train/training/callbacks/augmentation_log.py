"""Logs which augmentations are switched on or off."""

from __future__ import annotations

import logging

from lightning.pytorch import Callback, LightningModule, Trainer

log = logging.getLogger(__name__)


class AugmentationLog(Callback):
    """Logs each transform that the augmentation schedule switches on or off."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what changes with this epoch."""
        if trainer.is_global_zero:
            for change in trainer.datamodule.schedule.changes(trainer.current_epoch):  # type: ignore[attr-defined]
                log.info("epoch %d: %s", trainer.current_epoch, change)
