"""Models and weights that the tests of this folder share."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.support import REFERENCE


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
