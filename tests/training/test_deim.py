"""The DEIM recipe of every scale has the published values (arXiv 2412.04234, and its code at a9aa4ad)."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from rtdetrv2_train.commands.building import build_recipe
from rtdetrv2_train.data.augment.schedule import AugmentationSchedule
from rtdetrv2_train.loss.criterion import Criterion
from rtdetrv2_train.model.layers import FrozenBatchNorm2d
from rtdetrv2_train.runs.configuration import build as built
from rtdetrv2_train.runs.configuration import plain
from rtdetrv2_train.runs.model_configuration import paper_loss
from rtdetrv2_train.training.optimizer import parameter_groups
from rtdetrv2_train.training.recipe import Schedule
from tests.support import BASES, build, composed


class Published(NamedTuple):
    """What the files of DEIM's code say."""

    epochs: int
    flat_epoch: int
    stop_epoch: int
    no_aug_epochs: int
    backbone: float  # learning rate of the backbone without norms
    layers: int  # of the decoder


PUBLISHED = {
    "r18vd": Published(120, 64, 117, 3, 2e-4, 3),
    "r34vd": Published(120, 64, 117, 3, 1e-4, 4),
    "r50vd_m": Published(60, 34, 58, 2, 2e-5, 3),
    "r50vd": Published(60, 34, 58, 2, 2e-5, 6),
    "r101vd": Published(60, 34, 58, 2, 2e-6, 6),
}
STEPS = 118_287 // 16  # of an epoch of COCO
FULL = 2e-4


def deim(name: str) -> DictConfig:
    return composed(f"model={name}", "recipe=deim")


def schedule_of(config: DictConfig, epochs: int | None = None, steps: int = STEPS) -> Schedule:
    return build_recipe(config.recipe).resolve((epochs or config.trainer.max_epochs) * steps, False, steps)


def published_rate(values: Published, number: int) -> float:
    """The share of the full rate at an iteration, counted from 1."""
    flat, total, last = (epochs * STEPS for epochs in (values.flat_epoch, values.epochs, values.no_aug_epochs))
    if number <= 2000:
        return (number / 2000) ** 2
    if number <= flat:
        return 1.0
    if number >= total - last:
        return 0.5
    return 0.5 + 0.5 * 0.5 * (1 + math.cos(math.pi * (number - flat) / (total - flat - last)))


@pytest.mark.parametrize("name", PUBLISHED)
def test_rates_and_phases_are_the_published_ones(name: str) -> None:
    values, config = PUBLISHED[name], deim(name)
    assert config.trainer.max_epochs == config.model.epochs == values.epochs
    assert values.flat_epoch == 4 + values.epochs // 2
    assert config.augment.schedule.zoom_out.stop == config.augment.schedule.multiscale.stop == values.stop_epoch
    assert config.recipe.second_stage_epoch == values.stop_epoch == values.epochs - values.no_aug_epochs
    assert len(config.data.multiscale) == 13
    schedule = schedule_of(config)
    assert schedule.cosine_steps == (values.flat_epoch * STEPS, values.stop_epoch * STEPS)
    steps = [0, 1, 999, 1998, 1999, 2000, 50_000]
    steps += [epoch * STEPS + more for epoch in range(1, values.epochs) for more in (-1, 0, 1000)]
    found = [schedule.learning_rate_share(step) for step in steps]
    assert found == pytest.approx([published_rate(values, step + 1) for step in steps], abs=1e-12)
    rates = {epoch: schedule.learning_rate_share(epoch * STEPS) for epoch in range(values.epochs)}
    assert all(rates[epoch] == 1 for epoch in range(1, values.flat_epoch))
    assert all(rates[epoch] == 0.5 for epoch in range(values.stop_epoch, values.epochs))


