"""Scaling on paper: estimated traffic and times of training on many GPUs, for docs/scaling.md.

    PYTHONPATH=. python benchmarks/scaling.py

Parameters, BatchNorm layers and FLOPs of the models are counted here. Images per second of one core are measured by
``data_path.py``. Everything else is an assumption, listed below.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from math import log2

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rtdetrv2_train import build_model

SUSTAINED_FLOPS = 30e12  # of a GPU with AMP, on convolutions and small matrices: a tenth of an A100's peak
TRAINING_OVER_FORWARD = 3  # a backward pass costs about two forward passes
NVLINK_BYTES = 450e9  # per second, per GPU and direction
NVLINK_LATENCY = 25e-6  # seconds of a small collective within a node
NETWORK_LATENCY = 20e-6  # additional seconds for each doubling of the number of nodes
GPUS_PER_NODE = 8
IMAGES_PER_CORE = 309  # per second, with strong augmentation at 640 x 640: BENCHMARKS.md, "Data path"
STORED_BYTES = 18e9 / 118_287  # per image of COCO's train2017.zip
IMAGE_BYTES = 3 * 640 * 640  # of uint8, from a worker to the GPU
DETECTION_BYTES = 4 + 16 + 4  # label, box, score
MODELS = ("r18vd", "r34vd", "r50vd_m", "r50vd", "r101vd", "hgnetv2_h")


@dataclass(frozen=True)
class ModelCosts:
    """Counted costs of a model.

    Attributes:
        name: name of the model.
        gradient_bytes: bytes of the gradients of all trained parameters, in float32.
        live_norms: number of BatchNorm layers that are not frozen.
        norm_channels: channels of these layers.
        buffer_bytes: bytes of buffers, which DDP broadcasts from rank 0 before each forward pass.
        forward_flops: FLOPs of one image of 640 x 640, in evaluation.
    """

    name: str
    gradient_bytes: int
    live_norms: int
    norm_channels: int
    buffer_bytes: int
    forward_flops: float

    @classmethod
    def count(cls, name: str) -> ModelCosts:
        """Build the model on the meta device and count."""
        with torch.device("meta"):
            model = build_model(name)
            images: Tensor = torch.zeros(1, 3, 640, 640)
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            model.eval()(images)
        return cls(
            name=name,
            gradient_bytes=4 * sum(p.numel() for p in model.parameters() if p.requires_grad),
            live_norms=len(norms),
            norm_channels=sum(norm.num_features for norm in norms),
            buffer_bytes=sum(b.numel() * b.element_size() for b in model.buffers()),
            forward_flops=counter.get_total_flops(),
        )

    def compute_seconds(self, images: int) -> float:
        """Seconds of forward and backward pass on one GPU."""
        return images * TRAINING_OVER_FORWARD * self.forward_flops / SUSTAINED_FLOPS


@dataclass(frozen=True)
class Step:
    """A training step on ``gpus`` GPUs, ``images`` per GPU, ``network`` bytes per second between nodes."""

    costs: ModelCosts
    gpus: int
    images: int
    network: float

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return max(self.gpus // GPUS_PER_NODE, 1)

    @property
    def gradient_bytes_sent(self) -> float:
        """Bytes of the gradient all-reduce, by each GPU in a ring, and by each node over its network."""
        return 2 * (self.gpus - 1) / self.gpus * self.costs.gradient_bytes

    @property
    def norm_bytes_sent(self) -> float:
        """Bytes of SyncBatchNorm by each GPU: all-gather of mean, variance, count; then all-reduce of two sums."""
        forward = (self.gpus - 1) * (2 * self.costs.norm_channels + self.costs.live_norms) * 4
        return forward + 2 * (self.gpus - 1) / self.gpus * 2 * self.costs.norm_channels * 4

    @property
    def gradient_seconds(self) -> float:
        """Seconds of the gradient all-reduce, at the speed of the slowest link."""
        return self.gradient_bytes_sent / (min(NVLINK_BYTES, self.network) if self.nodes > 1 else NVLINK_BYTES)

    @property
    def norm_seconds(self) -> float:
        """Seconds of SyncBatchNorm: two small collectives per layer, one after the other, not overlapped."""
        latency = NVLINK_LATENCY + NETWORK_LATENCY * log2(self.nodes)
        return 2 * self.costs.live_norms * latency

    @property
    def seconds(self) -> float:
        """Seconds of the step. The gradient all-reduce overlaps the backward pass, SyncBatchNorm does not."""
        compute = self.costs.compute_seconds(self.images)
        backward = compute * (1 - 1 / TRAINING_OVER_FORWARD)
        return compute - backward + max(backward, self.gradient_seconds) + self.norm_seconds

    @property
    def efficiency(self) -> float:
        """Scaling efficiency: images per second, divided by those of as many separate GPUs."""
        return self.costs.compute_seconds(self.images) / self.seconds


def bytes_table(costs: list[ModelCosts]) -> list[str]:
    """Bytes that each GPU sends in a step, with 8 and 64 GPUs."""
    lines = [
        "| model | gradients | live norms | norms' statistics, 8 / 64 GPUs | buffers | forward pass |",
        "|---|---|---|---|---|---|",
    ]
    for c in costs:
        norms = " / ".join(f"{Step(c, gpus, 1, 1).norm_bytes_sent / 1e6:.1f}" for gpus in (8, 64))
        lines.append(
            f"| {c.name} | {c.gradient_bytes / 1e6:.0f} MB | {c.live_norms} | {norms} MB | "
            f"{c.buffer_bytes / 1e6:.1f} MB | {c.forward_flops / 1e9:.0f} GFLOP |"
        )
    return lines


def time_table(costs: list[ModelCosts], images: int) -> list[str]:
    """Time and efficiency with a batch size per device of ``images``."""
    lines = [
        f"| model, {images} images on each GPU | computing | gradients: 8 GPUs | 64, 400 Gb/s | 64, 100 Gb/s "
        "| norms: 8 / 64 GPUs | efficiency: 8 | 64, 400 Gb/s | 64, 100 Gb/s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for c in costs:
        steps = [Step(c, 8, images, NVLINK_BYTES), Step(c, 64, images, 50e9), Step(c, 64, images, 12.5e9)]
        gradients = " | ".join(f"{1e3 * step.gradient_seconds:.1f} ms" for step in steps)
        norms = " / ".join(f"{1e3 * step.norm_seconds:.1f}" for step in steps[:2])
        efficiencies = " | ".join(f"{step.efficiency:.0%}" for step in steps)
        computing = f"{1e3 * c.compute_seconds(images):.0f} ms"
        lines.append(f"| {c.name} | {computing} | {gradients} | {norms} ms | {efficiencies} |")
    return lines


def data_table(costs: list[ModelCosts]) -> list[str]:
    """Data rates that a node of 8 GPUs needs."""
    lines = ["| model | images/s | cores | from storage | to the GPUs |", "|---|---|---|---|---|"]
    for c in costs:
        rate = GPUS_PER_NODE / c.compute_seconds(1)
        storage, device = rate * STORED_BYTES / 1e6, rate * IMAGE_BYTES / 1e9
        lines.append(
            f"| {c.name} | {rate:.0f} | {rate / IMAGES_PER_CORE:.1f} | {storage:.0f} MB/s | {device:.2f} GB/s |"
        )
    return lines


def evaluation_table() -> list[str]:
    """Bytes that rank 0 receives when detections are gathered."""
    lines = ["| images | GPUs | sent by each | received by the first |", "|---|---|---|---|"]
    for images, gpus in ((5_000, 8), (5_000, 64), (640_000, 64)):
        own = images // gpus * 300 * DETECTION_BYTES
        lines.append(f"| {images:,} | {gpus} | {own / 1e6:.1f} MB | {own * gpus / 1e6:,.0f} MB |")
    return lines


def tables() -> str:
    """All tables of docs/scaling.md."""
    costs = [ModelCosts.count(name) for name in MODELS]
    parts = [bytes_table(costs), time_table(costs, 2), time_table(costs, 16), data_table(costs), evaluation_table()]
    return "\n\n".join("\n".join(part) for part in parts)


if __name__ == "__main__":
    sys.stdout.write(tables() + "\n")
