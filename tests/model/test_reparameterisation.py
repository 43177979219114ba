"""A reparameterised model predicts the same in fewer operations, and cannot be trained."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rtdetrv2_train.model.layers import FrozenBatchNorm2d
from rtdetrv2_train.model.reparameterisation import ReparameterisedDetector, fuse
from tests.support import build, chosen, composed, fill, made


def filled(name: str) -> nn.Module:
    model = build(composed("model=nano" if name == "nano" else chosen(name))).eval()
    fill(model)
    return model


def num_products(model: nn.Module) -> int:
    return sum(isinstance(module, nn.Conv2d | nn.Linear) for module in model.modules())


@pytest.mark.parametrize(("name", "size"), [("nano", 128), ("r18vd", 256)])
def test_a_reparameterised_model_predicts_the_same_in_fewer_operations(name: str, size: int) -> None:
    model = filled(name).double()  # in float32 rounding may swap queries of nearly equal score
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    fused = fuse(model)
    images = made.image("image", 1, size, size).double()
    with torch.no_grad():
        expected, found = model(images), fused(images)
    torch.testing.assert_close(found.logits, expected.logits, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=0, atol=1e-9)
    assert num_products(fused) < num_products(model)
    norms = (nn.BatchNorm2d, FrozenBatchNorm2d)
    assert not [key for key, module in fused.named_modules() if isinstance(module, norms)]
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_a_repvgg_block_becomes_one_3x3_convolution() -> None:
    fused = fuse(filled("nano"))
    block = fused.encoder.fpn_blocks[0].bottlenecks[0]
    convolutions = [module for module in block.modules() if isinstance(module, nn.Conv2d)]
    assert [conv.kernel_size for conv in convolutions] == [(3, 3)]
    assert convolutions[0].bias is not None


def test_an_hgnet_keeps_the_padding_of_its_even_kernels() -> None:
    model = filled("hgnetv2_l")
    fused = fuse(model)
    images = made.image("image", 1, 64, 64)
    with torch.no_grad():
        for expected, found in zip(model.backbone(images), fused.backbone(images), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_training_a_reparameterised_model_is_refused() -> None:
    fused = fuse(filled("nano"))
    assert isinstance(fused, ReparameterisedDetector)
    assert not fused.training
    assert not any(parameter.requires_grad for parameter in fused.parameters())
    with pytest.raises(RuntimeError, match="a reparameterised model cannot be trained: train the original model"):
        fused.train()
