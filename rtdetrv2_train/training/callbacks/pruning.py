"""The trial of a sweep: its AP is reported after every epoch, and it ends early where that promises too little."""

from __future__ import annotations

import logging
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from rtdetrv2_train.errors import UserError

log = logging.getLogger(__name__)


class Pruning(Callback):
    """Reports to the study; rank 0 decides, and all processes stop after the same epoch.

    Args:
        folder: of the sweep.
        trial: number of this trial.
        pruner: of Optuna's.

    Raises:
        UserError: if this run is no trial.
    """

    def __init__(self, folder: str, trial: int | None, pruner: Any) -> None:
        if trial is None:
            raise UserError("a sweep needs -m: python train.py -m sweep=...")
        self.folder = folder
        self.trial = trial
        self.pruner = pruner

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report, and stop where the study says so."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        hopeless = trainer.is_global_zero and self._is_hopeless(trainer)
        if trainer.strategy.broadcast(hopeless):
            trainer.should_stop = True

    def _is_hopeless(self, trainer: Trainer) -> bool:
        from rtdetrv2_train.sweeps.study import SweepStudy  # Optuna is installed for sweeps only

        epochs = trainer.current_epoch + 1
        ap = trainer.callback_metrics["val/AP"].item()
        study = SweepStudy(self.folder, pruner=self.pruner)
        hopeless = study.report(self.trial, epochs, ap, is_last=epochs == trainer.max_epochs)
        if hopeless:
            log.info("trial %d ends after epoch %d: AP %.3f promises too little", self.trial, epochs, ap)
        return hopeless
