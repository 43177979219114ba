"""Steps with NaN or Inf are skipped, diagnosed and saved, and change nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from omegaconf import OmegaConf
from torch import Tensor

from rtdetrv2_train import build_criterion, build_model
from rtdetrv2_train.data.loading.datamodule import CocoDataModule
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.evaluation.coco import CocoEvaluator
from rtdetrv2_train.training.callbacks.ema import EMA
from rtdetrv2_train.training.callbacks.nan_guard import NanGuard
from rtdetrv2_train.training.module import DetectionModule
from rtdetrv2_train.training.recipe import Recipe
from rtdetrv2_train.types import Batch
from tests.support import composed, write_coco

NAN = float("nan")
Change = Callable[[DetectionModule, Batch], Batch]


class Disturbed(DetectionModule):
    """Something happens to the third batch."""

    change: Change | None = None

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        if self.change is not None and self.trainer.training and self.trainer.global_step == 2:
            return self.change(self, batch)
        return batch


def fit(folder: Path, change: Change | None, max_skipped_steps: int = 1, **settings: Any) -> tuple[Disturbed, Trainer]:
    torch.manual_seed(0)
    config = composed("model=nano", "data=shapes")
    paths = {"images": "images", "annotations": "annotations.json"}
    root = folder / "set" if (folder / "set").exists() else write_coco(folder / "set")
    data = CocoDataModule(
        root, paths, paths, image_size=[64, 64], transforms={}, schedule={}, reference_epochs=1, max_epochs=1,
        batch_size=2, eval_batch_size=2, num_workers=0,
    )  # fmt: skip
    data.load()
    module = Disturbed(
        model=build_model("nano", num_classes=2),
        criterion=build_criterion("nano"),
        recipe=Recipe(),
        parameter_rules=OmegaConf.to_container(config.model.parameter_rules),
        evaluator=CocoEvaluator(data.val_annotations.ground_truth(), data.category_ids, "auto"),
    )
    module.change = change
    watch = NanGuard(folder / "nan_guard", max_skipped_steps)
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", callbacks=[watch, EMA()], logger=False, enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False, use_distributed_sampler=False, limit_val_batches=0,
        **settings,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    return module, trainer


def broken_image(module: DetectionModule, batch: Batch) -> Batch:
    images = batch.images.float() / 255
    images[1, 0, 5, 5] = NAN
    return Batch(images, batch.targets)


def broken_target(module: DetectionModule, batch: Batch) -> Batch:
    boxes = batch.targets.boxes.clone()
    boxes[1, 2] = NAN
    return Batch(batch.images, replace(batch.targets, boxes=boxes))


def broken_weight(module: DetectionModule, batch: Batch) -> Batch:
    with torch.no_grad():
        module.model.get_submodule("decoder.enc_output.proj").weight[0, 0] = NAN
    return batch


def broken_gradient(module: DetectionModule, batch: Batch) -> Batch:
    layer = module.model.get_submodule("encoder.input_proj.0.conv")
    layer.weight.register_hook(lambda gradient: gradient * NAN if module.trainer.global_step == 2 else None)
    return batch


def broken_layer(module: DetectionModule, batch: Batch) -> Batch:
    seen: list[Tensor] = []
    module.model.register_forward_pre_hook(lambda _, given: seen.append(given[0]))

    def overflow(_: Any, given: Any, output: Tensor) -> Tensor | None:
        return torch.full_like(output, float("inf")) if seen[-1] is batch.images else None

    module.model.get_submodule("backbone.res_layers.1.blocks.0.branch2a.conv").register_forward_hook(overflow)
    return batch


@pytest.mark.parametrize(
    ("change", "named", "images"),
    [
        (broken_image, "the pixels of", 1),
        (broken_target, "the boxes of", 1),
        (broken_layer, "the output of the layer backbone.res_layers.1.blocks.0.branch2a.conv has NaN or Inf", 2),
    ],
)
def test_a_step_with_nan_or_inf_is_skipped_explained_and_saved(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change: Change, named: str, images: int
) -> None:
    with caplog.at_level(logging.ERROR):
        module, trainer = fit(tmp_path, change)
    [record] = [r.getMessage() for r in caplog.records if "is skipped" in r.getMessage()]
    assert named in record
    saved = torch.load(tmp_path / "nan_guard" / "step_3.pt", weights_only=True)
    assert len(saved["file_names"]) == len(saved["images"]) == 2
    assert all(name in record for name in saved["file_names"])
    if images == 1:
        assert f"{named} {saved['file_names'][1]}" in record
    assert trainer.global_step == 6
    for name, tensor in module.state_dict().items():  # the EMA
        assert not tensor.is_floating_point() or tensor.isfinite().all(), name
    for state in trainer.optimizers[0].state.values():
        assert int(state["step"]) == 5
        assert state["exp_avg"].isfinite().all()


def test_a_skipped_step_changes_no_weight_and_no_statistic(tmp_path: Path) -> None:
    states = []

    def note(module: DetectionModule, batch: Batch) -> Batch:
        states.append({name: tensor.clone() for name, tensor in module.model.state_dict().items()})
        return broken_image(module, batch)

    fit(tmp_path, note, max_steps=3)
    [before] = states
    # the file has the weights that the optimizer trains, not the EMA
    saved = torch.load(tmp_path / "nan_guard" / "step_3.pt", weights_only=True)
    for name, tensor in saved["weights"].items():
        assert torch.equal(tensor, before[name]) or name.endswith("num_batches_tracked"), name


def test_weights_with_nan_or_inf_stop_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UserError, match="after 2 steps with NaN or Inf in loss or gradient"):
        fit(tmp_path, broken_weight)
    assert "the weights decoder.enc_output.proj.weight have NaN or Inf" in caplog.text


def test_nan_in_the_gradient_alone_stops_at_once_if_no_step_may_be_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(UserError, match="after 1 step with"):
        fit(tmp_path, broken_gradient, max_skipped_steps=0)
    assert "is skipped, as" in caplog.text
