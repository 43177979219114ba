"""Pruning of sweep trials: AP is reported after every epoch, and Optuna's pruner stops weak trials early."""

from __future__ import annotations

import logging
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.evaluation.metrics import measured
from rtdetrv2_train.training.module import DetectionModule

log = logging.getLogger(__name__)


class Pruning(Callback):
    """Reports AP to the Optuna study. Rank 0 decides, and all ranks stop after the same epoch.

    Args:
        folder: folder of the sweep.
        trial: number of this trial; None outside of a sweep.
        pruner: pruner of Optuna.

    Raises:
        UserError: if this run is no trial of a sweep.
    """

    def __init__(self, folder: str, trial: int | None, pruner: Any) -> None:
        if trial is None:
            raise UserError("a sweep needs -m: python train.py -m sweep=...")
        self.folder = folder
        self.trial = trial
        self.pruner = pruner

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report AP, and stop if the pruner says so."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        assert isinstance(pl_module, DetectionModule)
        assert pl_module.metrics is not None
        ap = measured(pl_module.metrics.AP)
        pruned = trainer.is_global_zero and ap is not None and self._is_pruned(trainer, ap)
        if trainer.strategy.broadcast(pruned):
            trainer.should_stop = True

    def _is_pruned(self, trainer: Trainer, ap: float) -> bool:
        from rtdetrv2_train.sweeps.study import SweepStudy  # here, as Optuna is installed for sweeps only

        epochs = trainer.current_epoch + 1
        study = SweepStudy(self.folder, pruner=self.pruner)
        pruned = study.report(self.trial, epochs, ap, is_last=epochs == trainer.max_epochs)
        if pruned:
            log.info("trial %d is pruned after epoch %d with AP %.3f", self.trial, epochs, ap)
        return pruned
