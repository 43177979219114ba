"""Resuming, moving and restarting whole runs, as a user does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from rtdetrv2_train import UserError, train
from tests.running import TINY, WITHOUT_PICTURES, last_line, of_set, run_command
from tests.support import write_coco

pytestmark = pytest.mark.slow

QUICK = (*TINY, "trainer=cpu", "trainer.max_epochs=1")


@pytest.fixture(scope="module")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("small"), num_images=6)


@pytest.fixture(scope="module")
def first_run(small_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "first"
    run_command("train", *QUICK, *WITHOUT_PICTURES, *of_set(small_set), "logger=csv", f"run_folder={folder}")
    return folder


@pytest.fixture
def run(first_run: Path, tmp_path: Path) -> Path:
    """A copy of the run, which the original's place must not matter to."""
    return shutil.copytree(first_run, tmp_path / "copied [v1]")


def steps(run: Path) -> int:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]


def test_a_run_that_was_moved_goes_on_where_it_is(first_run: Path, run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in first_run.rglob("*") if path.is_file()}
    assert str(first_run) not in (run / "config.yaml").read_text()
    out = run_command("train", f"resume='{run}'", "trainer.max_epochs=2")
    assert "trainer.max_epochs = 2 instead of 1" in out
    assert (steps(first_run), steps(run)) == (1, 2)
    line = last_line(run_command("train", f"resume='{run}'", "trainer.max_epochs=1", expect=2))
    assert "the run has done 2 epochs, more than trainer.max_epochs=1: give 2 or more" in line
    assert [epoch["epoch"] for epoch in json.loads((run / "history.json").read_text())] == [0, 1]
    assert {path: path.stat().st_mtime_ns for path in first_run.rglob("*") if path.is_file()} == before


def test_a_run_goes_on_at_another_image_size(run: Path) -> None:
    out = run_command("train", f"resume='{run}'", "trainer.max_epochs=2", "model.image_size=96")
    assert "model.image_size = [96, 96] instead of [64, 64]" in out
    assert steps(run) == 2
    assert json.loads((run / "model" / "model.json").read_text())["architecture"]["image_size"] == [96, 96]


def test_a_logger_of_csv_appends_to_the_rows_before(run: Path) -> None:
    before = (run / "csv" / "metrics.csv").read_text().splitlines()
    run_command("train", f"resume='{run}'", "trainer.max_epochs=2")
    after = (run / "csv" / "metrics.csv").read_text().splitlines()
    assert len(after) > len(before)
    column = before[0].split(",").index("step")
    assert [row.split(",")[after[0].split(",").index("step")] for row in after[1 : len(before)]] == [
        row.split(",")[column] for row in before[1:]
    ]


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["model.architecture.decoder.num_layers=3"], "is of another model"),
        (["model=r18vd", "model.pretrained=null", "model.image_size=[64,64]"], "is of another model"),
        (["+trainer.gradient_clip_val=1"], "use recipe.max_gradient_norm"),
        (["+callbacks.checkpoint.save_weights_only=true"], "leaves out the EMA"),
        (["model.architecture.decoder.num_heads=7"], "decoder.num_heads=7 must divide decoder.width=64"),
    ],
)
def test_a_resume_that_fails_changes_nothing_and_says_why_in_one_line(
    run: Path, overrides: list[str], reason: str
) -> None:
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != "train.log"}
    out = run_command("train", f"resume='{run}'", *overrides, expect=2)
    line = last_line(out)
    assert line.startswith("error: ")
    assert reason in line
    assert "Error executing job" not in out
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != "train.log"} == before


def test_a_resume_with_other_classes_or_a_foreign_checkpoint_is_one_line(run: Path, tmp_path: Path) -> None:
    data = write_coco(tmp_path / "set", num_images=6)
    content = json.loads((data / "annotations.json").read_text())
    content["categories"].append({"id": 9, "name": "green"})
    (data / "annotations.json").write_text(json.dumps(content))
    line = last_line(run_command("train", f"resume='{run}'", f"data.root={data}", expect=2))
    assert "has the classes red, blue, but the data now has red, blue, green:" in line
    assert "init_from=" in line
    for foreign in ({"model": torch.zeros(1)}, torch.zeros(1)):
        torch.save(foreign, run / "checkpoints" / "last.ckpt")
        line = last_line(run_command("train", f"resume='{run}'", "trainer.max_epochs=2", expect=2))
        assert line.startswith("error: ")
        assert "last.ckpt" in line


