"""What a run settles from its data: how long it is, and how often it is validated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from rtdetrv2_train.commands.adapting import (
    augmentation_schedule,
    estimated_steps,
    keep_given_length,
    settle_loss,
    validation_interval,
)
from rtdetrv2_train.data.augment.schedule import AugmentationSchedule
from tests.running import TINY, WITHOUT_PICTURES, of_set, run_command
from tests.support import composed, write_coco


def length(*overrides: str, num_images: int = 205) -> tuple[int, int]:
    """Least steps and steps of the run that the command line asks for."""
    config = composed(*overrides)
    keep_given_length(config, {override.partition("=")[0] for override in overrides})
    return config.recipe.least_steps, estimated_steps(config, num_images)


def test_only_a_length_that_nobody_gave_is_changed() -> None:
    assert length("model=r18vd") == (1500, 120 * (205 // 16))
    for given in ("trainer.max_epochs=7", "recipe.epochs=7", "model.epochs=7"):
        assert length("model=r18vd", given) == (0, 7 * 12)
    assert length("model=r18vd", "trainer.max_epochs=-1", "trainer.max_steps=30") == (0, 30)
    assert length("trainer.max_epochs=7", "recipe.least_steps=200")[0] == 200
    assert length("experiment=quickstart")[0] == 0
    assert length("model=r18vd", "recipe=paper")[0] == 0


@pytest.mark.parametrize(
    ("num_images", "epochs", "interval"),
    [
        (118_287, 120, 1),
        (800, 120, 1),
        (205, 120, 4),
        (50, 500, 10),
        (50, 60, 3),
        (50, 97, 1),
        (50, 12, 1),
        (3, 900, 45),
    ],
)
def test_epochs_of_a_few_steps_are_validated_after_some_50_steps(num_images: int, epochs: int, interval: int) -> None:
    config = composed("model=r18vd", f"trainer.max_epochs={epochs}")
    assert validation_interval(config, num_images) == interval
    assert epochs % interval == 0  # so that the last epoch is validated


def test_strong_augmentation_ends_early_in_a_short_run_from_scratch_only() -> None:
    config = composed("model=r18vd")
    schedule = AugmentationSchedule({"zoom_out": {"stop": 117}}, 120, 120)
    for num_images, pretrained, count in ((205, False, 60), (205, True, 117), (118_287, False, 117)):
        laid = augmentation_schedule(schedule, config, num_images, pretrained)
        assert [laid.active("zoom_out", epoch) for epoch in range(120)] == [True] * count + [False] * (120 - count)


@pytest.mark.parametrize(("epochs", "strong"), [(12, 0), (30, 0), (40, 10), (60, 30), (100, 50)])
def test_a_run_of_few_epochs_from_scratch_has_no_strong_augmentation(epochs: int, strong: int) -> None:
    config = composed("model=r18vd", f"trainer.max_epochs={epochs}")
    schedule = AugmentationSchedule({"zoom_out": {"stop": 117}, "mosaic": {"start": 4}}, 120, epochs)
    laid = augmentation_schedule(schedule, config, 205, pretrained=False)
    assert sum(laid.active("zoom_out", epoch) for epoch in range(epochs)) == strong
    assert laid.active("mosaic", epochs - 1)  # which nothing in the schedule ends


def test_a_run_on_a_few_images_has_the_steps_that_it_needs_and_is_resumed_with_them(tmp_path: Path) -> None:
    data = of_set(write_coco(tmp_path / "set"))
    tiny = (*TINY, *WITHOUT_PICTURES, *data, "trainer=cpu", "recipe.least_steps=45", "model.epochs=2")
    output = run_command("train", *tiny, f"run_folder={tmp_path / 'run'}")
    saved = OmegaConf.load(tmp_path / "run" / "config.yaml")
    epochs = saved.trainer.max_epochs
    assert f"trainer.max_epochs = {epochs}: 2 epochs of" in output
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert 45 <= history[-1]["step"] < 45 + history[-1]["step"] / epochs
    assert history[-1]["epoch"] == epochs - 1
    assert len(history) == epochs // saved.trainer.check_val_every_n_epoch
    again = run_command("train", f"resume={tmp_path / 'run'}", f"trainer.max_epochs={epochs + 2}", "trainer=cpu")
    assert "trainer.max_epochs = " not in again.replace(f"trainer.max_epochs = {epochs + 2} instead of", "")


@pytest.mark.parametrize(
    ("overrides", "loss"),
    [
        ([], ("mal", 0.5)),
        (["init_from=run"], ("varifocal", None)),
        (["recipe=paper"], ("varifocal", None)),
        (["model.epochs=40000"], ("varifocal", None)),
        (["model.criterion.gamma=1"], ("mal", 1)),
        (["model.criterion.classification=varifocal"], ("varifocal", None)),
        (["recipe=deim"], ("mal", None)),
    ],
)
def test_only_a_short_run_with_a_new_decoder_has_another_loss_than_the_papers(
    overrides: list[str], loss: tuple[str, float | None]
) -> None:
    config = composed("model=r18vd", *overrides)
    settle_loss(config, num_images=205)
    assert (config.model.criterion.classification, config.model.criterion.gamma) == loss
