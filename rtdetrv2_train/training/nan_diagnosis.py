"""Where NaN or Inf came from, in a step whose loss or gradient holds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from rtdetrv2_train.training.module import DetectionModule
from rtdetrv2_train.types import Batch


def cause_of(trainer: Trainer, module: DetectionModule, batch: Batch, terms: Mapping[str, float]) -> str:
    """Where NaN or Inf came first, in the order of causes.

    Those are: targets, images, weights, the output of a layer, a term of the loss, a gradient. To tell the last
    three the step is run again, which moves the statistics of BatchNorm.

    Args:
        trainer: of the run.
        module: after the step.
        batch: of the step.
        terms: of its loss, by name.
    """
    if images := _images_with_broken_targets(batch):
        return f"the boxes of {_listed(file_names(trainer, batch, images))} are not finite"
    if batch.images.is_floating_point() and not (fine := batch.images.isfinite().flatten(1).all(1)).all():
        broken = (~fine).nonzero().flatten().tolist()
        return f"the pixels of {_listed(file_names(trainer, batch, broken))} are not finite"
    state = [*module.model.named_parameters(), *module.model.named_buffers()]
    if names := [name for name, tensor in state if tensor.is_floating_point() and not tensor.isfinite().all()]:
        return f"the weights {_listed(names)} are not finite"
    layer, gradients = _replay(trainer, module, batch)
    broken_terms = [name for name, value in terms.items() if not is_finite(value)]
    reasons = [f"the output of the layer {layer} is not finite"] if layer else []
    if broken_terms:
        reasons.append(f"the loss terms {_listed(broken_terms)} are not finite")
    if gradients:
        reasons.append(f"the gradients of {_listed(gradients)} are not finite")
    return " and ".join(reasons) or "the gradient is not finite"


def _replay(trainer: Trainer, module: DetectionModule, batch: Batch) -> tuple[str | None, list[str]]:
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
    broken = [
        name
        for name, gradient in zip(parameters, gradients, strict=True)
        if gradient is not None and not gradient.isfinite().all()
    ]
    return (layers[0] if layers else None), broken[::-1]  # the last ones have theirs first


def is_finite(number: float) -> bool:
    """Whether a number is neither NaN nor Inf."""
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


def file_names(trainer: Trainer, batch: Batch, images: Sequence[int] | None = None) -> list[str]:
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
