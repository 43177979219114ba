"""Latency of inference: the reparameterised model with post-processing, eager, compiled, and as a CUDA graph."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.capture import Captured, why_not
from benchmarks.gpu.plan import Figures, Measurement, Plan
from benchmarks.gpu.timing import latencies
from rtdetrv2_train import RTDETRv2, build_model, fuse
from rtdetrv2_train.model.postprocessing import detections_from
from rtdetrv2_train.types import Detections
from tests.support import fill_with_scores

PRECISIONS: dict[str, torch.dtype | None] = {"float32": None, "float16": torch.float16}


def measurements(plan: Plan) -> list[Measurement]:
    """Batch 1 of the small model first; compiling takes time, so that most of it comes last."""
    if plan.dry_run:
        return [
            _measurement(plan, "nano", 2, "float32", False),
            _measurement(plan, "nano", 1, "float16", False),
            _measurement(plan, "nano", 1, "float32", True),
        ]
    eager = [("r18vd", batch, precision, False) for batch in (1, 8, 32) for precision in ("float16", "float32")]
    compiled = [("r18vd", 1, "float32", True), ("r18vd", 8, "float16", True), ("r18vd", 32, "float16", True)]
    large = [("r50vd", batch, "float16", False) for batch in (1, 8, 32)]
    first = [("r18vd", 1, "float16", False), ("r18vd", 1, "float16", True)]
    rest = [*(it for it in eager if it not in first), *large, ("r50vd", 1, "float16", True), *compiled]
    return [_measurement(plan, *it) for it in (*first, *rest)]


def _measurement(plan: Plan, name: str, batch: int, precision: str, compiled: bool) -> Measurement:
    what = f"{name}, batch {batch}, {precision}, {'compiled' if compiled else 'eager'}"
    return Measurement(what, lambda: speed(plan, Inference(plan.device, name, batch, precision, _size(plan)), compiled))


def _size(plan: Plan) -> int:
    return 64 if plan.dry_run else 640


class Inference:
    """Detections in a batch of images of random pixels, as the product finds them.

    Args:
        device: name of the device.
        name: name of the model.
        batch: batch size.
        precision: ``float32``, or ``float16`` for AMP as `Detector` has it with ``half``.
        size: side of the images in pixels.

    Attributes:
        images: on the device, uint8 ``[B, 3, H, W]`` in channels last; what is written there is looked at.
        host: the same in pinned memory, where there is a GPU.
        model: maps images to logits and boxes.
    """

    def __init__(self, device: str, name: str, batch: int, precision: str, size: int) -> None:
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(0, 256, (batch, size, size, 3), generator=generator, dtype=torch.uint8)
        self.host = (pixels.pin_memory() if torch.device(device).type == "cuda" else pixels).permute(0, 3, 1, 2)
        self.images = self.host.to(device)
        self.device, self.half = torch.device(device).type, PRECISIONS[precision]
        self.sizes = torch.tensor([[480.0, 640.0]] * batch, device=device)
        self.model: Callable[[Tensor], Any] = fused_model(name, device)

    def detect(self) -> Detections:
        """The detections, on the device."""
        with torch.inference_mode(), torch.autocast(self.device, self.half, enabled=self.half is not None):
            output = self.model(self.images)
            return detections_from(output.logits, output.boxes, self.sizes)

    def with_copies(self, detect: Callable[[], Detections]) -> Detections:
        """Copy the images to the device, detect, and copy the detections to the host."""
        self.images.copy_(self.host, non_blocking=True)
        found = detect()
        return Detections(found.labels.cpu(), found.boxes.cpu(), found.scores.cpu())


@cache
def fused_model(name: str, device: str) -> RTDETRv2:
    """A reparameterised model whose scores differ from query to query."""
    model = build_model(name)
    fill_with_scores(model)
    return fuse(model.to(device))


def speed(plan: Plan, inference: Inference, compiled: bool) -> Figures:
    """Latency of a batch, with and without copies, as it is and as a CUDA graph, whose detections are the same."""
    if compiled:
        torch.compiler.reset()
        backend = "eager" if plan.dry_run else "inductor"
        inference.model = torch.compile(inference.model, dynamic=False, backend=backend)
    figures: Figures = {"as it is": _latency(plan, inference, inference.detect)}
    expected = inference.detect()
    if plan.dry_run:
        return figures | {"CUDA graph": {"skipped": "only on a GPU"}}
    try:
        graph = Captured(inference.detect)
    except RuntimeError as error:
        return figures | {"CUDA graph": {"captured": "no", "as": why_not(error)}}
    figures["CUDA graph"] = _latency(plan, inference, graph)
    figures["CUDA graph"]["difference"] = largest_difference(expected, graph())
    return figures


def largest_difference(found: Detections, other: Detections) -> float:
    """Of scores, and of boxes in pixels, in the order of the queries' scores."""
    return max(float((found.scores - other.scores).abs().max()), float((found.boxes - other.boxes).abs().max()))


def _latency(plan: Plan, inference: Inference, detect: Callable[[], Detections]) -> Figures:
    repeats = 2 if plan.dry_run else 30
    alone = latencies(detect, plan.device, repeats, warm_up=1 if plan.dry_run else 5)
    copied = latencies(lambda: inference.with_copies(detect), plan.device, repeats, warm_up=1)
    return {
        "ms": statistics.median(alone),
        "least ms": min(alone),
        "ms with copies": statistics.median(copied),
        "images/s": 1000 * len(inference.images) / statistics.median(alone),
    }
