"""Names and shapes alone tell which model a state dict belongs to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rtdetrv2_train.checkpoints.architecture_from_weights import architecture_from_weights, points_of_scale
from rtdetrv2_train.checkpoints.published import configuration_of, looks_like
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.runs.model_configuration import configured_architecture, model_config

MODELS = ["r18vd", "r34vd", "r50vd_m", "r50vd", "r101vd", "hgnetv2_l", "hgnetv2_x", "hgnetv2_h"]
Weights = Callable[[str], dict[str, Tensor]]


@pytest.mark.parametrize("model", MODELS)
def test_every_published_model_is_recognised(model: str, hollow_weights: Weights) -> None:
    shown = architecture_from_weights(hollow_weights(model))
    assert looks_like(shown) == model
    assert configuration_of(shown) == f"model={model}"
    assert shown.decoder.num_points == (4, 4, 4)


@pytest.mark.parametrize("model", MODELS)
def test_weights_show_what_the_configuration_says(model: str, hollow_weights: Weights) -> None:
    """But for what is not in them: which layers evaluation uses, and whether the stem is trained."""
    configured = configured_architecture(model_config(model))
    backbone = replace(configured.backbone, freeze_stem=False)
    unseen = replace(configured, backbone=backbone, decoder=replace(configured.decoder, num_eval_layers=None))
    assert architecture_from_weights(hollow_weights(model)) == unseen


@pytest.mark.parametrize(("model", "points"), [("r18vd_sp1", 1), ("r18vd_sp2", 2), ("r18vd_sp3", 3)])
def test_other_sampling_points_are_part_of_the_name(model: str, points: int, hollow_weights: Weights) -> None:
    shown = architecture_from_weights(hollow_weights(model))
    assert shown.decoder.num_points == (points,) * 3
    assert looks_like(shown) == f"r18vd with {points}, {points}, {points} sampling points"
    assert configuration_of(shown) == (
        f"model=r18vd model.architecture.decoder.num_points=[{points},{points},{points}]"
    )


@pytest.mark.parametrize("points", [(4, 4, 4), (2, 4, 6), (1, 1, 1), (3, 3, 6), (6, 3, 3), (8, 1, 2)])
def test_points_of_each_level_are_read_from_their_scales(points: tuple[int, ...]) -> None:
    assert points_of_scale(torch.tensor([1 / n for n in points for _ in range(n)])) == points


def test_without_scales_points_are_shared_evenly(hollow_weights: Weights) -> None:
    weights = {k: v for k, v in hollow_weights("r18vd_sp2").items() if not k.endswith("num_points_scale")}
    assert architecture_from_weights(weights).decoder.num_points == (2, 2, 2)


def test_an_unknown_model_is_described(hollow_weights: Weights) -> None:
    shown = architecture_from_weights(hollow_weights("r18vd"))
    narrower = replace(shown, encoder=replace(shown.encoder, width=128))
    assert looks_like(narrower) == (
        "an unknown model with a ResNet-vd backbone of 2, 2, 2, 2 basic blocks, encoder width 128, CSP expansion 0.5 "
        "and 3 decoder layers"
    )
    assert configuration_of(narrower) is None


def test_other_weights_are_refused_with_what_is_missing() -> None:
    with pytest.raises(UserError, match=r"no 'encoder\.input_proj\.0\.conv\.weight'"):
        architecture_from_weights({"fc.weight": torch.zeros(2, 2)})
