"""Resume with another number of devices, another batch size or other learning rates than the checkpoint's."""

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
    """Makes a resumed run follow its configuration, and logs what changes.

    Another number of devices or another gradient accumulation changes nothing, even within an epoch, if the total batch
    size stays. Another total batch size is possible from the end of an epoch; the learning-rate schedule continues at
    that epoch. Learning rates are those of the configuration, not those of the checkpoint.
    """

    def __init__(self) -> None:
        self._other_steps = False

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store the batch size and its split in the checkpoint."""
        checkpoint[_KEY] = asdict(BatchSize.of(trainer))

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Compare the checkpoint's batch size with that of this run.

        Raises:
            UserError: if the checkpoint is from the middle of an epoch, and the total batch size has changed.
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
                f"the checkpoint is from the middle of epoch {checkpoint['epoch']} with {before}, not {now}: use "
                f"recipe.total_batch_size={before.total}, or resume from the end of an epoch (checkpoints/best.ckpt)"
            )
        _recount_batches(progress, before.accumulated, now.accumulated)
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        data.load_state_dict({"epoch": checkpoint["epoch"], "steps": progress["current"]["processed"]})

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set learning rates and their schedule to those of the configuration."""
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


def _recount_batches(progress: dict[str, Any], accumulated_before: int, accumulated_now: int) -> None:
    """Convert the finished batches of an epoch to another gradient accumulation. Checkpoints lie between steps."""
    done = progress["current"]["processed"]
    more = done // accumulated_before * accumulated_now - done
    for counts in (progress["current"], progress["total"]):
        for name in counts:
            counts[name] += more
