"""Compiling the parts of a detector that are made of convolutions."""

from __future__ import annotations

from typing import Any

from rtdetrv2_train.model.detector import RTDETRv2


def compile_convolutions(model: RTDETRv2, **options: Any) -> None:
    """Have ``torch.compile`` take over the backbone and the encoder, at their next use; in place.

    Neither breaks the graph. The second batch size, and the second image size, compile once more for sizes of any kind;
    further ones do not compile again. The decoder stays as it is: what it does depends on the number of boxes.

    Args:
        model: names of its state dict stay as they are.
        options: of ``torch.compile``.
    """
    model.backbone.compile(**options)
    model.encoder.compile(**options)
