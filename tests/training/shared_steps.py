"""A few optimizer steps of a configuration on several ranks (DDP, gloo): run as a program by the tests beside it.

Everything is computed in float64, as Adam's first steps turn a gradient of rounding noise into a full step.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.strategies import DDPStrategy
from omegaconf import OmegaConf
from torch import Tensor, nn

from rtdetrv2_train.commands.building import build_recipe
from rtdetrv2_train.evaluation.coco import CocoEvaluator
from rtdetrv2_train.model.detector import RTDETRv2
from rtdetrv2_train.runs.model_configuration import configured_architecture, paper_loss
from rtdetrv2_train.training.callbacks.ema import EMA
from rtdetrv2_train.training.module import DetectionModule
from rtdetrv2_train.training.sync_batchnorm import CPUSyncBatchNorm
from rtdetrv2_train.types import Batch
from tests.support import composed


class Float64Module(DetectionModule):
    """Computes in ``dtype_of_run``. ``frozen_statistics`` freezes the running statistics of BatchNorm."""

    dtype_of_run = torch.float64
    frozen_statistics = False

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        targets = replace(batch.targets, boxes=batch.targets.boxes.to(self.dtype_of_run))
        return Batch(batch.images.to(self.dtype_of_run) / 255, targets)

    def train(self, mode: bool = True) -> Float64Module:
        super().train(mode)
        if self.frozen_statistics:
            for norm in self.modules():
                if isinstance(norm, nn.BatchNorm2d):
                    norm.eval()
        return self


class Recorder(Callback):
    """Saves the loss of every step, the first gradient, the weights and their EMA in ``folder``."""

    def __init__(self, folder: Path, average: EMA) -> None:
        self.folder = folder
        self.average = average
        self.losses: list[float] = []
        self.counts: list[tuple[int, ...]] = []
        self.gradient: dict[str, Tensor] = {}
        self._of_step: list[Tensor] = []

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Batch, *_: Any) -> None:
        self.counts.append(batch.targets.counts)
        self._of_step.append(trainer.strategy.reduce(outputs["loss"].detach().clone(), reduce_op="mean"))
        if len(self._of_step) == trainer.accumulate_grad_batches:
            self.losses.append(
                torch.stack(self._of_step).sum().item()
            )  # Lightning has divided each by gradient accumulation
            self._of_step = []

    def on_before_optimizer_step(self, trainer: Trainer, module: Any, optimizer: Any) -> None:
        if not self.gradient:
            self.gradient = {name: p.grad.clone() for name, p in module.model.named_parameters()}

    def on_train_end(self, trainer: Trainer, module: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"counts{trainer.global_rank}.json").write_text(json.dumps(self.counts))
        if not trainer.is_global_zero:
            return
        assert self.average._average_model is not None
        averaged = self.average._average_model.module.model.state_dict()
        tensors = {"gradient": self.gradient, "weights": module.model.state_dict(), "averaged": averaged}
        torch.save(tensors, self.folder / "tensors.pt")
        (self.folder / "losses.json").write_text(json.dumps(self.losses))


def run(
    folder: str,
    processes: int,
    accumulated: int,
    frozen: bool,
    steps: int,
    overrides: list[str],
    dtype: str = "float64",
) -> None:
    """Train for a few steps."""
    seed_everything(0, verbose=False)
    config = composed(*overrides)
    average = EMA()
    trainer = Trainer(
        accelerator="cpu",
        devices=processes,
        strategy=DDPStrategy(process_group_backend="gloo", start_method="fork") if processes > 1 else "auto",
        accumulate_grad_batches=accumulated,
        max_epochs=100,
        max_steps=steps,
        callbacks=[average, Recorder(Path(folder), average)],
        logger=False,
        enable_checkpointing=False,
        plugins=[CPUSyncBatchNorm()] if processes > 1 else [],
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        check_val_every_n_epoch=100,
    )
    data = instantiate(config.data, batch_size=config.recipe.total_batch_size // (processes * accumulated))
    data.load()
    module = Float64Module(
        RTDETRv2(configured_architecture(config.model, data.num_classes)).to(getattr(torch, dtype)),
        instantiate(paper_loss(config.model.criterion)),
        build_recipe(config.recipe),
        OmegaConf.to_container(config.model.parameter_rules, resolve=True),
        CocoEvaluator(data.val_annotations.ground_truth(), data.category_ids),
    )
    module.dtype_of_run = getattr(torch, dtype)
    module.frozen_statistics = frozen
    module.train()
    trainer.fit(module, datamodule=data)


if __name__ == "__main__":
    # several processes first: they are forked, and threads that evaluation starts in this one would not survive that
    for settings in sorted(json.loads(sys.argv[1]), key=lambda settings: settings["processes"] == 1):
        run(**settings)
