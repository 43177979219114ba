"""The configuration of a resumed run."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from rtdetrv2_train.commands.train import SECTIONS_OF_A_RUN
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.runs.configuration import differences, not_followed, read_config, save_config, with_saved
from tests.support import composed


def saved_run(folder: Path, *overrides: str) -> Path:
    config = composed(*overrides)
    config.run_folder = str(folder)
    folder.mkdir()
    save_config(config)
    return folder


def resumed(folder: Path, *overrides: str) -> DictConfig:
    config = composed(*overrides)
    config.run_folder = str(folder)
    return with_saved(config, folder, SECTIONS_OF_A_RUN, overrides)


def test_what_was_left_out_on_the_command_line_stays_out(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "run", "model=nano", "~callbacks.pictures", "~augment.transforms.flip", "~data.val")
    config = resumed(run)
    assert "val" not in config.data
    assert "pictures" not in config.callbacks
    assert "flip" not in config.augment.transforms
    assert "history" in config.callbacks
    assert "callbacks" not in resumed(saved_run(tmp_path / "none", "model=nano", "~callbacks"))


def test_a_saved_configuration_does_not_know_where_it_was(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "run", "model=nano", "logger=csv")
    assert str(tmp_path) not in (run / "config.yaml").read_text()
    moved = run.rename(tmp_path / "moved")
    config = resumed(moved)
    assert config.callbacks.checkpoint.dirpath == f"{moved}/checkpoints"
    assert config.logger.csv.save_dir == str(moved)


@pytest.mark.parametrize(
    ("override", "followers"),
    [
        ("recipe.epochs=7", ["trainer.max_epochs", "data.max_epochs"]),
        ("model.epochs=7", ["recipe.epochs", "trainer.max_epochs", "data.max_epochs", "data.reference_epochs"]),
        ("trainer.max_epochs=7", ["data.max_epochs"]),
        ("model.learning_rate=7", ["recipe.learning_rate"]),
        ("model.total_batch_size=7", ["recipe.total_batch_size", "recipe.reference_batch_size"]),
        ("model.stop_augmentation_epoch=7", ["augment.schedule.photometric.stop", "data.schedule.photometric.stop"]),
        ("seed=7", ["data.seed"]),
    ],
)
def test_what_is_derived_from_a_key_follows_it(tmp_path: Path, override: str, followers: list[str]) -> None:
    config = resumed(saved_run(tmp_path / "run", "model=nano"), override)
    assert {name: OmegaConf.select(config, name) for name in followers} == dict.fromkeys(followers, 7)


def test_a_key_that_was_given_by_hand_does_not_follow_and_is_named(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "run", "model=nano", "trainer.max_epochs=3")
    config = resumed(run, "recipe.epochs=5")
    assert config.trainer.max_epochs == 3
    assert not_followed(config, composed("recipe.epochs=5"), ["recipe.epochs=5"]) == {
        "trainer.max_epochs": "recipe.epochs"
    }
    assert not not_followed(resumed(run, "model.epochs=5"), composed("model.epochs=5"), ["seed=5"])


def test_keys_that_were_added_since_have_their_defaults(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "run", "model=nano", "recipe.weight_decay=0.5")
    content = OmegaConf.load(run / "config.yaml")
    del content.recipe["betas"], content.trainer["deterministic"], content.callbacks.nan_guard["max_skipped_steps"]
    OmegaConf.save(content, run / "config.yaml")
    config = resumed(run)
    assert (config.recipe.betas, config.trainer.deterministic, config.recipe.weight_decay) == ([0.9, 0.999], False, 0.5)
    assert config.callbacks.nan_guard.max_skipped_steps == 10


def test_an_experiment_on_the_command_line_describes_the_whole_run(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "run", "model=nano")
    assert resumed(run, "experiment=r18vd_sp1").model.name == composed("experiment=r18vd_sp1").model.name


def test_differences_are_named_by_their_dotted_keys(tmp_path: Path) -> None:
    before, after = composed("model=nano"), composed("model=nano", "recipe.epochs=7", "~augment.transforms.flip.p")
    changed = differences(before, after, ("recipe", "augment"))
    assert changed == {"recipe.epochs": (10, 7), "augment.transforms.flip.p": (0.5, None)}


@pytest.mark.parametrize("content", ["", "[1, 2]", "a: ["])
def test_a_configuration_that_is_none_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=r"config\.yaml"):
        read_config(path)
