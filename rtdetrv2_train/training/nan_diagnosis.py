"""Find where NaN or Inf came from, in a step whose loss or gradient is NaN or Inf."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from rtdetrv2_train.training.module import DetectionModule
from rtdetrv2_train.types import Batch


def cause_of(trainer: Trainer, module: DetectionModule, batch: Batch, terms: Mapping[str, float]) -> str:
    """Where NaN or Inf came first: targets, images, weights, a layer's output, a loss term or a gradient.

    To find the layer or gradient the step is repeated. That updates the running statistics of BatchNorm.

    Args:
        trainer: trainer of the run.
        module: training module after the step.
        batch: batch of the step.
        terms: loss terms of the step, by name.

    Returns:
        a clause for the log, such as ``the weights ... have NaN or Inf``.
    """
    if images := _images_with_broken_targets(batch):
        return f"the boxes of {_listed(file_names(trainer, batch, images))} have NaN or Inf"
    if batch.images.is_floating_point() and not (fine := batch.images.isfinite().flatten(1).all(1)).all():
        broken = (~fine).nonzero().flatten().tolist()
        return f"the pixels of {_listed(file_names(trainer, batch, broken))} have NaN or Inf"
    state = [*module.model.named_parameters(), *module.model.named_buffers()]
    if names := [name for name, tensor in state if tensor.is_floating_point() and not tensor.isfinite().all()]:
        return f"the weights {_listed(names)} have NaN or Inf"
    layer, gradients = _replay(trainer, module, batch)
    broken_terms = [name for name, value in terms.items() if not is_finite(value)]
    reasons = [f"the output of the layer {layer} has NaN or Inf"] if layer else []
    if broken_terms:
        reasons.append(f"the loss terms {_listed(broken_terms)} are NaN or Inf")
    if gradients:
        reasons.append(f"the gradients of {_listed(gradients)} have NaN or Inf")
    return " and ".join(reasons) or "the gradient has NaN or Inf"


def _replay(trainer: Trainer, module: DetectionModule, batch: Batch) -> tuple[str | None, list[str]]:
    """Repeat the step: the first layer whose output has NaN or Inf, and the parameters whose gradients have."""
    if trainer.world_size > 1:
        return None, []  # SyncBatchNorm would wait for the other ranks
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
    broken = [
        name
        for name, gradient in zip(parameters, gradients, strict=True)
        if gradient is not None and not gradient.isfinite().all()
    ]
    return (layers[0] if layers else None), broken[::-1]  # in the order of the backward pass


def is_finite(number: float) -> bool:
    """Whether a number is neither NaN nor Inf."""
    return abs(number) < float("inf")  # false for NaN, too


def _images_with_broken_targets(batch: Batch) -> list[int]:
    broken = ~batch.targets.boxes.isfinite().all(1)
    return sorted(set(batch.targets.image_index[broken].tolist()))


def _breaks(given: Any, output: Any) -> bool:
    """Whether a layer turns finite inputs into NaN or Inf."""

    def tensors(values: Any) -> list[Tensor]:
        values = values if isinstance(values, tuple | list) else [values]
        return [value for value in values if isinstance(value, Tensor) and value.is_floating_point()]

    return all(t.isfinite().all() for t in tensors(given)) and not all(t.isfinite().all() for t in tensors(output))


def file_names(trainer: Trainer, batch: Batch, images: Sequence[int] | None = None) -> list[str]:
    """``file name (id n)`` of images of a batch; all images if None are chosen."""
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
