"""Resume with another number of devices, batch size, length or learning rate than the checkpoint's."""

from __future__ import annotations

import logging
from dataclasses import asdict
from math import ceil
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.training.batch_size import BatchSize
from rtdetrv2_train.training.module import DetectionModule

log = logging.getLogger(__name__)

_BATCH_SIZE, _TOTAL_STEPS = "batch_size", "total_steps"


class ResumeAdjustments(Callback):
    """Makes a resumed run follow its configuration, and logs what changes.

    Another number of devices or another gradient accumulation changes nothing, even within an epoch, if the total batch
    size stays. Another total batch size is possible from the end of an epoch; the learning-rate schedule continues at
    that epoch. Learning rates are those of the configuration, not those of the checkpoint. In a run of another length
    they follow the schedule of the new length from the next step on.
    """

    def __init__(self) -> None:
        self._other_steps = False
        self._steps_before: int | None = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store the batch size and its split, and the length of the run, in the checkpoint."""
        assert isinstance(pl_module, DetectionModule)
        checkpoint[_BATCH_SIZE] = asdict(BatchSize.of(trainer))
        checkpoint[_TOTAL_STEPS] = pl_module.schedule.total_steps

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Compare the checkpoint's batch size and length with those of this run.

        Raises:
            UserError: if the run would be over already, or the checkpoint is from the middle of an epoch and the total
                batch size has changed.
        """
        checkpoint["callbacks"].pop("Timer", None)  # trainer.max_time counts from each start
        loops = checkpoint["loops"]["fit_loop"]
        epochs, most = loops["epoch_progress"]["current"]["processed"], trainer.max_epochs
        if most is not None and 0 <= most < epochs:
            raise UserError(
                f"the run has done {epochs} epochs, more than trainer.max_epochs={most}: give {epochs} or more"
            )
        if _BATCH_SIZE not in checkpoint:
            return
        before, now = BatchSize(**checkpoint[_BATCH_SIZE]), BatchSize.of(trainer)
        progress = loops["epoch_loop.batch_progress"]
        self._steps_before = checkpoint[_TOTAL_STEPS]
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
        if self._steps_before is None:
            return
        assert isinstance(pl_module, DetectionModule)
        total_steps = pl_module.schedule.total_steps
        for config in trainer.lr_scheduler_configs:
            scheduler: Any = config.scheduler
            if self._other_steps:
                batches = int(trainer.num_training_batches)
                scheduler.last_epoch = trainer.current_epoch * ceil(batches / trainer.accumulate_grad_batches)
            configured = pl_module.learning_rates
            if trainer.is_global_zero and scheduler.base_lrs != configured:
                log.warning(
                    "resuming with learning rates up to %g instead of %g", max(configured), max(scheduler.base_lrs)
                )
            scheduler.base_lrs = list(configured)
            before = scheduler.optimizer.param_groups[0]["lr"]
            groups = scheduler.optimizer.param_groups
            for group, rate, share in zip(groups, configured, scheduler.lr_lambdas, strict=True):
                group["initial_lr"] = rate
                group["lr"] = rate * share(scheduler.last_epoch)
            if trainer.is_global_zero and total_steps != self._steps_before:
                log.warning(
                    "the run has %d steps now instead of %d: its schedule is laid anew over them, and the learning "
                    "rate goes from %.3g to %.3g",
                    total_steps, self._steps_before, before, groups[0]["lr"],
                )  # fmt: skip


def _recount_batches(progress: dict[str, Any], accumulated_before: int, accumulated_now: int) -> None:
    """Convert the finished batches of an epoch to another gradient accumulation. Checkpoints lie between steps."""
    done = progress["current"]["processed"]
    more = done // accumulated_before * accumulated_now - done
    for counts in (progress["current"], progress["total"]):
        for name in counts:
            counts[name] += more
