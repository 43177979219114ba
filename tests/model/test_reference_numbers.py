"""Every model computes what the authors' implementation computes."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rtdetrv2_train.loss.criterion import Criterion
from rtdetrv2_train.model.detector import RTDETRv2
from rtdetrv2_train.model.postprocessing import detections_from
from rtdetrv2_train.types import Targets
from tests.support import (
    MODELS,
    REFERENCE,
    REFERENCE_THREADS,
    build,
    chosen,
    composed,
    figures,
    fill,
    largest_difference,
    made,
)

# One model of all is enough for `make test-quick`.
EVERY_MODEL = [MODELS[0], *(pytest.param(name, marks=pytest.mark.slow) for name in MODELS[1:])]


@pytest.fixture(scope="module")
def model(name: str) -> RTDETRv2:
    """A model with the reference's weights, which take seconds to make: both tests of it use the same."""
    built = build(composed(chosen(name)))
    fill(built)
    return built


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
    model.eval()
    with torch.no_grad():
        output = model(made.image("image", 1, 640, 640))
    found = torch.cat([output.logits, output.boxes], -1)[0].numpy()
    wanted = np.concatenate([reference["pred_logits"], reference["pred_boxes"]], -1)[0]
    # a rounded coordinate may fall on either side of a pixel's edge, which moves a query by some 1e-3
    assert largest_difference(found, wanted) < (1e-4 if "dsp" not in name else 2e-3)
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
    expected = figures(name)["train"]
    exact = np.load(REFERENCE / "float64.npz")
    trained = copy.deepcopy(model).double()
    images = made.image("batch", 2, *expected["image_size_hw"]).double()
    targets = Targets.from_list(made.targets(expected["num_gts"]))
    targets = replace(targets, boxes=targets.boxes.double())
    losses, norms = losses_and_gradient_norms(trained, images, targets)
    wanted = dict(zip(expected["losses"], exact[f"{name}/losses"], strict=True))
    assert losses == pytest.approx(wanted, rel=1e-9)
    wanted = dict(zip(expected["grad_norms"], exact[f"{name}/grad_norms"], strict=True))
    # a bias before BatchNorm has a gradient of zero in exact arithmetic
    assert norms == pytest.approx({key: norm for key, norm in wanted.items() if norm == norm}, rel=1e-9, abs=1e-9)


def losses_and_gradient_norms(
    model: nn.Module, images: Tensor, targets: Targets
) -> tuple[dict[str, float], dict[str, float]]:
    """One training step without denoising queries."""
    model.train()
    model.zero_grad()
    model.decoder.num_denoising = 0
    losses = Criterion()(model(images, targets), targets)
    torch.stack(tuple(losses.values())).sum().backward()
    norms = {name: p.grad.norm().item() for name, p in model.named_parameters() if p.grad is not None}
    return {name: term.item() for name, term in losses.items()}, norms
