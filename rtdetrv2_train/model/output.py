"""What the model returns, in training and in evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rtdetrv2_train.model.denoising import DenoisingLayout


@dataclass(frozen=True)
class DenoisingOutput:
    """Predictions of the denoising queries.

    Attributes:
        layout: how the T queries are laid out.
        logits: ``[L, B, T, C]`` for each of the L decoder layers.
        boxes: ``[L, B, T, 4]``, cxcywh in [0, 1].
    """

    layout: DenoisingLayout
    logits: Tensor
    boxes: Tensor


@dataclass(frozen=True)
class ModelOutput:
    """Predictions for B images by Q queries over C classes.

    Attributes:
        logits: class logits, ``[B, Q, C]`` in evaluation; ``[L, B, Q, C]`` for each decoder layer in training.
        boxes: cxcywh in [0, 1], ``[B, Q, 4]`` or ``[L, B, Q, 4]``.
        encoder_logits: class logits of the encoder's proposals, which became the queries, ``[B, Q, C]``; None in
            evaluation.
        encoder_boxes: boxes of these proposals, ``[B, Q, 4]``; None in evaluation.
        denoising: predictions of the denoising queries; None in evaluation or without denoising.
    """

    logits: Tensor
    boxes: Tensor
    encoder_logits: Tensor | None = None
    encoder_boxes: Tensor | None = None
    denoising: DenoisingOutput | None = None
