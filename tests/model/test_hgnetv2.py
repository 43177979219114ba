"""HGNetv2 has the authors' parameters, freezes what it should, and puts out the strides it promises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rtdetrv2_train.model.backbones.hgnetv2 import HGNetV2, HGNetV2Config, StageShape

REFERENCE = Path(__file__).parents[1] / "reference"
SHAPES: dict[str, tuple[list[int], list[int], list[int], list[int]]] = {  # stem; middle, out channels, blocks
    "l": ([32, 48], [48, 96, 192, 384], [128, 512, 1024, 2048], [1, 1, 3, 1]),
    "x": ([32, 64], [64, 128, 256, 512], [128, 512, 1024, 2048], [1, 2, 5, 2]),
    "h": ([48, 96], [96, 192, 384, 768], [192, 512, 1024, 2048], [2, 3, 6, 3]),
}


def make(size: str, **options: Any) -> HGNetV2:
    stem, middle, out, blocks = SHAPES[size]
    stages = tuple(
        StageShape(middle[index], out[index], blocks[index], index > 0, index > 1, 5 if index > 1 else 3)
        for index in range(4)
    )
    return HGNetV2(HGNetV2Config(stem, stages, **options))


@pytest.mark.parametrize("size", ["l", "x", "h"])
def test_frozen_backbone_has_the_names_and_shapes_of_the_reference(size: str) -> None:
    reference = json.loads((REFERENCE / f"hgnetv2_{size}.json").read_text())
    prefix = "backbone."
    expected = {k.removeprefix(prefix): v for k, v in reference["state_dict"].items() if k.startswith(prefix)}
    with torch.device("meta"):
        backbone = make(size, freeze_stem=True, freeze_batchnorm=True)
    assert {name: list(tensor.shape) for name, tensor in backbone.state_dict().items()} == expected
    frozen = {prefix + name for name, parameter in backbone.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name in reference["requires_grad_false"] if name.startswith(prefix)}
    assert len(frozen) == 5
    trained = {prefix + name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    groups = reference["optimizer"]
    assert trained == {name for name in groups if name.startswith(prefix) and groups[name] is not None}


def test_features_have_strides_8_16_32_on_images_that_are_not_square() -> None:
    backbone = make("l", freeze_batchnorm=True).eval()
    with torch.no_grad():
        features = backbone(torch.rand(1, 3, 64, 96))
    assert backbone.out_channels == (512, 1024, 2048)
    assert [tuple(feature.shape) for feature in features] == [(1, 512, 8, 12), (1, 1024, 4, 6), (1, 2048, 2, 3)]


def test_frozen_batchnorm_equals_trained_batchnorm_in_evaluation() -> None:
    torch.manual_seed(0)
    first = StageShape(4, 8, blocks=1, downsample=False, light=False, kernel_size=3)
    stages = (first, *(StageShape(4, 8, blocks=2, layers=2) for _ in range(3)))
    trained = HGNetV2(HGNetV2Config((4, 8), stages))
    trained(torch.rand(4, 3, 96, 64))  # moves the running statistics away from 0 and 1
    trained.eval()
    frozen = HGNetV2(HGNetV2Config((4, 8), stages, freeze_batchnorm=True))
    weights = {k: v for k, v in trained.state_dict().items() if not k.endswith("num_batches_tracked")}
    frozen.load_state_dict(weights)
    images = torch.rand(2, 3, 64, 64)
    for expected, actual in zip(trained(images), frozen(images), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
    assert not any(name.endswith("bn.weight") for name, _ in frozen.named_parameters())


def test_an_unfrozen_backbone_trains_every_parameter() -> None:
    backbone = HGNetV2(HGNetV2Config((4, 8), tuple(StageShape(4, 8, blocks=1, layers=2) for _ in range(4))))
    sum(feature.sum() for feature in backbone(torch.rand(2, 3, 128, 128))).backward()
    # The output of each stage's last BatchNorm is summed, so every parameter before it has a gradient.
    assert all(parameter.grad is not None for parameter in backbone.parameters())
    assert any(name == "stem.stem1.bn.weight" for name, _ in backbone.named_parameters())
