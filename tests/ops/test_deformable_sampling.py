"""Bilinear sampling has the gradient of the plain formula, whether samples are kept or recomputed."""

from __future__ import annotations

import pytest
import torch

from rtdetrv2_train.ops import conv_norm_act
from rtdetrv2_train.ops.deformable_sampling import sample_bilinear, sample_bilinear_reference


@pytest.mark.parametrize("kept", [True, False])
def test_weighted_samples_and_gradients_equal_the_reference(kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conv_norm_act, "RECOMPUTE_ABOVE", 2**60 if kept else 0)
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, 4, 5, 6), (3, 2, 7, 2), (3, 2, 7))  # some locations lie outside of the map
    inputs = [torch.rand(shape, generator=generator, dtype=torch.float64) * 1.2 - 0.1 for shape in shapes]
    results = []
    for function in (sample_bilinear, sample_bilinear_reference):
        leaves = [x.clone().requires_grad_() for x in inputs]
        output = function(*leaves)
        (output.sin() * torch.arange(7)).sum().backward()
        results.append([output.detach(), *(leaf.grad for leaf in leaves)])
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-12)


def test_half_precision_values_get_their_gradient_in_half_precision() -> None:
    values = torch.rand(1, 2, 4, 4, dtype=torch.bfloat16, requires_grad=True)
    output = sample_bilinear(values, torch.rand(1, 2, 3, 2), torch.rand(1, 2, 3))
    output.sum().backward()
    assert output.dtype == torch.float32
    assert values.grad is not None
    assert values.grad.dtype == torch.bfloat16
