"""Checkpoints of a run: ``best.ckpt`` and ``last.ckpt``, which is also written on preemption (SIGTERM)."""

from __future__ import annotations

import logging
import os
import signal
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from rtdetrv2_train.errors import STOPPED_STATUS, Stopped, UserError
from rtdetrv2_train.training.agreement import Agreement
from rtdetrv2_train.training.callbacks.preemption import PreemptionSignals, requeue_slurm_job

log = logging.getLogger(__name__)

_PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")
_NOTHING, _SAVE, _STOP = 0, 1, 2  # what a rank may ask for after a step; the maximum over ranks wins


class Checkpointing(ModelCheckpoint):
    """Lightning's `ModelCheckpoint`, with a ``last.ckpt`` that is up to date and saved on preemption.

    Lightning writes ``last.ckpt`` only together with a best epoch. If ``max_steps`` ends the run within an epoch,
    Lightning writes it after closing the epoch, so that a resumed run would miss the epoch's other batches.

    ``best.ckpt`` is the latest of the best epochs. There is none where AP was not measured, or not on all images.

    On SIGTERM or Ctrl-C a run finishes its step or its validation, writes ``last.ckpt`` and ends with `Stopped`. A
    second Ctrl-C ends it at once.

    Args:
        last_every_minutes: minutes between two ``last.ckpt``; None: only after each epoch that is validated.
        last_every_steps: the same in optimizer steps.
        settings: arguments of `ModelCheckpoint`.

    Raises:
        UserError: if checkpoints shall hold weights alone: those would be of the last step, not the EMA.
    """

    def __init__(
        self, last_every_minutes: float | None = None, last_every_steps: int | None = None, **settings: Any
    ) -> None:
        super().__init__(**settings)
        if self.save_weights_only:
            raise UserError(
                "callbacks.checkpoint.save_weights_only leaves out the EMA: drop it; model/ has the weights alone"
            )
        self.last_every_minutes = last_every_minutes
        self.last_every_steps = last_every_steps
        self._last_at_step = -1
        self._last_at_time = 0.0
        self._agreement = Agreement()
        self._signals = PreemptionSignals()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remove temporary files of checkpoints whose writing was interrupted."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and trainer.is_global_zero:
            for unfinished in Path(str(self.dirpath)).glob(f".*{self.FILE_EXTENSION}.*"):
                unfinished.unlink(missing_ok=True)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Install signal handlers. Lightning has installed its own just before."""
        super().on_train_start(trainer, pl_module)
        self._last_at_step, self._last_at_time = trainer.global_step, time.monotonic()
        announcement = "\nstopping after this step with a checkpoint to resume from; Ctrl-C again stops at once\n"
        self._signals = PreemptionSignals(announcement if trainer.is_global_zero else "")
        self._signals.watch()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write ``last.ckpt`` if it is due, if the run was told to stop, or if steps or time end within an epoch."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if trainer.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # on_train_epoch_end follows, or gradient accumulation is not complete
        wanted = self._agreement.ask(self._wanted(trainer), pl_module.device)
        if wanted or trainer.fit_loop.epoch_loop.done:
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))
        if wanted == _STOP:
            self._stop(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write ``last.ckpt`` after every epoch that was validated, after the last one, and if it is due."""
        super().on_train_epoch_end(trainer, pl_module)
        wanted = self._agreement.settle(self._wanted(trainer), pl_module.device)
        epochs = trainer.current_epoch + 1
        is_last = epochs == trainer.max_epochs or trainer.global_step == trainer.max_steps
        if wanted or is_last or epochs % (trainer.check_val_every_n_epoch or 1) == 0:
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))
        if wanted == _STOP:
            self._stop(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the earlier signal handlers."""
        self._signals.leave()
        super().on_train_end(trainer, pl_module)

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Whether this epoch is among the best, as Lightning asks; of equal ones the later counts."""
        if super().check_monitor_top_k(trainer, current):
            return True
        best = self.best_k_models.get(self.kth_best_model_path)
        return current is not None and best is not None and bool(current == best)

    def state_dict(self) -> dict[str, Any]:
        """As Lightning's, with paths relative to the folder of checkpoints, which may be moved."""
        state = super().state_dict() | {"dirpath": "."}
        for name in _PATHS:
            state[name] = Path(state[name]).name if state[name] else ""
        return state | {"best_k_models": {Path(path).name: score for path, score in self.best_k_models.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As Lightning's, with the paths that :meth:`state_dict` has made relative."""
        folder = Path(str(self.dirpath))
        state = state_dict | {"dirpath": self.dirpath}
        for name in _PATHS:
            state[name] = str(folder / state[name]) if state[name] else ""
        models = {str(folder / name): score for name, score in state["best_k_models"].items()}
        super().load_state_dict(state | {"best_k_models": models})

    def _wanted(self, trainer: Trainer) -> int:
        if self._signals.received is not None:
            return _STOP
        steps, minutes = self.last_every_steps, self.last_every_minutes
        due = steps is not None and trainer.global_step - self._last_at_step >= steps
        due |= minutes is not None and time.monotonic() - self._last_at_time >= 60 * minutes
        return _SAVE if due else _NOTHING

    def _save_topk_checkpoint(self, trainer: Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        """No epoch is the best where AP was not measured, or not on all images."""
        if self.monitor is None or self.monitor in monitor_candidates:
            super()._save_topk_checkpoint(trainer, monitor_candidates)

    def _save_last_checkpoint(self, trainer: Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        if self._last_at_step != trainer.global_step:
            self._last_at_step, self._last_at_time = trainer.global_step, time.monotonic()
            super()._save_last_checkpoint(trainer, monitor_candidates)

    def _stop(self, trainer: Trainer) -> None:
        """End the run. Only rank 0 exits with a status, as launchers kill all ranks when one of them fails."""
        if trainer.is_global_zero:
            received = self._signals.received
            name = received.name if received else "a signal to another rank"
            run = os.path.relpath(Path(str(self.dirpath)).parent)
            log.warning("stopped by %s at step %d: continue with resume=%s", name, trainer.global_step, run)
            if received is signal.SIGUSR1:
                requeue_slurm_job()
        raise Stopped(STOPPED_STATUS if trainer.is_global_zero else 0)
