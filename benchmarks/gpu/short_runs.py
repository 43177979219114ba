"""Short runs by Lightning, with what `rtdetrv2 train` has around a step, on a few images of shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor

from rtdetrv2_train import build_criterion, build_model
from rtdetrv2_train.commands.building import ordered, quiet_libraries
from rtdetrv2_train.data.shapes import ShapesDataModule
from rtdetrv2_train.evaluation.coco import CocoEvaluator
from rtdetrv2_train.runs.configuration import plain
from rtdetrv2_train.runs.model_configuration import model_config
from rtdetrv2_train.training.atomic_checkpoint_io import AtomicCheckpointIO
from rtdetrv2_train.training.callbacks.checkpointing import Checkpointing
from rtdetrv2_train.training.callbacks.ema import EMA
from rtdetrv2_train.training.callbacks.nan_guard import NanGuard
from rtdetrv2_train.training.callbacks.resume import ResumeAdjustments
from rtdetrv2_train.training.module import DetectionModule
from rtdetrv2_train.training.recipe import Recipe
from rtdetrv2_train.types import Batch

STEPS_PER_EPOCH = 8
_BATCH = 4


class Interrupted(Exception):  # noqa: N818 (an observer asks for it)
    """Raised by an observer to end a run as a crash does."""


class StepObserver:
    """Sees the steps of a run."""

    def before_step(self, step: int) -> None:
        """Called before each step, counted from 0, when the batch is on the device."""

    def changed(self, step: int, batch: Batch) -> Batch:
        """The batch to train on in place of another."""
        return batch


class _Module(DetectionModule):
    observer: StepObserver

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        return self.observer.changed(self.trainer.global_step, batch) if self.trainer.training else batch


class _Calls(Callback):
    def __init__(self, observer: StepObserver) -> None:
        self.observer = observer
        self.losses: list[Tensor] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.observer.before_step(trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, DetectionModule)
        self.losses.append(pl_module.step.loss)


class ShortRun:
    """A run of a few steps from scratch, as configured by default.

    Args:
        folder: of the run.
        device: name of the device.
        steps: length of the run in optimizer steps, a multiple of 8 for one that is resumed.
        precision: Lightning's name; None for the product's on this device.
        observer: sees the steps.
        optimizer: ``adamw``, ``muon``, or ``auto`` for that of short runs.
        model: name of the model.
        size: side of its images in pixels.
        checkpoint_every: steps between two checkpoints; None: only at the end.

    Attributes:
        trainer: Lightning's.
        module: that is trained.
        data: its images.
    """

    def __init__(
        self,
        folder: Path,
        device: str,
        steps: int,
        precision: str | None = None,
        observer: StepObserver | None = None,
        optimizer: str = "auto",
        model: str = "nano",
        size: int = 64,
        checkpoint_every: int | None = None,
    ) -> None:
        quiet_libraries()
        seed_everything(0, verbose=False)
        epochs = -(-steps // STEPS_PER_EPOCH)
        self.folder = folder
        self.data = _shapes(folder.parent / f"shapes-{size}", size, epochs)
        self.data.load()
        observer = observer or StepObserver()
        self._calls = _Calls(observer)
        self.module = _Module(
            model=build_model(model, num_classes=self.data.num_classes),
            criterion=build_criterion(model),
            recipe=Recipe(optimizer=optimizer),
            parameter_rules=plain(model_config(model).parameter_rules),
            evaluator=CocoEvaluator(self.data.val_annotations.ground_truth(), self.data.category_ids),
        )
        self.module.observer = observer
        checkpointing = Checkpointing(
            dirpath=folder / "checkpoints", filename="best", save_last=True, enable_version_counter=False,
            last_every_minutes=None, last_every_steps=checkpoint_every,
        )  # fmt: skip
        self.trainer = Trainer(
            accelerator=device, devices=1, precision=precision or _default_precision(device),  # type: ignore[arg-type]
            max_epochs=epochs, max_steps=steps if steps % STEPS_PER_EPOCH else -1, limit_val_batches=0,
            check_val_every_n_epoch=epochs, log_every_n_steps=1000, num_sanity_val_steps=0,
            callbacks=ordered([NanGuard(folder / "nan_guard"), EMA(), ResumeAdjustments(), checkpointing, self._calls]),
            plugins=[AtomicCheckpointIO()], logger=False, enable_progress_bar=False, enable_model_summary=False,
            use_distributed_sampler=False, default_root_dir=folder,
        )  # fmt: skip

    def fit(self, resume: bool = False) -> list[float]:
        """Train, or go on from the last checkpoint; gives the loss of each step."""
        self.trainer.fit(
            self.module, datamodule=self.data, ckpt_path=self.last_checkpoint if resume else None, weights_only=True
        )
        return torch.stack(self._calls.losses).tolist()

    @property
    def last_checkpoint(self) -> Path:
        """The newest checkpoint."""
        return self.folder / "checkpoints" / "last.ckpt"


def _default_precision(device: str) -> str:
    return "bf16-mixed" if torch.device(device).type == "cuda" else "32-true"


def _shapes(root: Path, size: int, epochs: int) -> ShapesDataModule:
    return ShapesDataModule(
        num_train=STEPS_PER_EPOCH * _BATCH, num_val=_BATCH, drawn_size=min(size, 128), root=root,
        image_size=[size, size], transforms={}, schedule={}, reference_epochs=epochs, max_epochs=epochs,
        batch_size=_BATCH, eval_batch_size=_BATCH, num_workers=0,
    )  # fmt: skip
