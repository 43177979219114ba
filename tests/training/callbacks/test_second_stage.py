"""A second stage begins with the best model of the first, on one rank and on two, and also where a run is resumed."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer
from omegaconf import OmegaConf
from torch import Tensor

from rtdetrv2_train import build_criterion, build_model
from rtdetrv2_train.data.loading.datamodule import CocoDataModule
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.evaluation.coco import CocoEvaluator
from rtdetrv2_train.training.atomic_checkpoint_io import AtomicCheckpointIO
from rtdetrv2_train.training.callbacks.checkpointing import Checkpointing
from rtdetrv2_train.training.callbacks.ema import EMA
from rtdetrv2_train.training.callbacks.nan_guard import NanGuard
from rtdetrv2_train.training.callbacks.resume import ResumeAdjustments
from rtdetrv2_train.training.callbacks.second_stage import SecondStage
from rtdetrv2_train.training.module import DetectionModule
from rtdetrv2_train.training.recipe import Recipe
from rtdetrv2_train.types import Batch
from tests.running import TINY, WITHOUT_PICTURES, of_set, run_command
from tests.support import ROOT, composed, write_coco

pytestmark = pytest.mark.slow

AP = (0.1, 0.5, 0.3, 0.2, 0.4)  # of five epochs, of which the second stage has the last two
RECIPE = Recipe(learning_rate=1e-3, learning_rate_factor=1.0, warmup_steps=1, lr_schedule="constant",
                max_gradient_norm=0.1, ema_decay=0.9, ema_ramp_steps=1)  # fmt: skip


class Measured(DetectionModule):
    """Has the AP above, and remembers weights, EMA and optimizer at the first step of each epoch."""

    average: EMA

    def on_train_start(self) -> None:
        self.at: dict[int, dict[str, Any]] = {}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.at.setdefault(self.trainer.current_epoch, self.snapshot())
        return super().training_step(batch, batch_idx)

    def on_train_epoch_end(self) -> None:
        self.log("val/AP", torch.tensor(AP[self.trainer.current_epoch]))

    def snapshot(self) -> dict[str, Any]:
        assert self.average._average_model is not None
        optimizer = self.trainer.optimizers[0]
        states = [optimizer.state[p] for group in optimizer.param_groups for p in group["params"]]
        return {
            "weights": {name: tensor.clone() for name, tensor in self.state_dict().items()},
            "average": {name: t.clone() for name, t in self.average._average_model.module.state_dict().items()},
            "moments": [state["exp_avg"].clone() for state in states if state],
            "rate": optimizer.param_groups[0]["lr"],
        }


def fit(folder: Path, resume: bool = False, epoch: int | None = 3, keep: bool = True, **settings: Any) -> Measured:
    torch.manual_seed(0)
    config = composed("model=nano", "data=shapes")
    paths = {"images": "images", "annotations": "annotations.json"}
    root = folder / "set" if (folder / "set").exists() else write_coco(folder / "set")
    data = CocoDataModule(
        root, paths, paths, image_size=[64, 64], transforms={}, schedule={}, reference_epochs=5, max_epochs=5,
        batch_size=4, eval_batch_size=2, num_workers=0,
    )  # fmt: skip
    data.load()
    module = Measured(
        model=build_model("nano", num_classes=2),
        criterion=build_criterion("nano"),
        recipe=RECIPE,
        parameter_rules=OmegaConf.to_container(config.model.parameter_rules),
        evaluator=CocoEvaluator(data.val_annotations.ground_truth(), data.category_ids, "auto"),
    )
    module.average = EMA()
    callbacks: list[Callback] = [NanGuard(folder / "nan"), module.average, SecondStage(epoch, 5), ResumeAdjustments()]
    if keep:
        callbacks.append(
            Checkpointing(
                dirpath=folder / "checkpoints", filename="best", monitor="val/AP", mode="max", save_last=True,
                enable_version_counter=False,
            )
        )  # fmt: skip
    trainer = Trainer(
        accelerator="cpu", callbacks=callbacks, plugins=[AtomicCheckpointIO()], logger=False, limit_val_batches=0,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
        enable_checkpointing=keep, **{"max_epochs": 5, **settings},
    )  # fmt: skip
    last = folder / "checkpoints" / "last.ckpt" if resume else None
    trainer.fit(module, datamodule=data, ckpt_path=last, weights_only=True)
    return module


def saved(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("straight")


@pytest.fixture(scope="module")
def straight(folder: Path) -> Measured:
    """A run that was never interrupted: 5 epochs of 3 steps."""
    return fit(folder)


def test_the_second_stage_begins_with_weights_average_and_optimizer_of_the_best_model(
    straight: Measured, folder: Path
) -> None:
    best, begin = saved(folder), straight.at[3]
    assert best["epoch"] == 1
    torch.testing.assert_close(begin["weights"], best["current_model_state"], rtol=0, atol=0)
    torch.testing.assert_close(begin["average"], best["state_dict"], rtol=0, atol=0)
    moments = [state["exp_avg"] for state in best["optimizer_states"][0]["state"].values()]
    torch.testing.assert_close(begin["moments"], moments, rtol=0, atol=0)
    torch.testing.assert_close(begin["weights"], straight.at[2]["weights"], rtol=0, atol=0)
    assert begin["rate"] == straight.at[2]["rate"]
    assert any(not torch.equal(t, begin["weights"][name]) for name, t in straight.at[4]["weights"].items())


@pytest.mark.parametrize("steps", [5, 6, 9, 10, 12, 13])
def test_a_run_that_was_interrupted_ends_with_the_same_weights(
    straight: Measured, tmp_path: Path, steps: int, caplog: pytest.LogCaptureFixture
) -> None:
    """In each stage, and at each border of epochs."""
    fit(tmp_path, max_steps=steps)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        resumed = fit(tmp_path, resume=True)
    again = "epoch 3: the second stage begins with the best model so far, of epoch 1" in caplog.text
    assert again == (steps <= 9)
    torch.testing.assert_close(resumed.state_dict(), straight.state_dict(), rtol=0, atol=0)


def test_without_a_second_stage_nothing_is_loaded(straight: Measured, tmp_path: Path) -> None:
    module = fit(tmp_path, epoch=None, max_epochs=4)
    for name, tensor in module.at[2]["weights"].items():
        assert torch.equal(tensor, straight.at[2]["weights"][name])
    assert any(not torch.equal(t, straight.at[3]["weights"][name]) for name, t in module.at[3]["weights"].items())


def test_a_best_model_that_is_gone_or_of_the_second_stage_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fit(tmp_path, max_steps=9)
    best = tmp_path / "checkpoints" / "best.ckpt"
    torch.save(saved(tmp_path) | {"epoch": 3}, best)  # as when the run was killed between best.ckpt and last.ckpt
    last = shutil.copy(best.with_name("last.ckpt"), tmp_path / "at_the_border.ckpt")
    fit(tmp_path, resume=True)
    assert "epoch 3: the second stage goes on from where the run is" in caplog.text
    assert "best.ckpt' is of epoch 3" in caplog.text
    shutil.copy(last, best.with_name("last.ckpt"))
    best.unlink()
    fit(tmp_path, resume=True)
    assert "epoch 3: the second stage goes on from where the run is, as there is no best checkpoint" in caplog.text


def test_a_run_that_keeps_no_best_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"keep callbacks\.checkpoint, or use recipe\.second_stage_epoch=null"):
        fit(tmp_path, keep=False)


def test_the_recipe_trains_in_two_stages_and_resumes_in_the_second(tmp_path: Path) -> None:
    run = tmp_path / "run"
    few = [*TINY, "trainer=cpu", "recipe=deim", *WITHOUT_PICTURES, *of_set(write_coco(tmp_path / "set")), "logger=csv"]
    short = ["trainer.max_epochs=5", "trainer.limit_train_batches=2", "trainer.max_steps=9"]
    out = run_command("train", *few, *short, f"run_folder={run}")
    assert "epoch 4: the second stage begins with the best model so far, of epoch 3" in out
    out = run_command("train", f"resume={run}", "trainer.max_steps=-1")
    assert "second stage" not in out
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 10
    assert "val/loss_mal" in (run / "csv" / "metrics.csv").read_text().splitlines()[0]


def test_two_ranks_begin_the_second_stage_with_the_same_weights(tmp_path: Path) -> None:
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    result = subprocess.run(
        [sys.executable, "-m", "tests.training.second_stage_ranks", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "GLOO_SOCKET_IFNAME": loopback, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]
    begins = [torch.load(tmp_path / f"begin{rank}.pt", weights_only=True) for rank in (0, 1)]
    best = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["epoch"] == 0
    for begin in begins:
        assert torch.equal(begin["layer.weight"], best["state_dict"]["layer.weight"])
        assert not torch.equal(begin["layer.weight"], begin["before"])
