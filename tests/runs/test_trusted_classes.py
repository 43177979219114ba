"""What is read from a file calls nothing but classes on a list, whichever way it comes in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from rtdetrv2_train import UserError, load_detector
from rtdetrv2_train.checkpoints.model_folder import ModelCard, write_model_folder
from rtdetrv2_train.commands.evaluate import evaluate
from rtdetrv2_train.commands.predict import predict
from rtdetrv2_train.commands.train import train
from rtdetrv2_train.runs.configuration import composed
from rtdetrv2_train.runs.trusted_classes import check_classes, trusted_classes
from tests.support import build

CALLED: list[dict[str, Any]] = []
COUNTER = f"{__name__}.Counter"
OWN_OR_LIBRARIES = {"rtdetrv2_train", "hydra_plugins", "lightning", "datetime", "optuna"}


class Counter:
    """Stands for whatever a stranger would like to have called."""

    def __init__(self, **arguments: Any) -> None:
        CALLED.append(arguments)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run's folder, as somebody may send it."""
    folder = tmp_path / "run"
    with composed("train", ["model=nano", "data=shapes", "trainer=cpu", f"run_folder={folder}"]) as config:
        text = OmegaConf.to_yaml(config, resolve=True)
        model = build(config, num_classes=3)
    card = ModelCard(model.architecture, ("a", "b", "c"), (1, 2, 3))
    write_model_folder(folder / "model", model.state_dict(), card)
    weights = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    content = {"pytorch-lightning_version": "2.6.6", "state_dict": weights, "model_card": card.to_dict()}
    (folder / "checkpoints").mkdir()
    torch.save(content, folder / "checkpoints" / "last.ckpt")
    (folder / "config.yaml").write_text(text)
    return folder


def plant_in_card(folder: Path) -> None:
    path = folder / "model" / "model.json"
    card = json.loads(path.read_text())
    card["architecture"]["encoder"] = {"_target_": COUNTER, **card["architecture"]["encoder"]}
    path.write_text(json.dumps(card))


def plant_in_checkpoint(folder: Path) -> None:
    path = folder / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    content["model_card"]["architecture"]["backbone"]["_target_"] = COUNTER
    torch.save(content, path)
    (folder / "model" / "model.json").unlink()


def plant_in_config(folder: Path) -> None:
    path = folder / "config.yaml"
    config = OmegaConf.load(path)
    config.model.criterion._target_ = COUNTER
    OmegaConf.save(config, path)


def plant_by_interpolation(folder: Path) -> None:
    path = folder / "config.yaml"
    config = OmegaConf.load(path)
    config.data.planted = COUNTER
    config.data.transforms.flip._target_ = "${data.planted}"
    OmegaConf.save(config, path)


def by_predicting(folder: Path) -> None:
    with composed("predict", [f"run={folder}", f"source={folder}"]) as config:
        predict(config)


def by_evaluating(folder: Path) -> None:
    overrides = [f"run={folder}", "trainer=cpu", f"run_folder={folder}/eval"]
    with composed("eval", overrides) as config:
        evaluate(config, overrides)


def by_resuming(folder: Path) -> None:
    overrides = [f"resume={folder}"]
    with composed("train", overrides) as config:
        train(config, overrides)


@pytest.mark.parametrize(
    ("plant", "use"),
    [
        (plant_in_card, load_detector),
        (plant_in_card, by_predicting),
        (plant_in_card, by_evaluating),
        (plant_in_checkpoint, load_detector),
        (plant_in_checkpoint, by_predicting),
        (plant_in_checkpoint, by_evaluating),
        (plant_in_config, by_evaluating),
        (plant_in_config, by_resuming),
        (plant_by_interpolation, by_evaluating),
        (plant_by_interpolation, by_resuming),
    ],
)
def test_a_class_planted_in_a_file_is_named_and_not_called(
    plant: Callable[[Path], None], use: Callable[[Path], Any], run_folder: Path
) -> None:
    (run_folder / "one.png").write_bytes(b"")
    plant(run_folder)
    CALLED.clear()
    with pytest.raises(UserError, match=r"_target_|Counter") as caught:
        use(run_folder)
    assert CALLED == []
    assert "\n" not in str(caught.value)


def test_the_list_is_what_conf_names() -> None:
    assert {"rtdetrv2_train.loss.criterion.Criterion", "lightning.Trainer", "datetime.timedelta"} <= trusted_classes()
    assert all(target.split(".")[0] in OWN_OR_LIBRARIES for target in trusted_classes())


def test_what_the_command_line_names_itself_may_be_called() -> None:
    saved = {"data": {"_target_": "somebody.Module"}}
    with pytest.raises(UserError, match=r"'run/config.yaml' asks for 'somebody.Module' at data._target_"):
        check_classes(saved, {"data": {"_target_": "rtdetrv2_train.data.shapes.ShapesDataModule"}}, "run/config.yaml")
    check_classes(saved, saved, "run/config.yaml")


@pytest.mark.parametrize("transform", ["albumentations.Blur", "albumentations.RandomCrop"])
def test_transforms_of_albumentations_may_be_named(transform: str) -> None:
    check_classes({"augment": {"transforms": {"blur": {"_target_": transform}}}}, {}, "run/config.yaml")


@pytest.mark.parametrize("target", ["albumentations.core.os.system", "os.system", "albumentations.random_utils"])
def test_functions_may_not_be_named(target: str) -> None:
    with pytest.raises(UserError, match="which a file may not call"):
        check_classes({"augment": {"transforms": {"blur": {"_target_": target}}}}, {}, "run/config.yaml")
