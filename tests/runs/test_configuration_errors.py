"""Keys that a command does not have: the right one is named, and none is silently ignored."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtdetrv2_train import UserError, evaluate, train
from rtdetrv2_train.runs.configuration import composed
from rtdetrv2_train.runs.configuration_errors import check_keys, no_such_key
from tests.running import last_line, run_command


@pytest.mark.parametrize(
    ("command", "key", "right"),
    [
        ("train", "batch_size", "recipe.total_batch_size"),
        ("train", "recipe.batch", "recipe.total_batch_size"),
        ("train", "bs", "recipe.total_batch_size"),
        ("train", "image_size", "model.image_size"),
        ("train", "imgsz", "model.image_size"),
        ("train", "recipe.lr", "recipe.learning_rate"),
        ("train", "learning_rate", "recipe.learning_rate"),
        ("train", "epochs", "trainer.max_epochs"),
        ("train", "data.path", "data.root"),
        ("train", "data.train_path", "data.train.images"),
        ("train", "data.train.path", "data.train.images"),
        ("train", "dataset", "data.root"),
        ("train", "workers", "data.num_workers"),
        ("train", "data.workers", "data.num_workers"),
        ("train", "gpus", "trainer.devices"),
        ("train", "weights", "init_from"),
        ("train", "pretrained", "model.pretrained"),
        ("train", "output_dir", "run_folder"),
        ("train", "amp", "trainer.precision"),
        ("train", "num_queries", "model.architecture.decoder.num_queries"),
        ("eval", "batch_size", "data.eval_batch_size"),
        ("eval", "weights", "checkpoint"),
        ("eval", "imgsz", "model.image_size"),
        ("predict", "conf", "threshold"),
        ("predict", "batch", "batch_size"),
        ("predict", "weights", "checkpoint"),
        ("predict", "images", "source"),
        ("predict", "project", "output"),
        ("export", "weights", "checkpoint"),
        ("demo", "weights", "run"),
    ],
)
def test_a_name_of_other_frameworks_leads_to_the_key_of_ours(command: str, key: str, right: str) -> None:
    assert no_such_key(key, command).startswith(f"there is no key '{key}': did you mean '{right}'? ")


@pytest.mark.parametrize(
    ("command", "key", "said"),
    [
        ("train", "optimizer", "did you mean 'recipe.optimizer'"),
        ("train", "optim", "recipe.optimizer, with recipe.learning_rate"),
        ("train", "device", "trainer=cpu"),
        ("train", "patience", "EarlyStopping"),
        ("train", "nc", "annotation file"),
        ("predict", "imgsz", "the size that the model was trained with"),
        ("predict", "iou", "no non-maximum suppression"),
    ],
)
def test_what_has_no_key_is_answered(command: str, key: str, said: str) -> None:
    assert said in no_such_key(key, command)


@pytest.mark.parametrize("override", ["lr=1", "+lr=1", "++lr=1"])
@pytest.mark.parametrize("command", ["train", "eval", "predict", "export", "demo"])
def test_no_command_ignores_a_key(command: str, override: str) -> None:
    assert last_line(run_command(command, override, expect=2)).startswith("error: there is no key 'lr'")


@pytest.mark.parametrize(
    "key", ["model.lr", "recipe.foo", "augment.foo", "data.train.foo", "evaluation.foo", "callbacks.history.foo"]
)
def test_sections_take_no_unknown_keys_either(key: str) -> None:
    line = last_line(
        run_command("train", "model=nano", f"+{key}=1", "data=shapes" if "data" not in key else "data=coco", expect=2)
    )
    assert f"there is no key '{key}'" in line


def test_a_key_of_a_file_counts_as_one_of_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nmodel: {lr: 1}\n")
    line = last_line(run_command("train", "--config-dir", str(tmp_path), "experiment=mine", "model=nano", expect=2))
    assert "there is no key 'model.lr': did you mean 'recipe.learning_rate'?" in line


def test_open_mappings_and_keys_that_others_refer_to_are_taken() -> None:
    overrides = (
        "+augment.transforms.blur._target_=albumentations.Blur",
        "+model.parameter_rules.mine={match: encoder, learning_rate: 0.1}",
        "+trainer.max_time=00:01:00:00",
        "+mine=0.3",
        "recipe.learning_rate=${mine}",
    )
    with composed("train", overrides) as config:
        check_keys(config, "train")


def test_python_names_the_right_key_too() -> None:
    with pytest.raises(UserError, match=r"did you mean 'recipe\.total_batch_size'"):
        train("batch_size=4")
    with pytest.raises(UserError, match="there is no key 'foo'"):
        evaluate("+foo=4")


def test_an_argument_that_lightning_does_not_know_is_named() -> None:
    line = last_line(run_command("train", "model=nano", "data=shapes", "trainer=cpu", "+trainer.foo=1", expect=2))
    assert line.startswith("error: Lightning's Trainer takes no 'foo'")
