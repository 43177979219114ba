"""What happens where memory is short: a batch is split with the same gradient, the batch that fits is found."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.gpu.plan import Figures
from benchmarks.gpu.short_runs import ShortRun
from rtdetrv2_train import build_criterion, build_model
from rtdetrv2_train.training.find_batch_size import find_batch_size
from rtdetrv2_train.training.oom import SplitOnOOM
from rtdetrv2_train.types import Batch, Targets

SAME_GRADIENT = {"deviation": 1e-9}
_SHARE_OF_PEAK = 0.6


class _Loss:
    """A model with frozen BatchNorm, so that images are independent, in float64; remembers the batches it has seen.

    Args:
        name: name of the model.
        device: name of the device.
        most: more images than so many run out of memory, on a CPU; None: the memory says so.
    """

    def __init__(self, name: str, device: str, most: int | None) -> None:
        torch.manual_seed(0)
        self.model = build_model(name, num_classes=3).double().to(device)
        for part in self.model.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.eval()
        self.criterion = build_criterion(name)
        self.most = most
        self.sizes: list[int] = []

    def __call__(self, batch: Batch) -> Tensor:
        self.sizes.append(len(batch))
        if self.most is not None and len(batch) > self.most:
            raise torch.OutOfMemoryError
        terms = self.criterion(self.model(batch.images, batch.targets), batch.targets)
        return torch.stack(tuple(terms.values())).sum()

    def gradient(self) -> Tensor:
        """The whole gradient, which is freed, on the CPU."""
        parts = [p.grad.flatten() for p in self.model.parameters() if p.grad is not None]
        gradient = torch.cat([part.cpu() for part in parts])
        self.model.zero_grad()
        return gradient


def split_gradient(device: str, name: str, size: int, images: int) -> Figures:
    """The gradient of a batch that runs out of memory beside that of the same batch where there is enough.

    On a GPU memory is limited to a part of what the whole batch takes. On a CPU the loss says that it runs out of it.
    """
    on_gpu = torch.device(device).type == "cuda"
    loss = _Loss(name, device, None)
    batch = _batch(size, images).to(device)
    batch = Batch(batch.images, replace(batch.targets, boxes=batch.targets.boxes.double()))
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    loss(batch).backward()
    whole = loss.gradient()
    limit, split = None, SplitOnOOM()
    if on_gpu:
        peak, held = torch.cuda.max_memory_allocated(), torch.cuda.memory_allocated()
        limit = int(held + _SHARE_OF_PEAK * (peak - held))
    else:
        loss.most = images // 2
    loss.sizes.clear()
    with limited_memory(limit):
        split.loss(batch, loss, loss.model.zero_grad).backward()
    found = loss.gradient()
    assert split.max_pixels is not None, "the batch was not split: memory was not short"
    return {
        "deviation": float((found - whole).norm() / whole.norm()),
        "batches": list(loss.sizes),
        "memory of the whole, MB": 0 if limit is None else peak / 2**20,
        "memory allowed, MB": 0 if limit is None else limit / 2**20,
    }


def batch_that_fits(folder: Path, device: str, name: str, size: int, share: int, limit: int | None = None) -> Figures:
    """The largest part of a step's images that fits into memory, as `recipe.max_batch_size_per_device=auto` finds it.

    Args:
        folder: for files.
        device: name of the device.
        name: name of the model.
        size: side of the images in pixels.
        share: images of the step.
        limit: bytes of memory; None for all of it.
    """
    run = ShortRun(folder, device, 1, model=name, size=size)
    before = {key: tensor.clone() for key, tensor in run.module.state_dict().items()}
    with limited_memory(limit):
        found = find_batch_size(run.trainer, run.module, run.data, share)
    after = run.module.state_dict()
    changed = sum(not torch.equal(tensor.cpu(), after[key].cpu()) for key, tensor in before.items())
    return {"images": found, "of": share, "changed": changed}


@contextmanager
def limited_memory(limit: int | None) -> Iterator[None]:
    """Within this context PyTorch may take so many bytes of the GPU; None for all."""
    if limit is None:
        yield
        return
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(limit / torch.cuda.get_device_properties(0).total_memory, 1.0))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def _batch(size: int, images: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    targets = [
        {"boxes": torch.rand(count, 4, generator=generator) * 0.4 + 0.1, "labels": [1] * count, "noise_seed": image}
        for image, count in enumerate([(3, 0, 1, 2, 1, 4)[image % 6] for image in range(images)])
    ]
    return Batch(torch.rand(images, 3, size, size, generator=generator).double(), Targets.from_list(targets))
