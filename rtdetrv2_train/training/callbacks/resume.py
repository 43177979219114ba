"""Going on with other devices, another batch size or other learning rates than a checkpoint was written with."""

from __future__ import annotations

import logging
from dataclasses import asdict
from math import ceil
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.training.batch_size import BatchSize

log = logging.getLogger(__name__)

_KEY = "batch_size"


class ResumeAdjustments(Callback):
    """Has a resumed run follow its configuration, and says what that changes.

    Another number of devices or of accumulated batches with as many images a step changes nothing, be it within an
    epoch. Another number of images a step is possible from the end of an epoch on; the learning rate's schedule goes on
    at that epoch. Learning rates are those of the configuration, not those of the checkpoint.
    """

    def __init__(self) -> None:
        self._other_steps = False

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note how the images of a step are shared out."""
        checkpoint[_KEY] = asdict(BatchSize.of(trainer))

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Compare with how they are shared out now.

        Raises:
            UserError: if the checkpoint is of the middle of an epoch, and steps have other images now.
        """
        if _KEY not in checkpoint:
            return
        before, now = BatchSize(**checkpoint[_KEY]), BatchSize.of(trainer)
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        if before == now:
            return
        if trainer.is_global_zero:
            log.warning("resuming with %s instead of %s", now, before)
        if progress["is_last_batch"]:
            self._other_steps = before.total != now.total
            return
        if before.total != now.total:
            raise UserError(
                f"the checkpoint is of the middle of epoch {checkpoint['epoch']}, which was begun with {before}; now "
                f"there would be {now}: use recipe.total_batch_size={before.total}, or resume from the end of an "
                "epoch, as checkpoints/best.ckpt is"
            )
        _count_batches_anew(progress, before.accumulated, now.accumulated)
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        data.load_state_dict({"epoch": checkpoint["epoch"], "steps": progress["current"]["processed"]})

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Have learning rates and their schedule follow the configuration."""
        for config in trainer.lr_scheduler_configs:
            scheduler: Any = config.scheduler
            if self._other_steps:
                batches = int(trainer.num_training_batches)
                scheduler.last_epoch = trainer.current_epoch * ceil(batches / trainer.accumulate_grad_batches)
            configured: list[float] = pl_module.learning_rates  # type: ignore[assignment]
            if not self._other_steps and scheduler.base_lrs == configured:
                continue
            if trainer.is_global_zero and scheduler.base_lrs != configured:
                log.warning(
                    "resuming with learning rates up to %g instead of %g", max(configured), max(scheduler.base_lrs)
                )
            scheduler.base_lrs = list(configured)
            groups = scheduler.optimizer.param_groups
            for group, rate, share in zip(groups, configured, scheduler.lr_lambdas, strict=True):
                group["initial_lr"] = rate
                group["lr"] = rate * share(scheduler.last_epoch)


def _count_batches_anew(progress: dict[str, Any], accumulated_before: int, accumulated_now: int) -> None:
    """Count what has been done of an epoch in batches of another size; checkpoints are written between steps only."""
    done = progress["current"]["processed"]
    more = done // accumulated_before * accumulated_now - done
    for counts in (progress["current"], progress["total"]):
        for name in counts:
            counts[name] += more
