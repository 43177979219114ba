from __future__ import annotations

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.training.optimizer import parameter_groups
from tests.support import MODELS, build, chosen, composed, figures


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_has_the_learning_rate_and_weight_decay_of_the_reference(name: str) -> None:
    config, expected = composed(chosen(name)), figures(name)
    with torch.device("meta"):
        model = build(config)
    groups = parameter_groups(
        model,
        OmegaConf.to_container(config.model.parameter_rules, resolve=True),
        config.recipe.learning_rate,
        config.recipe.weight_decay,
    )
    found = {
        parameter: {"lr": group["lr"], "weight_decay": group["weight_decay"]}
        for group in groups
        for parameter in group["parameter_names"]
    }
    trained = {key: value for key, value in expected["optimizer"].items() if value is not None}
    assert set(found) == set(trained)
    for parameter, values in trained.items():
        assert found[parameter] == pytest.approx(values), parameter
    assert config.model.epochs == expected["epochs"]
    assert config.augment.schedule.zoom_out.stop == expected["stop_augmentation_epoch"]
    assert config.data.multiscale == expected["multiscale"]
    if expected["multiscale"]:
        assert config.augment.schedule.multiscale.stop == expected["stop_multiscale_epoch"]


def test_later_rules_override_earlier_ones_and_groups_carry_their_names() -> None:
    model = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    rules = {
        "backbone": {"match": "^backbone", "learning_rate": 1e-5},
        "biases": {"match": "bias$", "weight_decay": 0.0},
    }
    groups = parameter_groups(model, rules, learning_rate=1e-4, weight_decay=1e-2)
    assert [(g["name"], g["parameter_names"], g["lr"], g["weight_decay"]) for g in groups] == [
        ("backbone", ["backbone.weight"], 1e-5, 1e-2),
        ("backbone biases", ["backbone.bias"], 1e-5, 0.0),
        ("default", ["head.weight"], 1e-4, 1e-2),
        ("biases", ["head.bias"], 1e-4, 0.0),
    ]


def test_null_in_place_of_a_rule_takes_it_away() -> None:
    rules = {"norms": None, "biases": {"match": "bias$", "weight_decay": 0.0}}
    groups = parameter_groups(nn.Linear(1, 1), rules, learning_rate=1e-4, weight_decay=1e-2)
    assert [(group["name"], group["weight_decay"]) for group in groups] == [("default", 1e-2), ("biases", 0.0)]


def test_a_wrong_rule_is_a_user_error_with_its_name() -> None:
    with pytest.raises(UserError, match=r"parameter_rules\.typo has no 'lr'"):
        parameter_groups(nn.Linear(1, 1), {"typo": {"match": "x", "lr": 1}}, 1e-4, 0)
    with pytest.raises(UserError, match=r"parameter_rules\.broken\.match"):
        parameter_groups(nn.Linear(1, 1), {"broken": {"match": "(", "learning_rate": 1}}, 1e-4, 0)
