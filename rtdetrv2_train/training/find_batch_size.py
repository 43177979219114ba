"""Find the largest batch size per device that fits into GPU memory, by trying until no out-of-memory error (OOM)."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import torch
from lightning.pytorch import Trainer

from rtdetrv2_train.data.loading.datamodule import CocoDataModule
from rtdetrv2_train.data.loading.samplers import scaled_size
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.training.module import DetectionModule
from rtdetrv2_train.types import Batch, Targets

log = logging.getLogger(__name__)

_COPIES_OF_WEIGHTS = 3  # two moments of AdamW and the EMA


def find_batch_size(trainer: Trainer, module: DetectionModule, data: CocoDataModule, share: int) -> int:
    """The largest batch size per device that fits into memory and divides a rank's share of the step.

    Tries images of the largest multi-scale size, each with as many boxes as the training image that has most. All
    devices are assumed to be alike. On a CPU nothing is tried, as Linux kills a process that runs out of memory.

    Args:
        trainer: gives device and precision.
        module: training module to try. Its weights and buffers do not change.
        data: data module with the training set.
        share: images of one rank in an optimizer step.

    Raises:
        UserError: if not even one image fits.
    """
    device = trainer.strategy.root_device
    if device.type != "cuda":
        return share
    sizes = [data.image_size, *(scaled_size(data.image_size, scale) for scale in data.multiscale)]
    size = max(sizes, key=lambda size: size[0] * size[1])
    most_boxes = max(int(np.diff(data.train_annotations.offsets).max()), 1)
    module.to(device)

    def step(images: int) -> None:
        spare = [torch.empty_like(p) for p in module.model.parameters() for _ in range(_COPIES_OF_WEIGHTS)]
        with trainer.precision_plugin.forward_context():
            losses = module.loss_terms_of(_synthetic_batch(images, data.channels, size, most_boxes).to(device))
        torch.stack(tuple(losses.values())).sum().backward()
        del spare

    statistics = {name: buffer.clone() for name, buffer in module.named_buffers()}
    try:
        found = largest_that_fits(step, share, lambda: _free_memory(module))
    finally:
        for name, buffer in module.named_buffers():
            buffer.copy_(statistics[name])
    log.info("recipe.max_batch_size_per_device=auto: %d images of %d x %d fit", found, *size)
    return found


def largest_that_fits(step: Callable[[int], None], share: int, free_memory: Callable[[], None]) -> int:
    """The largest divisor of ``share`` with which a step does not run out of memory.

    Args:
        step: runs a step with a given number of images.
        share: images of one rank in an optimizer step.
        free_memory: frees the memory of a step.

    Raises:
        UserError: if not even one image fits.
    """
    for images in (n for n in range(share, 0, -1) if share % n == 0):
        try:
            step(images)
        except torch.OutOfMemoryError:
            fits = False
        else:
            fits = True
        free_memory()
        if fits:
            return images
    raise UserError(
        "out of memory (OOM) with one image of the largest size: use smaller images (model.image_size, "
        "model.multiscale), a smaller model, gradient_checkpointing=true or trainer.precision=bf16-mixed"
    )


def _synthetic_batch(images: int, channels: int, size: tuple[int, int], boxes: int) -> Batch:
    target = {"boxes": torch.full((boxes, 4), 0.5), "labels": torch.zeros(boxes, dtype=torch.int64)}
    return Batch(torch.zeros(images, channels, *size, dtype=torch.uint8), Targets.from_list([target] * images))


def _free_memory(module: DetectionModule) -> None:
    module.zero_grad(set_to_none=True)
    torch.cuda.empty_cache()
