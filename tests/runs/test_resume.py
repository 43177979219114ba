"""Which run, and which of its checkpoints, is gone on with."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.runs.resume import checkpoint_to_resume, run_to_resume
from tests.support import composed


def make_run(folder: Path, config: DictConfig, whole: bool = True, age: int = 0) -> Path:
    path = folder / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    torch.save({"weights": torch.zeros(3)}, path)
    if not whole:
        path.write_bytes(path.read_bytes()[:-10])
    os.utime(path, (1_000 - age, 1_000 - age))
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(_resolved(config)))
    return folder


def _resolved(config: DictConfig) -> DictConfig:
    # without hydra there is no run folder to resolve
    return OmegaConf.create(
        {name: OmegaConf.to_container(config[name], resolve=True) for name in ("model", "data", "augment", "recipe")}
        | {"seed": config.seed, "init_from": config.init_from}
    )


def test_auto_takes_the_newest_run_of_this_configuration_with_a_whole_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mine = composed("model=nano", "data=shapes")
    assert run_to_resume("auto", tmp_path / "none", mine) is None
    make_run(tmp_path / "old", mine, age=20)
    expected = make_run(tmp_path / "right", mine, age=10)
    make_run(tmp_path / "broken", mine, whole=False)
    make_run(tmp_path / "other", composed("model=nano", "data=shapes", "recipe.learning_rate=1"))
    on_other_machine = composed("model=nano", "data=shapes", "data.num_workers=7", "trainer=ddp_cpu")
    assert run_to_resume("auto", tmp_path, on_other_machine) == expected
    with caplog.at_level(logging.WARNING):
        assert checkpoint_to_resume("auto", expected) == expected / "checkpoints" / "last.ckpt"
    assert f"passed over '{tmp_path / 'broken' / 'checkpoints' / 'last.ckpt'}'" in caplog.text


def test_auto_names_the_nearest_run_that_differs_and_passes_over_unreadable_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_run(tmp_path / "near", composed("model=nano", "data=shapes", "recipe.weight_decay=0.5"))
    make_run(tmp_path / "far", composed("model=r18vd", "data=shapes"))
    for name, content in {"empty": "", "broken": "a: [", "list": "[1]"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(content)
    assert run_to_resume("auto", tmp_path, composed("model=nano", "data=shapes")) is None
    assert f"'{tmp_path / 'near'}' differs in recipe.weight_decay (0.5 there, 0.0001 here)" in caplog.text
    assert all(f"passed over '{tmp_path / name}'" in caplog.text for name in ("empty", "broken", "list"))


def test_auto_takes_a_run_from_before_a_key_was_added_unless_the_command_line_gives_that_key(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", composed("model=nano", "data=shapes"))
    content = OmegaConf.load(run / "config.yaml")
    del content.data["repeat_threshold"]
    OmegaConf.save(content, run / "config.yaml")
    assert run_to_resume("auto", tmp_path, composed("model=nano", "data=shapes")) == run
    given = ["model=nano", "data=shapes", "data.repeat_threshold=0.1"]
    assert run_to_resume("auto", tmp_path, composed(*given), given) is None
    added = ["model=nano", "data=shapes", "+augment.transforms.blur._target_=albumentations.Blur"]
    assert run_to_resume("auto", tmp_path, composed(*added), added) is None


def test_auto_starts_afresh_where_there_is_nothing_and_a_requeued_job_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checkpoint_to_resume("auto", tmp_path) is None
    run = make_run(tmp_path / "run", composed("model=nano"))
    assert checkpoint_to_resume(None, run) is None
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert checkpoint_to_resume(None, run) == run / "checkpoints" / "last.ckpt"


def test_a_broken_checkpoint_is_passed_over_for_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(tmp_path / "run", composed("model=nano"), whole=False)
    torch.save({}, run / "checkpoints" / "last_previous.ckpt")
    os.utime(run / "checkpoints" / "last_previous.ckpt", (900, 900))
    assert checkpoint_to_resume(str(run), "elsewhere") == run / "checkpoints" / "last_previous.ckpt"
    assert "last.ckpt', which is broken" in caplog.text


def test_a_run_or_file_without_a_whole_checkpoint_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", composed("model=nano"), whole=False)
    with pytest.raises(UserError, match="cannot be resumed"):
        checkpoint_to_resume(str(run / "checkpoints" / "last.ckpt"), "elsewhere")
    with pytest.raises(UserError, match="holds no whole checkpoint"):
        checkpoint_to_resume(str(run), "elsewhere")
