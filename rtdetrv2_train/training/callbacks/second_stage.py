"""A second stage of training, which begins with the best model of the first (DEIM, as in its code)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging

from rtdetrv2_train.checkpoints.safe_loading import load_tensors
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.training.callbacks.nan_guard import NanGuard
from rtdetrv2_train.training.recipe import scaled_epoch
from rtdetrv2_train.training.run_length import epochs_of

log = logging.getLogger(__name__)


class SecondStage(Callback):
    """At one epoch loads the best checkpoint so far: weights, EMA and the optimizer's state.

    Learning rates and all else go on as they would. A run that is resumed within or after that epoch does not load
    again. Without a best checkpoint, as where AP was never measured, training goes on from where it is, with a warning.

    Args:
        epoch: first epoch of the second stage, counted from 0, in a run of ``reference_epochs``; None: there is none.
        reference_epochs: length of the run that this epoch is meant for; a run of another length scales it.
    """

    def __init__(self, epoch: int | None, reference_epochs: int) -> None:
        self.epoch = epoch
        self.reference_epochs = reference_epochs

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that there will be a best checkpoint.

        Raises:
            UserError: if there is no callback that keeps one.
        """
        checkpoint = trainer.checkpoint_callback
        if stage == "fit" and self.epoch is not None and getattr(checkpoint, "monitor", None) is None:
            raise UserError(
                "recipe.second_stage_epoch needs the best checkpoint, which callbacks.checkpoint.monitor tells: keep "
                "callbacks.checkpoint, or use recipe.second_stage_epoch=null"
            )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load the best checkpoint if the second stage begins with this epoch."""
        if self.epoch is None or trainer.current_epoch == 0:
            return
        if trainer.current_epoch == scaled_epoch(self.epoch, self.reference_epochs, epochs_of(trainer)):
            self._load_best(trainer, pl_module)

    def _load_best(self, trainer: Trainer, module: LightningModule) -> None:
        best = trainer.checkpoint_callback
        assert isinstance(best, ModelCheckpoint)
        trainer.strategy.barrier("second stage")  # rank 0 has written the file
        path = trainer.strategy.broadcast(best.best_model_path)
        checkpoint = load_tensors(path) if path and Path(path).is_file() else {"epoch": None}
        epoch, now = checkpoint["epoch"], trainer.current_epoch
        if trainer.strategy.broadcast(epoch) != epoch:
            raise UserError(f"'{path}' is not the same file on all machines: put the run into a folder that they share")
        if epoch is None or epoch >= now:
            if trainer.is_global_zero:
                why = "there is no best checkpoint" if epoch is None else f"'{path}' is of epoch {epoch}"
                log.warning("epoch %d: the second stage goes on from where the run is, as %s", now, why)
            return
        _restore(checkpoint, trainer, module)
        if trainer.is_global_zero:
            log.info("epoch %d: the second stage begins with the best model so far, of epoch %d", now, epoch)


def _restore(checkpoint: dict[str, Any], trainer: Trainer, module: LightningModule) -> None:
    """Take weights, EMA and the optimizer's state, but not its learning rates, from a checkpoint."""
    module.load_state_dict(checkpoint["state_dict"])
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, WeightAveraging):
            callback.on_load_checkpoint(trainer, module, checkpoint)  # the EMA, and the weights that are trained
    for optimizer, saved in zip(trainer.optimizers, checkpoint["optimizer_states"], strict=True):
        optimizer.load_state_dict({"state": saved["state"], "param_groups": optimizer.state_dict()["param_groups"]})
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, NanGuard):
            callback.on_train_start(trainer, module)  # the statistics to go back to are these now
