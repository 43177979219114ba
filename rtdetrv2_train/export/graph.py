"""The graphs that are exported: a detector without what only training or PyTorch needs, recorded once.

Shape suffixes: B batch, H and W height and width of the model's input, Q queries, C classes, K detections.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.inference.detector import Detector
from rtdetrv2_train.inference.export_card import Graph, Precision
from rtdetrv2_train.model.architecture import COARSEST_STRIDE
from rtdetrv2_train.model.deformable_attention import MultiScaleDeformableAttention, SamplingMethod
from rtdetrv2_train.model.postprocessing import detections_from
from rtdetrv2_train.model.reparameterisation import ReparameterisedDetector, fuse

MAX_DETECTIONS = 300
_EXAMPLE_BATCH = 2  # a batch of 1 would be taken for a constant
_LARGEST_BATCH, _LARGEST_SIDE = 1024, 8192


@dataclass(frozen=True)
class Shape:
    """The shape of a graph's input.

    Attributes:
        batch: number of images; None: any.
        image_size: (height, width) in pixels; None: any multiples of 32.
    """

    batch: int | None = 1
    image_size: tuple[int, int] | None = None


class DetectorGraph(nn.Module):
    """What is recorded: a model between named inputs and outputs.

    Args:
        model: of which the graph is made.
    """

    input_names: tuple[str, ...]
    output_names: tuple[str, ...]

    def __init__(self, model: ReparameterisedDetector) -> None:
        super().__init__()
        self.model = model

    def predict(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``[B, Q, C]`` and boxes ``[B, Q, 4]``. The layout of the images is left to the runtime."""
        output = self.model.decoder(self.model.encoder(self.model.backbone(images_B3HW)))
        return output.logits, output.boxes


class RawGraph(DetectorGraph):
    """Images ``[B, 3, H, W]`` in [0, 1] to logits ``[B, Q, C]`` and boxes ``[B, Q, 4]``, cxcywh in [0, 1]."""

    input_names = ("images",)
    output_names = ("logits", "boxes")

    def forward(self, images_B3HW: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        return self.predict(images_B3HW)


class DetectionGraph(DetectorGraph):
    """Images, spans and a threshold to detections: the model and its post-processing.

    Spans ``[B, 2]`` are the (height, width) that the input shows in pixels of the original image; the threshold has
    shape ``[1]``. Gives labels int64 ``[B, K]``, scores ``[B, K]``, boxes ``[B, K, 4]`` (xyxy in pixels of the original
    image), best first, and the number of scores above the threshold, int64 ``[B]``.
    """

    input_names = ("images", "spans", "threshold")
    output_names = ("labels", "scores", "boxes", "count")

    def forward(self, images_B3HW: Tensor, spans_B2: Tensor, threshold: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        logits_BQC, boxes_BQ4 = self.predict(images_B3HW)
        found = detections_from(logits_BQC, boxes_BQ4, spans_B2, MAX_DETECTIONS)
        return found.labels, found.scores, found.boxes, (found.scores > threshold).sum(1)


@dataclass(frozen=True, eq=False)
class Recorded:
    """A graph with an example of its inputs: what every writer starts from.

    Attributes:
        module: in evaluation mode and without gradients.
        example: inputs of the fixed shape; where one is dynamic, a batch of 2 and a size that is not square.
        shape: what is fixed.
        precision: of the weights and computations that are wanted.
    """

    module: DetectorGraph
    example: tuple[Tensor, ...]
    shape: Shape
    precision: Precision = "float32"
    input_names: tuple[str, ...] = field(init=False)
    output_names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_names", self.module.input_names)
        object.__setattr__(self, "output_names", self.module.output_names)

    @property
    def dynamic_shapes(self) -> tuple[dict[int, Any], ...] | None:
        """Of the inputs, for ``torch.export``; None where all is fixed."""
        if None not in (self.shape.batch, self.shape.image_size):
            return None
        images: dict[int, Any] = {}
        spans: dict[int, Any] = {}
        if self.shape.batch is None:
            images[0] = spans[0] = Dim("batch", max=_LARGEST_BATCH)
        if self.shape.image_size is None:
            most = _LARGEST_SIDE // COARSEST_STRIDE
            images |= {2: COARSEST_STRIDE * Dim("rows", max=most), 3: COARSEST_STRIDE * Dim("columns", max=most)}
        return (images, spans, {})[: len(self.example)]

    def inputs_with(self, images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """All inputs by name, where the first is given: images ``[B, C, H, W]``."""
        others = [value[: len(images)].numpy() for value in self.example[1:]]
        return dict(zip(self.input_names, (images, *others), strict=True))

    @cached_property
    def program(self) -> ExportedProgram:
        """The graph as ``torch.export`` records it."""
        with torch.no_grad():
            return torch.export.export(self.module, self.example, dynamic_shapes=self.dynamic_shapes)


def record(
    detector: Detector,
    graph: Graph,
    shape: Shape,
    precision: Precision = "float32",
    sampling: SamplingMethod | None = None,
    num_queries: int | None = None,
) -> Recorded:
    """Prepare a detector's graph for the writers.

    Args:
        detector: not changed.
        graph: ``raw``: :class:`RawGraph`; ``end_to_end``: :class:`DetectionGraph`, to which a format adds the resizing.
        shape: what of the input is fixed.
        precision: what is wanted.
        sampling: of the decoder; None for the model's own.
        num_queries: the best so many positions become queries; None for the model's number.

    Raises:
        UserError: if the size is no multiple of 32, or a number is out of range.
    """
    check_size(shape.image_size)
    model = fuse(detector.pytorch_model)
    decoder = model.decoder
    if num_queries is not None:
        decoder.num_queries = num_queries
    if sampling is not None:
        for attention in (m for m in decoder.modules() if isinstance(m, MultiScaleDeformableAttention)):
            attention.method = sampling
    height, width = shape.image_size or _other_size(detector.image_size)
    if shape.image_size is not None:
        model.bake(height, width)
    batch = shape.batch or _EXAMPLE_BATCH
    images = torch.rand(
        batch, model.architecture.in_channels, height, width, generator=torch.Generator().manual_seed(0)
    )
    module = (RawGraph if graph == "raw" else DetectionGraph)(model.cpu())
    example = (images, torch.tensor([[480.0, 640.0]]).repeat(batch, 1), torch.tensor([detector.threshold]))
    return Recorded(module.eval(), example[: len(module.input_names)], shape, precision)


def check_size(size: tuple[int, int] | None) -> None:
    """Check an image size.

    Raises:
        UserError: if its sides are no multiples of 32.
    """
    if size is not None and any(side <= 0 or side % COARSEST_STRIDE for side in size):
        raise UserError(
            f"size={list(size)}: height and width must be multiples of {COARSEST_STRIDE}, such as "
            f"{[max(round(side / COARSEST_STRIDE), 1) * COARSEST_STRIDE for side in size]}"
        )


def _other_size(size: tuple[int, int]) -> tuple[int, int]:
    """A size that is neither square nor the configured one, so that neither becomes a constant unnoticed."""
    height, width = size
    return height + COARSEST_STRIDE, width + (3 if width == height else 2) * COARSEST_STRIDE
