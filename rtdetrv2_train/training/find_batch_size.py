"""How many images a device's memory holds in training, found by trying."""

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

_COPIES_OF_WEIGHTS = 3  # two moments of AdamW and the average


def find_batch_size(trainer: Trainer, module: DetectionModule, data: CocoDataModule, share: int) -> int:
    """The most images of one process's share of a step that fit, and share it evenly.

    Tried with images of the largest size of multi-scale training, each with as many boxes as the fullest has. Devices
    are taken to be alike. The memory of a CPU is not tried, as the system kills who asks for too much.

    Args:
        trainer: says what to compute on, and how precisely.
        module: whose step is tried; its weights stay what they are.
        data: to be trained on.
        share: images of a process in a step.
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
            losses = module.loss_terms_of(_made_up_batch(images, size, most_boxes).to(device))
        torch.stack(tuple(losses.values())).sum().backward()
        del spare

    statistics = {name: buffer.clone() for name, buffer in module.named_buffers()}
    try:
        found = largest_that_fits(step, share, lambda: _let_go(module))
    finally:
        for name, buffer in module.named_buffers():
            buffer.copy_(statistics[name])
    log.info("recipe.max_batch_size_per_device=auto: %d images of %d x %d fit", found, *size)
    return found


def largest_that_fits(step: Callable[[int], None], share: int, let_go: Callable[[], None]) -> int:
    """The largest divisor of ``share`` with which a step does not run out of memory.

    Args:
        step: a step with so many images.
        share: images to be shared.
        let_go: gives back the memory that a step has taken.

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
        let_go()
        if fits:
            return images
    raise UserError(
        "the device's memory does not hold the training of one image of the largest size: use smaller ones "
        "(model.image_size, model.multiscale), a smaller model, or trainer.precision=bf16-mixed"
    )


def _made_up_batch(images: int, size: tuple[int, int], boxes: int) -> Batch:
    target = {"boxes": torch.full((boxes, 4), 0.5), "labels": torch.zeros(boxes, dtype=torch.int64)}
    return Batch(torch.zeros(images, 3, *size, dtype=torch.uint8), Targets.from_list([target] * images))


def _let_go(module: DetectionModule) -> None:
    module.zero_grad(set_to_none=True)
    torch.cuda.empty_cache()
