"""The progress bar: losses, AP, images per second, time spent waiting for data, and time left."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from rtdetrv2_train.data.loading.loader import BatchLoader
from rtdetrv2_train.evaluation.metrics import measured
from rtdetrv2_train.training.module import DetectionModule


class Progress(TQDMProgressBar):
    """Lightning's progress bar with losses, AP, speed and time left.

    Args:
        refresh_seconds: shortest time between two updates. Each reads the loss, which waits for the device.
    """

    def __init__(self, refresh_seconds: float = 0.5) -> None:
        super().__init__(refresh_rate=1)
        self.refresh_seconds = refresh_seconds
        self._refreshed_at = 0.0
        self._first_step_at: float | None = None
        self._first_step = 0
        self._epoch_began_at = 0.0
        self._images_in_epoch = 0
        self._images_per_second: float | None = None
        self._waited_before_epoch = 0.0
        self._data_wait_share: float | None = None

    def _should_update(self, current: int, total: int) -> bool:
        now = time.monotonic()
        if current != total and now - self._refreshed_at < self.refresh_seconds:
            return False
        self._refreshed_at = now
        return super()._should_update(current, total)

    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        """Start counting images."""
        super().on_train_epoch_start(trainer, *args)
        self._epoch_began_at = time.monotonic()
        self._waited_before_epoch = _waited_seconds(trainer)
        self._images_in_epoch = 0

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        """Note when the first step began, to estimate the time left."""
        if self._first_step_at is None:
            self._first_step_at, self._first_step = time.monotonic(), trainer.fit_loop.epoch_loop.total_batch_idx + 1
        super().on_train_batch_start(trainer, *args)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the images of the step over all ranks, and the time spent waiting for data."""
        self._images_in_epoch += len(batch) * trainer.world_size
        elapsed = max(time.monotonic() - self._epoch_began_at, 1e-9)
        self._images_per_second = self._images_in_epoch / elapsed
        waited = _waited_seconds(trainer) - self._waited_before_epoch
        self._data_wait_share = min(waited / elapsed, 1.0)
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            pl_module.log("train/data_wait_seconds", waited / (batch_idx + 1), rank_zero_only=True)
            pl_module.log("train/data_wait_share", self._data_wait_share, rank_zero_only=True)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the speed of the epoch and finish its line."""
        if self._images_per_second is not None:
            pl_module.log("train/images_per_second", self._images_per_second, rank_zero_only=True)
        super().on_train_epoch_end(trainer, pl_module)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Values shown at the right of the bar."""
        items: dict[str, Any] = {}
        if isinstance(pl_module, DetectionModule):
            items |= _losses(pl_module)
            if pl_module.metrics is not None:
                ap = measured(pl_module.metrics.AP)
                items["AP"] = "-" if ap is None else f"{ap:.3f}"
        if self._images_per_second is not None:
            items["img/s"] = f"{self._images_per_second:.1f}"
        if self._data_wait_share is not None:
            items["data wait"] = f"{self._data_wait_share:.0%}"
        left = self._seconds_left(trainer)
        if left is not None:
            items["ends in"] = str(timedelta(seconds=round(left)))
        return items

    def _seconds_left(self, trainer: Trainer) -> float | None:
        """Seconds for the rest of the run at the speed so far, validation included."""
        if self._first_step_at is None or trainer.num_training_batches in (0, float("inf")):
            return None
        done = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        total = max(trainer.max_epochs or 0, 0) * trainer.num_training_batches
        if trainer.max_steps > 0:
            total = min(total or float("inf"), trainer.max_steps * trainer.accumulate_grad_batches)
        per_step = (time.monotonic() - self._first_step_at) / max(done - self._first_step + 1, 1)
        return max(total - done, 0) * per_step


def _waited_seconds(trainer: Trainer) -> float:
    """Seconds that this rank has waited for training batches so far."""
    loader = trainer.train_dataloader
    return loader.waited_seconds if isinstance(loader, BatchLoader) else 0.0


def _losses(module: DetectionModule) -> dict[str, str]:
    """The loss of the latest step, and its terms of the last decoder layer. Reading them waits for the device."""
    terms = module.step.loss_terms
    if not terms:
        return {}
    last = {name: terms[f"loss_{name}"] for name in module.criterion.weights}
    return {name: f"{value.item():.2f}" for name, value in ({"loss": module.step.loss} | last).items()}