@pytest.mark.parametrize("name", PUBLISHED)
def test_everything_else_is_as_published(name: str) -> None:
    config = deim(name)
    schedule, recipe = schedule_of(config), build_recipe(config.recipe)
    assert (schedule.warmup_steps, schedule.max_gradient_norm, schedule.learning_rate_factor) == (2000, 0.1, 1)
    assert (schedule.ema_decay, schedule.ema_ramp_steps) == (0.9999, 2000)
    assert (recipe.total_batch_size, recipe.reference_batch_size, tuple(recipe.betas)) == (16, 16, (0.9, 0.999))
    criterion = built(config.model.criterion)
    assert isinstance(criterion, Criterion)
    assert criterion.weights == {"mal": 1, "bbox": 5, "giou": 2}
    assert (criterion.classification, criterion.gamma) == ("mal", 1.5)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_parameter_has_the_published_learning_rate_and_weight_decay(name: str) -> None:
    values, config = PUBLISHED[name], deim(name)
    with torch.device("meta"):
        model = build(config)
    groups = parameter_groups(
        model,
        OmegaConf.to_container(config.model.parameter_rules, resolve=True),
        config.recipe.learning_rate,
        config.recipe.weight_decay,
    )
    found = {n: (group["lr"], group["weight_decay"]) for group in groups for n in group["parameter_names"]}
    assert set(found) == {name for name, _ in model.named_parameters()}  # nothing is frozen
    for parameter, settings in found.items():
        norm = re.search("norm|bn", parameter) is not None
        slow = parameter.startswith("backbone.") and "norm" not in parameter
        assert settings == (values.backbone if slow else FULL, 0.0 if norm else 1e-4), parameter
    layers = {name.split(".")[3] for name in found if name.startswith("decoder.decoder.layers.")}
    assert len(layers) == len(model.decoder.dec_score_head) == values.layers
    assert not [module for module in model.modules() if isinstance(module, FrozenBatchNorm2d)]


@pytest.mark.parametrize("name", PUBLISHED)
def test_experiments_are_recipe_and_model_together(name: str) -> None:
    experiment, by_hand = composed(f"experiment=deim_{name}"), deim(name)
    assert experiment.model == by_hand.model
    assert experiment.recipe == by_hand.recipe
    assert experiment.augment.schedule.mosaic.start == experiment.augment.schedule.mixup.start == 4


@pytest.mark.parametrize("name", ["hgnetv2_l", "hgnetv2_x", "hgnetv2_h"])
def test_other_models_have_the_general_part(name: str) -> None:
    config, default = deim(name), composed(f"model={name}")
    assert config.model.epochs == 72
    assert schedule_of(config).cosine_steps == (40 * STEPS, 71 * STEPS)
    assert config.model.parameter_rules == default.model.parameter_rules
    assert not config.model.architecture.backbone.freeze_batchnorm
    assert config.model.criterion.classification == "mal"


@pytest.mark.parametrize("name", BASES)
def test_the_default_recipe_has_none_of_it(name: str) -> None:
    config = composed(f"model={name}")
    loss = built(paper_loss(config.model.criterion))
    assert (loss.classification, loss.gamma) == ("varifocal", 2.0)
    assert config.recipe.second_stage_epoch is None
    assert schedule_of(config).lr_schedule == "constant"


@pytest.mark.parametrize("name", [*BASES, "nano"])
def test_rate_and_augmentation_change_in_the_same_epoch_of_a_run_of_any_length(name: str) -> None:
    config = composed(f"model={name}", "recipe=deim", "augment=deim")
    phases, recipe = plain(config.augment.schedule), build_recipe(config.recipe)
    for epochs in (config.model.epochs, 1, 2, 3, 7, 10, 12, 36, 50, 72, 300):
        mosaic, usual = (
            AugmentationSchedule({"flip": phases[name]}, config.model.epochs, epochs) for name in ("mosaic", "zoom_out")
        )
        schedule = recipe.resolve(epochs * 100, True, 100)
        ends = [max((e + 1 for e in range(epochs) if s.active("flip", e)), default=1) for s in (mosaic, usual)]
        found = [min(step // 100, epochs) for step in schedule.cosine_steps]
        assert found == ends, epochs


def test_phases_scale_with_the_run() -> None:
    config = deim("r50vd")
    assert schedule_of(config, epochs=12).cosine_steps == (6 * STEPS, 11 * STEPS)
    short = schedule_of(config, epochs=12, steps=100)
    assert short.warmup_steps == 80
    assert short.learning_rate_share(39) == 0.25
    assert [short.learning_rate_share(epoch * 100) for epoch in (1, 5)] == [1, 1]
    assert [short.learning_rate_share(epoch * 100 - 1) for epoch in (6, 11, 12)] == [1, 0.5, 0.5]
    assert short.learning_rate_share(849) == pytest.approx(0.75)
