"""The types shared by all packages: targets, batches and detections.

The boxes of all images of a batch lie in one flat tensor, beside the number of boxes of each image as plain integers.
So using them needs no loop over images and no device-to-host read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class StepTotals:
    """Totals of one optimizer step, over all ranks and all batches of gradient accumulation.

    Loss and denoising queries depend on these totals instead of on the batch. So a step gives the same result for any
    world size and any gradient accumulation.

    Attributes:
        boxes_per_batch: mean number of boxes per batch; all batches together count as at least 1 box.
        most_boxes: largest number of boxes in one image.
    """

    boxes_per_batch: float
    most_boxes: int


@dataclass(frozen=True)
class Targets:
    """Ground truth of a batch of B images with N boxes in all.

    Attributes:
        boxes: float32 ``[N, 4]``, cxcywh, normalised to [0, 1], images one after the other.
        labels: int64 ``[N]``, contiguous class indices from 0.
        counts: number of boxes of each image, B integers on the host.
        image_index: int64 ``[N]``, index of each box's image within the batch.
        image_ids: int64 ``[B]``, ids of the annotation file; empty if made by hand.
        original_sizes: float32 ``[B, 2]``, (height, width) that each image spans in pixels of its file: the file's own
            size, or more if a letterbox adds a margin; empty if made by hand.
        noise_seeds: int64 ``[B]``, seed of each image's denoising noise; empty if made by hand.
        step: totals of the optimizer step of this batch; None: the batch is the whole step.
    """

    boxes: Tensor
    labels: Tensor
    counts: tuple[int, ...]
    image_index: Tensor
    image_ids: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    original_sizes: Tensor = field(default_factory=lambda: torch.zeros(0, 2))
    noise_seeds: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    step: StepTotals | None = None

    def __post_init__(self) -> None:
        if not len(self.boxes) == len(self.labels) == sum(self.counts) == len(self.image_index):
            raise ValueError(
                f"targets do not fit together: {len(self.boxes)} boxes, {len(self.labels)} labels, "
                f"{len(self.image_index)} image indices, counts {self.counts}"
            )

    @classmethod
    def from_list(cls, targets: Sequence[dict[str, Any]]) -> Targets:
        """Targets from one dictionary per image.

        Args:
            targets: for each image ``boxes`` (``[n, 4]`` normalised cxcywh) and ``labels`` (``[n]``), tensors or
                sequences, and optionally ``image_id``, ``original_size`` (height, width) and ``noise_seed``.

        Raises:
            ValueError: if the boxes and labels of an image differ in number.
        """
        boxes, labels = [], []
        for position, target in enumerate(targets):
            boxes.append(torch.as_tensor(target["boxes"], dtype=torch.float32).reshape(-1, 4))
            labels.append(torch.as_tensor(target["labels"], dtype=torch.int64).reshape(-1))
            if len(boxes[-1]) != len(labels[-1]):
                raise ValueError(f"target {position} has {len(boxes[-1])} boxes but {len(labels[-1])} labels")
        counts = tuple(len(of_image) for of_image in labels)
        device = boxes[0].device if boxes else None
        ids = [int(target["image_id"]) for target in targets if "image_id" in target]
        sizes = [[float(side) for side in target["original_size"]] for target in targets if "original_size" in target]
        seeds = [int(target["noise_seed"]) for target in targets if "noise_seed" in target]
        return cls(
            boxes=torch.cat(boxes) if boxes else torch.zeros(0, 4),
            labels=torch.cat(labels) if labels else torch.zeros(0, dtype=torch.int64),
            counts=counts,
            image_index=torch.repeat_interleave(torch.tensor(counts, dtype=torch.int64)).to(device),
            image_ids=torch.tensor(ids, dtype=torch.int64, device=device),
            original_sizes=torch.tensor(sizes, dtype=torch.float32, device=device).reshape(-1, 2),
            noise_seeds=torch.tensor(seeds, dtype=torch.int64, device=device),
        )

    @property
    def totals(self) -> StepTotals:
        """Totals of the optimizer step."""
        return self.step or StepTotals(max(float(sum(self.counts)), 1.0), max(self.counts, default=0))

    def __len__(self) -> int:
        """Number of images."""
        return len(self.counts)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Targets:
        """The same targets with every tensor on ``device``."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Targets:
        """The same targets in pinned memory, for asynchronous copies to the device."""
        return self._map(Tensor.pin_memory)

    def _map(self, function: Any) -> Targets:
        names = ("boxes", "labels", "image_index", "image_ids", "original_sizes", "noise_seeds")
        return replace(self, **{name: function(getattr(self, name)) for name in names})


@dataclass(frozen=True)
class Batch:
    """What a data loader yields.

    Attributes:
        images: uint8 ``[B, 3, H, W]``, RGB. The model converts them to floats in [0, 1] on the device.
        targets: ground truth of these images.
    """

    images: Tensor
    targets: Targets

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch on ``device``."""
        return Batch(self.images.to(device, non_blocking=non_blocking), self.targets.to(device, non_blocking))

    def pin_memory(self) -> Batch:
        """The same batch in pinned memory."""
        return Batch(self.images.pin_memory(), self.targets.pin_memory())

    def split(self, parts: int) -> list[Batch]:
        """Split the batch into parts of about equal size, at most one per image.

        Parts keep the totals of the whole step, so their losses add up to the loss of this batch.
        """
        parts = min(parts, len(self))
        ends = [len(self) * (part + 1) // parts for part in range(parts)]
        return [self._part(first, end) for first, end in zip([0, *ends], ends, strict=False)]

    def _part(self, first: int, end: int) -> Batch:
        whole = self.targets
        boxes = slice(sum(whole.counts[:first]), sum(whole.counts[:end]))
        targets = Targets(
            boxes=whole.boxes[boxes],
            labels=whole.labels[boxes],
            counts=whole.counts[first:end],
            image_index=whole.image_index[boxes] - first,
            image_ids=whole.image_ids[first:end],
            original_sizes=whole.original_sizes[first:end],
            noise_seeds=whole.noise_seeds[first:end],
            step=whole.totals,
        )
        return Batch(self.images[first:end], targets)


@dataclass(frozen=True)
class Detections:
    """Detections of a batch of B images, K each, highest score first.

    Attributes:
        labels: int64 ``[B, K]``, class indices.
        boxes: float32 ``[B, K, 4]``, xyxy in pixels of the original image.
        scores: float32 ``[B, K]``, in [0, 1].
    """

    labels: Tensor
    boxes: Tensor
    scores: Tensor
