"""How far a model, on any device, is from what the authors' implementation computes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from rtdetrv2_train.loss.criterion import Criterion
from rtdetrv2_train.model.detector import RTDETRv2
from rtdetrv2_train.model.output import ModelOutput
from rtdetrv2_train.types import Targets
from tests.support import REFERENCE, build, chosen, composed, figures, fill, largest_difference, made


def reference_model(name: str) -> RTDETRv2:
    """A model with the reference's weights, which take seconds to make."""
    model = build(composed(chosen(name)))
    fill(model)
    return model


def prediction(model: nn.Module) -> ModelOutput:
    """Logits and boxes of the reference's image, in the precision of the model."""
    model.eval()
    with torch.no_grad():
        output: ModelOutput = model(made.image("image", 1, 640, 640).to(next(model.parameters())))
    return output


def prediction_difference(name: str, output: ModelOutput) -> float:
    """Largest difference of the logits and boxes of a :func:`prediction` from the reference's."""
    reference = np.load(REFERENCE / f"forward_{name}.npz")
    found = torch.cat([output.logits, output.boxes], -1)[0].float().cpu().numpy()
    wanted = np.concatenate([reference["pred_logits"], reference["pred_boxes"]], -1)[0]
    return largest_difference(found, wanted)


def training_figures(name: str, model: nn.Module) -> tuple[dict[str, float], dict[str, float]]:
    """Loss terms, and the norm of every parameter's gradient, of the reference's batch.

    Args:
        name: of the reference's model.
        model: of float64; its own gradients are lost.
    """
    device = next(model.parameters()).device
    expected = figures(name)["train"]
    images = made.image("batch", 2, *expected["image_size_hw"]).double().to(device)
    targets = Targets.from_list(made.targets(expected["num_gts"]))
    targets = replace(targets, boxes=targets.boxes.double()).to(device)
    return losses_and_gradient_norms(model, images, targets)


def expected_figures(name: str) -> tuple[dict[str, float], dict[str, float]]:
    """What :func:`training_figures` should be, for every parameter that is trained."""
    expected, exact = figures(name)["train"], np.load(REFERENCE / "float64.npz")
    losses = dict(zip(expected["losses"], exact[f"{name}/losses"], strict=True))
    norms = dict(zip(expected["grad_norms"], exact[f"{name}/grad_norms"], strict=True))
    return losses, {key: norm for key, norm in norms.items() if norm == norm}


def largest_deviation(found: dict[str, float], wanted: dict[str, float]) -> float:
    """Largest difference, relative where a figure is above 1: a bias before BatchNorm has a gradient of zero.

    Raises:
        AssertionError: if other figures were found than wanted.
    """
    assert found.keys() == wanted.keys(), sorted(found.keys() ^ wanted.keys())
    return max(abs(found[name] - value) / max(abs(value), 1.0) for name, value in wanted.items())


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
