"""NaN guard: steps with NaN or Inf in loss or gradient are skipped, diagnosed and saved for debugging."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.files import atomic_save
from rtdetrv2_train.ops.host_copy import HostCopy
from rtdetrv2_train.training.agreement import Agreement
from rtdetrv2_train.training.module import DetectionModule
from rtdetrv2_train.training.nan_diagnosis import cause_of, file_names, is_finite
from rtdetrv2_train.types import Batch

log = logging.getLogger(__name__)


class NanGuard(Callback):
    """Watches for NaN and Inf in losses and gradients, without waiting for the device.

    Such a step changes nothing. The optimizer skips it (see `DetectionModule`), and this callback restores the running
    statistics of BatchNorm, all on the device. The host reads one step later what happened. Then it saves the batch and
    the weights, and logs where NaN or Inf came first (see `cause_of`).

    In float16 AMP the gradient scaler finds its scale by gradients that overflow. There only the loss is watched.

    Must run before the EMA, which must not see statistics of a skipped step. `ordered` in ``commands/building.py``
    puts it first.

    Args:
        folder: folder for the batches, each as ``step_<n>.pt``; ranks other than 0 add their rank to the name.
        max_skipped_steps: steps that may be skipped before the run stops; 0: stop at the first.
    """

    def __init__(self, folder: str | Path, max_skipped_steps: int = 10) -> None:
        self.folder = Path(folder)
        self.max_skipped_steps = max_skipped_steps
        self._skipped = 0
        self._batches: list[tuple[Batch, Tensor]] = []
        self._pending: _Step | None = None
        self._statistics: list[Tensor] = []
        self._kept = torch.zeros(0)
        self._agreement = Agreement()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the running statistics of BatchNorm."""
        norms = [norm for norm in pl_module.modules() if isinstance(norm, nn.BatchNorm2d | nn.SyncBatchNorm)]
        tracked = [(norm.running_mean, norm.running_var) for norm in norms]
        self._statistics = [tensor for pair in tracked for tensor in pair if tensor is not None]
        self._kept = self._current_statistics()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Restore BatchNorm statistics if this step has NaN or Inf, and check the previous step."""
        assert isinstance(pl_module, DetectionModule)
        result = pl_module.step
        self._batches.append((batch, torch.stack(tuple(result.loss_terms.values()))))
        if (batch_idx + 1) % trainer.accumulate_grad_batches and not trainer.is_last_batch:
            return
        assert result.gradient_norm is not None
        self._keep_statistics(result.gradient_norm.isfinite())
        numbers = torch.stack([result.gradient_norm, *(terms.sum() for _, terms in self._batches)])
        step = _Step(HostCopy(numbers), self._batches, trainer.global_step)
        self._batches = []
        self._check(self._pending, trainer, pl_module)
        self._pending = step
        self._stop_if_too_many(self._agreement.ask(self._skipped, pl_module.device))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the last step of the epoch."""
        assert isinstance(pl_module, DetectionModule)
        self._check(self._pending, trainer, pl_module)
        self._pending = None
        self._stop_if_too_many(self._agreement.settle(self._skipped, pl_module.device))

    def _current_statistics(self) -> Tensor:
        return torch.cat([tensor.flatten() for tensor in self._statistics]) if self._statistics else torch.zeros(0)

    def _keep_statistics(self, finite: Tensor) -> None:
        """Restore the statistics if this step has NaN or Inf. Computed on the device, without a read by the host."""
        if self._statistics:
            self._kept = torch.where(finite, self._current_statistics(), self._kept)
            self._restore_statistics()

    def _restore_statistics(self) -> None:
        if self._statistics:
            parts = self._kept.split([tensor.numel() for tensor in self._statistics])
            torch._foreach_copy_(self._statistics, list(parts))

    def _check(self, step: _Step | None, trainer: Trainer, module: DetectionModule) -> None:
        if step is None:
            return
        norm, *losses = step.numbers.read().tolist()
        scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        bad = [batch for batch, loss in zip(step.batches, losses, strict=True) if not is_finite(loss)]
        if not bad and (scaled or is_finite(norm)):
            return
        self._skipped += 1
        batch, terms = bad[0] if bad else step.batches[-1]
        named_terms = dict(zip(module.step.loss_terms, terms.tolist(), strict=True))
        cause = cause_of(trainer, module, batch, named_terms)
        self._restore_statistics()  # cause_of repeats the step, which has updated them
        rank = f"_rank_{trainer.global_rank}" * (trainer.global_rank > 0)
        path = self.folder / f"step_{step.number}{rank}.pt"
        files = file_names(trainer, batch)
        content = {
            "step": step.number,
            "epoch": trainer.current_epoch,
            "cause": cause,
            "file_names": files,
            "loss_terms": named_terms,
            "gradient_norm": norm,
            "images": batch.images.cpu(),
            "targets": asdict(batch.targets.to("cpu")),
            "weights": {name: tensor.cpu() for name, tensor in module.model.state_dict().items()},
        }
        atomic_save(path, lambda temporary: torch.save(content, temporary))
        log.error(
            "step %d is skipped, as %s; its images are %s; saved with the weights as %s (%d of at most %d)",
            step.number, cause, ", ".join(files) or "unnamed", path, self._skipped, self.max_skipped_steps,
        )  # fmt: skip

    def _stop_if_too_many(self, skipped: int) -> None:
        if skipped > self.max_skipped_steps:
            raise UserError(
                f"stopped after {skipped} step{'s' * (skipped > 1)} with NaN or Inf in loss or gradient: the log says "
                f"where, '{self.folder}' has the batches; lower recipe.learning_rate, use "
                "trainer.precision=32-true or correct the data, and continue with resume="
            )


@dataclass(frozen=True)
class _Step:
    """A step whose numbers are being copied to the host: gradient norm, then the loss of each batch."""

    numbers: HostCopy
    batches: Sequence[tuple[Batch, Tensor]]
    number: int
