"""``torch.compile`` for the convolutional parts of a detector."""

from __future__ import annotations

from typing import Any

from rtdetrv2_train.model.detector import RTDETRv2


def compile_convolutions(model: RTDETRv2, **options: Any) -> None:
    """Compile backbone and encoder with ``torch.compile``, in place, at their next use.

    Neither has a graph break. The second batch size and the second image size each cause one recompilation with dynamic
    shapes; later sizes cause none. The decoder is not compiled, as its graph depends on the number of boxes.

    Args:
        model: detector. The names of its state dict do not change.
        options: arguments of ``torch.compile``.
    """
    model.backbone.compile(**options)
    model.encoder.compile(**options)
