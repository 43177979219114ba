"""A run resumes with another number of devices, another batch size or other learning rates."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from omegaconf import OmegaConf

from rtdetrv2_train import build_criterion, build_model
from rtdetrv2_train.data.loading.datamodule import CocoDataModule
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.evaluation.coco import CocoEvaluator
from rtdetrv2_train.training.atomic_checkpoint_io import AtomicCheckpointIO
from rtdetrv2_train.training.callbacks.checkpointing import Checkpointing
from rtdetrv2_train.training.callbacks.ema import EMA
from rtdetrv2_train.training.callbacks.resume import ResumeAdjustments
from rtdetrv2_train.training.module import DetectionModule
from rtdetrv2_train.training.recipe import Recipe
from rtdetrv2_train.types import Batch
from tests.support import composed, write_coco

pytestmark = pytest.mark.slow


class Observed(DetectionModule):
    """Remembers the images of each step, and the learning rate."""

    def on_train_start(self) -> None:
        self.seen: list[tuple[int, list[int], float]] = []

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.seen.append((self.trainer.global_step, batch.targets.image_ids.tolist(), rate))
        return super().training_step(batch, batch_idx)


def fit(
    folder: Path, batch_size: int, accumulated: int = 1, resume: bool = False, rate: float = 1e-3, **settings: Any
) -> Observed:
    torch.manual_seed(0)
    config = composed("model=nano", "data=shapes")
    paths = {"images": "images", "annotations": "annotations.json"}
    root = folder / "set" if (folder / "set").exists() else write_coco(folder / "set")
    data = CocoDataModule(
        root, paths, paths, image_size=[64, 64], transforms={}, schedule={}, reference_epochs=4, max_epochs=4,
        batch_size=batch_size, eval_batch_size=2, num_workers=0,
    )  # fmt: skip
    data.load()
    module = Observed(
        model=build_model("nano", num_classes=2),
        criterion=build_criterion("nano"),
        recipe=Recipe(learning_rate=rate, lr_schedule="cosine", warmup_steps=1),
        parameter_rules=OmegaConf.to_container(config.model.parameter_rules),
        evaluator=CocoEvaluator(data.val_annotations.ground_truth(), data.category_ids, "auto"),
    )
    checkpoint = Checkpointing(
        dirpath=folder / "checkpoints", filename="best", save_last=True, enable_version_counter=False
    )
    trainer = Trainer(
        accelerator="cpu", callbacks=[EMA(), ResumeAdjustments(), checkpoint], plugins=[AtomicCheckpointIO()],
        logger=False, enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
        limit_val_batches=0, accumulate_grad_batches=accumulated, **{"max_epochs": 4, **settings},
    )  # fmt: skip
    last = folder / "checkpoints" / "last.ckpt" if resume else None
    trainer.fit(module, datamodule=data, ckpt_path=last, weights_only=True)
    return module


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Observed:
    """A run of 4 epochs of 3 steps that was never interrupted."""
    return fit(tmp_path_factory.mktemp("straight"), batch_size=4)


def test_another_batch_size_resumes_at_the_same_epoch_of_the_learning_rate_schedule(
    straight: Observed, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fit(tmp_path, batch_size=2, max_epochs=2)
    resumed = fit(tmp_path, batch_size=4, resume=True)
    changed = "4 images a step (1 device x 4 images) instead of 2 images a step (1 device x 2 images)"
    assert f"resuming with {changed}" in caplog.text
    assert [step for step, _, _ in resumed.seen] == list(range(12, 18))  # 2 epochs of 6 steps, then of 3
    assert [entry[1:] for entry in resumed.seen] == [entry[1:] for entry in straight.seen[6:]]


def test_within_an_epoch_another_gradient_accumulation_resumes_with_the_next_images(
    straight: Observed, tmp_path: Path
) -> None:
    fit(tmp_path, batch_size=4, max_steps=4)
    resumed = fit(tmp_path, batch_size=2, accumulated=2, resume=True)
    assert [step for step, _, _ in resumed.seen] == [step for step in range(4, 12) for _ in range(2)]
    ids = [images for _, images, _ in resumed.seen]
    assert [a + b for a, b in zip(ids[::2], ids[1::2], strict=True)] == [images for _, images, _ in straight.seen[4:]]


def test_within_an_epoch_another_total_batch_size_is_refused_with_the_way_out(tmp_path: Path) -> None:
    fit(tmp_path, batch_size=4, max_steps=4)
    with pytest.raises(UserError, match=r"middle of epoch 1.*recipe.total_batch_size=4, or resume from the end of"):
        fit(tmp_path, batch_size=2, resume=True)


def test_an_extended_run_follows_the_schedule_of_its_new_length_from_the_first_step(
    straight: Observed, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fit(tmp_path, batch_size=4, max_epochs=2)
    resumed = fit(tmp_path, batch_size=4, resume=True)
    assert "the run has 12 steps now instead of 6: its schedule is laid anew over them" in caplog.text
    assert [entry[1:] for entry in resumed.seen] == [entry[1:] for entry in straight.seen[6:]]


def test_learning_rates_are_those_of_the_configuration(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fit(tmp_path, batch_size=4, max_epochs=2)
    with caplog.at_level(logging.WARNING):
        resumed = fit(tmp_path, batch_size=4, resume=True, rate=2e-3)
    assert "resuming with learning rates up to" in caplog.text
    straight = fit(tmp_path / "straight", batch_size=4, rate=2e-3)
    assert [rate for _, _, rate in resumed.seen] == [rate for _, _, rate in straight.seen[6:]]
