"""Values that make no sense are named by their key; sizes are completed."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.runs.configuration import composed
from rtdetrv2_train.runs.values import check_values


@pytest.mark.parametrize(
    ("command", "override", "said"),
    [
        ("train", "recipe.total_batch_size=0", "recipe.total_batch_size is 0: give a whole number of 1 or more"),
        ("train", "model.total_batch_size=0", "model.total_batch_size is 0"),
        ("train", "recipe.learning_rate=-1", "recipe.learning_rate is -1: give a number of 0 or more"),
        ("train", "recipe.learning_rate=fast", "recipe.learning_rate is 'fast'"),
        ("train", "recipe.betas=0.9", "recipe.betas is 0.9: give a list"),
        ("train", "recipe.short_run.below_steps=few", "below_steps is 'few'"),
        ("train", "trainer.max_epochs=0", "trainer.max_epochs is 0"),
        ("train", "trainer.max_epochs=-1", "would train for ever: give trainer.max_steps"),
        ("train", "trainer.devices=0", "trainer.devices is 0"),
        ("train", "trainer.devices=all", "trainer.devices is 'all'"),
        ("train", "trainer.accumulate_grad_batches=0", "or auto"),
        ("train", "compile=no", "compile is 'no': give true or false"),
        ("train", "model.multiscale=480", "model.multiscale is 480: give a list"),
        ("train", "seed=-1", "seed is -1"),
        ("train", "model.image_size=300", "try 288 or 320 instead of 300"),
        ("train", "data.image_size=[320,20]", "try 32 instead of 20"),
        ("train", "model.image_size=large", "give height and width in pixels"),
        ("eval", "max_detections=-1", "max_detections is -1: give a whole number of 1 or more"),
        ("eval", "data.eval_batch_size=0", "data.eval_batch_size is 0"),
        ("predict", "batch_size=0", "batch_size is 0"),
        ("predict", "threshold=2", "threshold is 2: give a number from 0 to 1, or auto"),
        ("predict", "tile=0", "tile is 0: give a whole number of 32 or more, or null"),
        ("predict", "overlap=1.5", "overlap is 1.5: give a number from 0 to 0.9"),
        ("predict", "half=yes", "half is 'yes': give true or false"),
        ("demo", "port=x", "port is 'x': give a whole number from 1 to 65535"),
    ],
)
def test_a_value_that_makes_no_sense_is_named(command: str, override: str, said: str) -> None:
    with composed(command, [override]) as config, pytest.raises(UserError) as caught:
        check_values(config)
    assert said in str(caught.value)


@pytest.mark.parametrize("command", ["train", "eval", "predict", "export", "demo"])
def test_what_conf_says_passes(command: str) -> None:
    with composed(command, []) as config:
        before = OmegaConf.to_container(config)
        check_values(config)
        after = OmegaConf.to_container(config)
    assert after == before


@pytest.mark.parametrize("devices", ["2", "auto", "-1", "[0,1]", "'0,1'"])
def test_devices_are_a_number_or_a_list(devices: str) -> None:
    with composed("train", [f"trainer.devices={devices}"]) as config:
        check_values(config)


def test_a_number_stands_for_a_square() -> None:
    with composed("train", ["model.image_size=320"]) as config:
        check_values(config)
        assert config.model.image_size == config.data.image_size == [320, 320]
    with composed("eval", ["data.image_size=480"]) as config:
        check_values(config)
        assert config.data.image_size == [480, 480]
        assert config.model.image_size == [640, 640]
