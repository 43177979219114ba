"""Models and weights that the tests of this folder share."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rtdetrv2_train.model.decoder import Decoder
from rtdetrv2_train.model.detector import RTDETRv2
from rtdetrv2_train.model.hybrid_encoder import HybridEncoder
from rtdetrv2_train.model.resnet import ResNetVD

REFERENCE = Path(__file__).parents[1] / "reference"


def load_deterministic_weights() -> Any:
    spec = importlib.util.spec_from_file_location("deterministic_weights", REFERENCE / "deterministic_weights.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def deterministic() -> Any:
    """The module that makes the weights and images behind the reference values."""
    return load_deterministic_weights()


@pytest.fixture(scope="session")
def reference_shapes() -> Callable[[str], dict[str, list[int]]]:
    """Names and shapes of an authors' model."""

    def shapes(model: str) -> dict[str, list[int]]:
        return json.loads((REFERENCE / f"{model}.json").read_text())["state_dict"]

    return shapes


@pytest.fixture(scope="session")
def hollow_weights(reference_shapes: Callable[[str], dict[str, list[int]]]) -> Callable[[str], dict[str, Tensor]]:
    """A state dict of an authors' model that has shapes but, save for the sampling scales, no memory."""

    def weights(model: str) -> dict[str, Tensor]:
        made = {}
        for name, shape in reference_shapes(model).items():
            if name.endswith("num_points_scale"):
                made[name] = torch.full(shape, 3 / shape[0])  # three levels with equal numbers of points
            else:
                made[name] = torch.empty(shape, device="meta")
        return made

    return weights


def small_model(
    num_classes: int = 4,
    num_layers: int = 3,
    num_points: Sequence[int] = (4, 4, 4),
    num_denoising: int = 10,
    blocks: Sequence[int] = (1, 1, 1, 1),
    width: int = 32,
    seed: int = 0,
) -> nn.Module:
    """A detector of the real classes with well under a million parameters, its statistics and biases not trivial."""
    torch.manual_seed(seed)
    model = RTDETRv2(
        ResNetVD(18, width=8, blocks=blocks),
        HybridEncoder([16, 32, 64], width=width, num_heads=4, feedforward_width=32, expansion=0.5),
        Decoder(
            num_classes,
            [width] * 3,
            width=32,
            num_queries=20,
            num_layers=num_layers,
            num_heads=4,
            feedforward_width=32,
            num_points=num_points,
            num_denoising=num_denoising,
            image_size=(64, 64),
        ),
    )
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith(("running_mean", "bias")) or (tensor.ndim == 1 and name.endswith("weight")):
                tensor.uniform_(0.1, 0.3)
            elif name.endswith("num_batches_tracked"):
                tensor.fill_(17)
    return model.eval()
