"""Every model computes on a GPU what the authors' implementation computes."""

from __future__ import annotations

import pytest

from benchmarks.gpu.numbers import bounds, reference_differences
from tests.support import MODELS

EVERY_MODEL = [MODELS[0], *(pytest.param(name, marks=pytest.mark.slow) for name in MODELS[1:])]


@pytest.mark.parametrize("name", EVERY_MODEL)
def test_predictions_losses_and_gradients_equal_the_reference(name: str) -> None:
    found = reference_differences(name, "cuda")
    for figure, most in bounds(name).items():
        assert found[figure] <= most, figure