def test_a_run_that_began_from_weights_keeps_its_settings_when_it_is_resumed(run: Path, tmp_path: Path) -> None:
    weights = shutil.copy(run / "checkpoints" / "best.ckpt", tmp_path / "weights.ckpt")
    saved = OmegaConf.load(run / "config.yaml")
    of_data = [f"data.{key}={value}" for key, value in saved.data.items() if key == "root"]
    parts = [
        f"data.{part}.{key}={saved.data[part][key]}" for part in ("train", "val") for key in ("images", "annotations")
    ]
    tuned = tmp_path / "tuned"
    run_command("train", *QUICK, *WITHOUT_PICTURES, *of_data, *parts, f"init_from={weights}", f"run_folder={tuned}")
    Path(weights).unlink()
    out = run_command("train", f"resume={tuned}", "trainer.max_epochs=2")
    assert "started from pretrained weights" in out
    assert "resuming with learning rates" not in out


def test_a_value_that_an_object_refuses_is_a_user_error_in_python(small_set: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.pixel_range is 9: give two ascending numbers"):
        train(*QUICK, *of_set(small_set), "data.pixel_range=9", f"run_folder={tmp_path / 'failed'}")
    assert not (tmp_path / "failed").exists()


def test_a_start_that_fails_leaves_no_folder(small_set: Path, tmp_path: Path) -> None:
    line = last_line(
        run_command("train", *QUICK, *of_set(small_set), "recipe.lr_schedule=step", folder=tmp_path, expect=2)
    )
    assert "recipe.lr_schedule is 'step'" in line
    assert not list(tmp_path.rglob("*.log"))
    assert not list((tmp_path / "runs").rglob("2*"))


@pytest.mark.parametrize("without", [["callbacks=null", "logger=null"], ["~callbacks", "~logger"]])
def test_training_works_without_callbacks_and_loggers(small_set: Path, tmp_path: Path, without: list[str]) -> None:
    run = tmp_path / "bare"
    out = run_command("train", *QUICK, *of_set(small_set), *without, f"run_folder={run}")
    assert "none, these are the last weights" in out
    assert "tensorboard --logdir" not in out
    assert (run / "model" / "model.safetensors").exists()
    assert not (run / "checkpoints").exists()
    assert not {"callbacks", "logger"} & set(OmegaConf.load(run / "config.yaml"))


@pytest.mark.parametrize("without", ["data.val=null", "~data.val"])
def test_training_and_evaluation_work_without_a_validation_set(small_set: Path, tmp_path: Path, without: str) -> None:
    run = tmp_path / "run"
    of_training = [override for override in of_set(small_set) if ".val." not in override]
    out = run_command("train", *QUICK, *WITHOUT_PICTURES, *of_training, without, f"run_folder={run}")
    assert "1 of 6 images are held out for validation" in out
    run_command("eval", f"run={run}", "trainer=cpu", f"run_folder={tmp_path / 'eval'}")
    assert (tmp_path / "eval" / "metrics.json").read_text() == (run / "metrics.json").read_text()


def test_a_run_that_cannot_be_measured_keeps_its_last_weights(small_set: Path, tmp_path: Path) -> None:
    content = json.loads((small_set / "annotations.json").read_text()) | {"annotations": []}
    (small_set / "none.json").write_text(json.dumps(content))
    run = tmp_path / "run"
    out = run_command(
        "train", *QUICK, *WITHOUT_PICTURES, *of_set(small_set), "data.val.annotations=none.json",
        "trainer.max_epochs=3", f"run_folder={run}",
    )  # fmt: skip
    assert steps(run) == 3
    assert not (run / "checkpoints" / "best.ckpt").exists()
    assert "none, these are the last weights" in out
    whole = "data.val.annotations=annotations.json"
    run_command("eval", f"run={run}", "trainer=cpu", whole, f"run_folder={tmp_path}/eval")


def test_a_time_limit_ends_a_run_within_an_epoch_and_it_goes_on_at_the_next_batch(tmp_path: Path) -> None:
    run = tmp_path / "run"
    data = write_coco(tmp_path / "set", num_images=24)
    limited = ["+trainer.max_time.microseconds=1", f"run_folder={run}", "recipe.total_batch_size=4"]
    run_command("train", *QUICK, *WITHOUT_PICTURES, *of_set(data), *limited)
    assert steps(run) == 1
    run_command("train", f"resume={run}", "+trainer.max_time=null")
    assert steps(run) == 6
