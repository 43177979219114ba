"""Names and shapes alone tell which model a state dict belongs to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.weights.architecture import infer_architecture, points_of_scale
from rtdetrv2_train.weights.naming import configuration_of, looks_like

MODELS = ["r18vd", "r34vd", "r50vd_m", "r50vd", "r101vd", "hgnetv2_l", "hgnetv2_x", "hgnetv2_h"]
Weights = Callable[[str], dict[str, Tensor]]


@pytest.mark.parametrize("model", MODELS)
def test_every_published_model_is_recognised(model: str, hollow_weights: Weights) -> None:
    facts = infer_architecture(hollow_weights(model))
    assert looks_like(facts) == model
    assert configuration_of(facts) == f"model={model}"
    assert facts.num_points == (4, 4, 4)
    assert facts.num_heads == 8
    assert facts.num_classes == 80


def test_facts_of_r101vd(hollow_weights: Weights) -> None:
    facts = infer_architecture(hollow_weights("r101vd"))
    assert (facts.backbone, facts.backbone_block, facts.backbone_blocks) == ("resnet_vd", "bottleneck", (3, 4, 23, 3))
    assert facts.backbone_channels == (256, 512, 1024, 2048)
    assert facts.stem_channels == (32, 64)
    assert (facts.encoder_width, facts.encoder_layers, facts.encoder_feedforward) == (384, 1, 2048)
    assert (facts.csp_expansion, facts.csp_blocks) == (1.0, 3)
    assert (facts.decoder_width, facts.decoder_layers, facts.decoder_feedforward) == (256, 6, 1024)
    assert facts.has_denoising
    assert not facts.trained_backbone_norms


def test_facts_of_hgnetv2_h(hollow_weights: Weights) -> None:
    facts = infer_architecture(hollow_weights("hgnetv2_h"))
    assert (facts.backbone, facts.backbone_block, facts.backbone_blocks) == ("hgnetv2", "hg", (2, 3, 6, 3))
    assert facts.backbone_layers == (6, 6, 6, 6)
    assert facts.backbone_mid_channels == (96, 192, 384, 768)
    assert facts.backbone_channels == (192, 512, 1024, 2048)
    assert facts.stem_channels == (48, 96)
    assert (facts.encoder_width, facts.encoder_layers) == (512, 2)


@pytest.mark.parametrize(("model", "points"), [("r18vd_sp1", 1), ("r18vd_sp2", 2), ("r18vd_sp3", 3)])
def test_other_sampling_points_are_part_of_the_name(model: str, points: int, hollow_weights: Weights) -> None:
    facts = infer_architecture(hollow_weights(model))
    assert facts.num_points == (points,) * 3
    assert looks_like(facts) == f"r18vd with {points}, {points}, {points} sampling points"
    assert configuration_of(facts) == (
        f"model=r18vd model.architecture.decoder.num_points=[{points},{points},{points}]"
    )


@pytest.mark.parametrize("points", [(4, 4, 4), (2, 4, 6), (1, 1, 1), (3, 3, 6), (6, 3, 3), (8, 1, 2)])
def test_points_of_each_level_are_read_from_their_scales(points: tuple[int, ...]) -> None:
    assert points_of_scale(torch.tensor([1 / n for n in points for _ in range(n)])) == points


def test_without_scales_points_are_shared_evenly(hollow_weights: Weights) -> None:
    weights = {k: v for k, v in hollow_weights("r18vd_sp2").items() if not k.endswith("num_points_scale")}
    assert infer_architecture(weights).num_points == (2, 2, 2)


def test_an_unknown_model_is_described(hollow_weights: Weights) -> None:
    facts = replace(infer_architecture(hollow_weights("r18vd")), encoder_width=128)
    assert looks_like(facts) == (
        "an unknown model with a ResNet-vd backbone of 2, 2, 2, 2 basic blocks, encoder width 128, CSP expansion 0.5 "
        "and 3 decoder layers"
    )
    assert configuration_of(facts) is None


def test_other_weights_are_refused_with_what_is_missing() -> None:
    with pytest.raises(UserError, match=r"no 'encoder\.input_proj\.0\.conv\.weight'"):
        infer_architecture({"fc.weight": torch.zeros(2, 2)})
