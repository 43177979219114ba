"""Frozen BatchNorm after a convolution is computed as one convolution, with the same numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rtdetrv2_train.model.layers import ConvNorm, FrozenBatchNorm2d


def frozen_layer() -> ConvNorm:
    torch.manual_seed(0)
    layer = ConvNorm(3, 5, 3, 2, "relu", frozen_batchnorm=True).double()
    for buffer in layer.norm.buffers():
        buffer.copy_(torch.rand(5) + 0.5)
    return layer


def unfused(layer: ConvNorm, x: Tensor) -> Tensor:
    return layer.act(layer.norm(layer.conv(x)))


def test_output_and_gradients_equal_batchnorm_after_convolution() -> None:
    layer = frozen_layer()
    results = []
    for function in (layer, lambda x: unfused(layer, x)):
        x = torch.rand(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
        layer.zero_grad()
        output = function(x)
        output.square().sum().backward()
        results.append([output.detach(), x.grad, layer.conv.weight.grad])
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["weight", "bias", "running_mean", "running_var"])
def test_changed_statistics_invalidate_the_cached_scale(name: str) -> None:
    layer, x = frozen_layer(), torch.rand(1, 3, 8, 8, dtype=torch.float64)
    before = layer(x)
    getattr(layer.norm, name).mul_(2)
    assert not torch.allclose(layer(x), before)
    torch.testing.assert_close(layer(x), unfused(layer, x))
    layer.norm = FrozenBatchNorm2d(5).double()  # another module object
    torch.testing.assert_close(layer(x), nn.functional.relu(layer.norm(layer.conv(x))))
