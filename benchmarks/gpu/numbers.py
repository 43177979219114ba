"""The reference's figures on a device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from benchmarks.gpu.plan import Figures
from tests.reference_figures import (
    expected_figures,
    largest_deviation,
    prediction,
    prediction_difference,
    reference_model,
    training_figures,
)

EXACT = {"float64 losses": 1e-9, "float64 gradients": 1e-9}
# On a CPU it is 1e-4. Other convolutions sum in another order, and random deep weights magnify that.
SINGLE = {"float32 prediction": 1e-3}
# A rounded coordinate may fall on either side of a pixel's edge.
SINGLE_DISCRETE = {"float32 prediction": 1e-2}


def bounds(name: str) -> dict[str, float]:
    """The most that :func:`reference_differences` may be."""
    return EXACT | (SINGLE_DISCRETE if name.endswith("dsp") else SINGLE)


def reference_differences(name: str, device: str) -> Figures:
    """Largest differences from the reference: predictions in float32, losses and gradient norms in float64.

    TF32 is off, but for further figures on a GPU: with it where PyTorch allows it by default, and everywhere.
    """
    figures: Figures = {}
    model = reference_model(name).to(device)
    with tf32(products=False, convolutions=False):
        figures["float32 prediction"] = prediction_difference(name, prediction(model))
    if torch.device(device).type == "cuda":
        with tf32(products=False, convolutions=True):
            figures["with TF32 by default"] = prediction_difference(name, prediction(model))
        with tf32(products=True, convolutions=True):
            figures["with TF32"] = prediction_difference(name, prediction(model))
    found = training_figures(name, model.double())
    for what, ours, theirs in zip(EXACT, found, expected_figures(name), strict=True):
        figures[what] = largest_deviation(ours, theirs)
    return figures


@contextmanager
def tf32(products: bool, convolutions: bool) -> Iterator[None]:
    """Within this context matrix products and convolutions of float32 use TF32 on a GPU, or do not."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32, cudnn.allow_tf32 = products, convolutions
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
