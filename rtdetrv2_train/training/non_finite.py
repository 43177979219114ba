"""Steps whose loss or gradient is not finite: left out, named, and kept for a post-mortem."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from rtdetrv2_train.batch import Batch
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.training.agreement import Agreement
from rtdetrv2_train.training.module import DetectionModule
from rtdetrv2_train.weights.saving import atomic_save

log = logging.getLogger(__name__)


class NonFiniteSteps(Callback):
    """Watches for losses and gradients that are not finite, without waiting for the device.

    Such a step changes nothing: the optimizer leaves it out (see `DetectionModule`), and here the running statistics of
    norms are put back, all on the device. The host reads a step later what has happened. Then it saves the batch and
    the weights, and says what is not finite first, in the order of causes: targets, images, weights, the output of a
    layer, a term of the loss, a gradient.

    In mixed precision of 16 bits, gradients that are too large now and then are how the scale is found; there only the
    loss counts.

    Has to come before the callback that averages weights.

    Args:
        folder: where batches go, each as ``step_<n>.pt``; of other processes than the first with their rank.
        skip_at_most: steps that may be left out before the run stops; 0: it stops at the first.
    """

    def __init__(self, folder: str | Path, skip_at_most: int = 10) -> None:
        self.folder = Path(folder)
        self.skip_at_most = skip_at_most
        self._skipped = 0
        self._step: list[tuple[Batch, Tensor]] = []
        self._pending: _Arriving | None = None
        self._statistics: list[Tensor] = []
        self._kept = torch.zeros(0)
        self._agreement = Agreement()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the running statistics of norms."""
        norms = [norm for norm in pl_module.modules() if isinstance(norm, nn.modules.batchnorm._BatchNorm)]
        tracked = [(norm.running_mean, norm.running_var) for norm in norms]
        self._statistics = [tensor for pair in tracked for tensor in pair if tensor is not None]
        self._kept = self._current_statistics()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Undo what the step did to the norms if it was not finite, and see to the step before."""
        assert isinstance(pl_module, DetectionModule)
        self._step.append((batch, torch.stack(tuple(pl_module.loss_terms.values()))))
        if (batch_idx + 1) % trainer.accumulate_grad_batches and not trainer.is_last_batch:
            return
        assert pl_module.gradient_norm is not None
        self._keep_statistics(pl_module.gradient_norm.isfinite())
        numbers = torch.stack([pl_module.gradient_norm, *(terms.sum() for _, terms in self._step)])
        arriving = _Arriving.of(numbers, self._step, trainer.global_step)
        self._step = []
        self._see_to(self._pending, trainer, pl_module)
        self._pending = arriving
        self._stop_if_too_many(self._agreement.ask(self._skipped, pl_module.device))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See to the last step."""
        assert isinstance(pl_module, DetectionModule)
        self._see_to(self._pending, trainer, pl_module)
        self._pending = None
        self._stop_if_too_many(self._agreement.settle(self._skipped, pl_module.device))

    def _current_statistics(self) -> Tensor:
        return torch.cat([tensor.flatten() for tensor in self._statistics]) if self._statistics else torch.zeros(0)

    def _keep_statistics(self, finite: Tensor) -> None:
        """Put the statistics back to what they were if this step was not finite, without reading whether it was."""
        if self._statistics:
            self._kept = torch.where(finite, self._current_statistics(), self._kept)
            self._restore_statistics()

    def _restore_statistics(self) -> None:
        parts = self._kept.split([tensor.numel() for tensor in self._statistics])
        torch._foreach_copy_(self._statistics, list(parts))

    def _see_to(self, arrived: _Arriving | None, trainer: Trainer, module: DetectionModule) -> None:
        if arrived is None:
            return
        norm, *losses = arrived.read()
        scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        bad = [batch_and_terms for batch_and_terms, loss in zip(arrived.step, losses, strict=True) if not _finite(loss)]
        if not bad and (scaled or _finite(norm)):
            return
        self._skipped += 1
        batch, terms = bad[0] if bad else arrived.step[-1]
        named_terms = dict(zip(module.loss_terms, terms.tolist(), strict=True))
        cause = self._cause(trainer, module, batch, named_terms)
        path = self.folder / f"step_{arrived.number}{f'_rank_{trainer.global_rank}' * (trainer.global_rank > 0)}.pt"
        files = _file_names(trainer, batch)
        content = {
            "step": arrived.number,
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
            "step %d is left out, as %s; its images are %s; saved with the weights as %s (%d of at most %d)",
            arrived.number, cause, ", ".join(files) or "unnamed", path, self._skipped, self.skip_at_most,
        )  # fmt: skip

    def _stop_if_too_many(self, skipped: int) -> None:
        if skipped > self.skip_at_most:
            raise UserError(
                f"gave up after {skipped} step{'s' * (skipped > 1)} with a loss or gradient that is not finite: the "
                f"log says what and where, '{self.folder}' has the batches; lower recipe.learning_rate, use "
                "trainer.precision=32-true or mend the data, and go on with resume="
            )

    def _cause(self, trainer: Trainer, module: DetectionModule, batch: Batch, terms: dict[str, float]) -> str:
        """What is not finite first."""
        if images := _images_with_broken_targets(batch):
            return f"the boxes of {_listed(_file_names(trainer, batch, images))} are not finite"
        if batch.images.is_floating_point() and not (fine := batch.images.isfinite().flatten(1).all(1)).all():
            broken = (~fine).nonzero().flatten().tolist()
            return f"the pixels of {_listed(_file_names(trainer, batch, broken))} are not finite"
        state = [*module.model.named_parameters(), *module.model.named_buffers()]
        if names := [name for name, tensor in state if tensor.is_floating_point() and not tensor.isfinite().all()]:
            return f"the weights {_listed(names)} are not finite"
        layer, gradients = self._replay(trainer, module, batch)
        broken_terms = [name for name, value in terms.items() if not _finite(value)]
        reasons = [f"the output of the layer {layer} is not finite"] if layer else []
        if broken_terms:
            reasons.append(f"the loss terms {_listed(broken_terms)} are not finite")
        if gradients:
            reasons.append(f"the gradients of {_listed(gradients)} are not finite")
        return " and ".join(reasons) or "the gradient is not finite"

    def _replay(self, trainer: Trainer, module: DetectionModule, batch: Batch) -> tuple[str | None, list[str]]:
        """Do the step again: the first layer whose output is not finite, and the parameters whose gradients are not."""
        if trainer.world_size > 1:
            return None, []  # norms that are synchronised would wait for the other processes
        layers: list[str] = []
        hooks = [
            part.register_forward_hook(
                lambda _, given, output, name=name: layers.append(name) if _breaks(given, output) else None
            )
            for name, part in module.model.named_modules()
            if not any(part.children())
        ]
        parameters = {name: tensor for name, tensor in module.model.named_parameters() if tensor.requires_grad}
        try:
            with torch.random.fork_rng(enabled=True), trainer.precision_plugin.forward_context():
                loss = torch.stack(tuple(module.loss_terms_of(batch).values())).sum()
            gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        except torch.OutOfMemoryError:
            return None, []
        finally:
            for hook in hooks:
                hook.remove()
            if self._statistics:
                self._restore_statistics()
        broken = [
            name
            for name, gradient in zip(parameters, gradients, strict=True)
            if gradient is not None and not gradient.isfinite().all()
        ]
        return (layers[0] if layers else None), broken[::-1]  # the last ones have theirs first


