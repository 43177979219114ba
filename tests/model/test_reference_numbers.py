"""Every model computes what the authors' implementation computes."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from rtdetrv2_train.model.detector import RTDETRv2
from rtdetrv2_train.model.postprocessing import detections_from
from tests.reference_figures import (
    expected_figures,
    largest_deviation,
    prediction,
    prediction_difference,
    reference_model,
    training_figures,
)
from tests.support import (
    MODELS,
    REFERENCE,
    REFERENCE_THREADS,
    figures,
    largest_difference,
)

# One model of all is enough for `make test-quick`.
EVERY_MODEL = [MODELS[0], *(pytest.param(name, marks=pytest.mark.slow) for name in MODELS[1:])]


@pytest.fixture(scope="module")
def model(name: str) -> RTDETRv2:
    """A model with the reference's weights, which take seconds to make: both tests of it use the same."""
    return reference_model(name)


@pytest.mark.parametrize("name", EVERY_MODEL, scope="module")
def test_predictions_equal_the_reference(name: str, model: RTDETRv2) -> None:
    expected = figures(name)
    shapes = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
    assert shapes == expected["state_dict"]
    assert sum(p.numel() for p in model.parameters()) == expected["params"]
    frozen = {key for key, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == set(expected["requires_grad_false"])

    torch.set_num_threads(REFERENCE_THREADS)
    reference = np.load(REFERENCE / f"forward_{name}.npz")
    output = prediction(model)
    # a rounded coordinate may fall on either side of a pixel's edge, which moves a query by some 1e-3
    assert prediction_difference(name, output) < (1e-4 if "dsp" not in name else 2e-3)
    detections = detections_from(output.logits, output.boxes, torch.tensor([[375, 500]]))
    found = torch.cat(
        [detections.labels[0, :, None] * 1000.0, detections.scores[0, :, None], detections.boxes[0] / 500], 1
    ).numpy()
    labels, scores, boxes = (reference[key].reshape(300, -1) for key in ("top_labels", "top_scores", "top_boxes"))
    assert largest_difference(found, np.concatenate([labels * 1000.0, scores, boxes / 500], 1)) < 1e-4


@pytest.mark.parametrize("name", EVERY_MODEL, scope="module")
def test_losses_and_gradients_equal_the_reference(name: str, model: RTDETRv2) -> None:
    # In float64: in float32 rounding moves the authors' own figures by 1e-4, and by 10 % where coordinates are rounded
    # to pixels, from one processor to the next.
    losses, norms = training_figures(name, copy.deepcopy(model).double())
    wanted_losses, wanted_norms = expected_figures(name)
    assert losses == pytest.approx(wanted_losses, rel=1e-9)
    assert largest_deviation(norms, wanted_norms) < 1e-9