@dataclass
class _Arriving:
    """Numbers of a step on their way to the host, and what they are about."""

    numbers: Tensor
    event: torch.cuda.Event | None
    step: Sequence[tuple[Batch, Tensor]]
    number: int

    @classmethod
    def of(cls, numbers: Tensor, step: Sequence[tuple[Batch, Tensor]], number: int) -> _Arriving:
        if not numbers.is_cuda:
            return cls(numbers.detach(), None, step, number)
        host = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
        host.copy_(numbers.detach(), non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        return cls(host, event, step, number)

    def read(self) -> list[float]:
        if self.event is not None:
            self.event.synchronize()
        return self.numbers.tolist()


def _finite(number: float) -> bool:
    return abs(number) < float("inf")  # false for NaN, too


def _images_with_broken_targets(batch: Batch) -> list[int]:
    broken = ~batch.targets.boxes.isfinite().all(1)
    return sorted(set(batch.targets.image_index[broken].tolist()))


def _breaks(given: Any, output: Any) -> bool:
    """Whether a layer turns finite numbers into others."""

    def tensors(values: Any) -> list[Tensor]:
        values = values if isinstance(values, tuple | list) else [values]
        return [value for value in values if isinstance(value, Tensor) and value.is_floating_point()]

    return all(t.isfinite().all() for t in tensors(given)) and not all(t.isfinite().all() for t in tensors(output))


def _file_names(trainer: Trainer, batch: Batch, images: Sequence[int] | None = None) -> list[str]:
    """``file name (id n)`` of images of a batch."""
    ids = batch.targets.image_ids.tolist()
    chosen = range(len(ids)) if images is None else images
    annotations = getattr(trainer.datamodule, "train_annotations", None)  # type: ignore[attr-defined]
    if annotations is None:
        return [f"id {ids[image]}" for image in chosen]
    places = {identifier: place for place, identifier in enumerate(annotations.image_ids.tolist())}
    return [f"{annotations.file_names[places[ids[image]]]} (id {ids[image]})" for image in chosen]


def _listed(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
