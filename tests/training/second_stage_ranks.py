"""Three epochs on two ranks (DDP, gloo), of which the last is a second stage: run as a program by its test.

Each rank saves its weights before and after the best model was loaded. Those of rank 1 were changed before that, so
that it must have loaded them itself.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader, TensorDataset

from rtdetrv2_train.training.callbacks.checkpointing import Checkpointing
from rtdetrv2_train.training.callbacks.second_stage import SecondStage


class Line(LightningModule):
    """Fits a line; is best in its first epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return (self.layer(batch[0]) - 2 * batch[0]).square().mean()

    def on_train_epoch_end(self) -> None:
        self.log("val/AP", torch.tensor([0.5, 0.4, 0.3][self.trainer.current_epoch]), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=0.05)


class Before(Callback):
    """Moves the weights of rank 1 away before the second stage begins."""

    before: torch.Tensor

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Line)
        if trainer.current_epoch == 2 and trainer.global_rank == 1:
            pl_module.layer.weight.data.add_(1)
        self.before = pl_module.layer.weight.detach().clone()


class After(Callback):
    """Saves the weights with which the second stage begins."""

    def __init__(self, folder: Path, before: Before) -> None:
        self.folder = folder
        self.before = before

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 2:
            state = {name: tensor.clone() for name, tensor in pl_module.state_dict().items()}
            torch.save(state | {"before": self.before.before}, self.folder / f"begin{trainer.global_rank}.pt")


def main(folder: Path) -> None:
    """Train."""
    torch.manual_seed(0)
    checkpoint = Checkpointing(
        dirpath=folder / "checkpoints", filename="best", monitor="val/AP", mode="max", save_last=True,
        enable_version_counter=False,
    )  # fmt: skip
    before = Before()
    trainer = Trainer(
        accelerator="cpu", devices=2, max_epochs=3, logger=False, enable_progress_bar=False,
        strategy=DDPStrategy(process_group_backend="gloo", start_method="fork"),
        callbacks=[before, SecondStage(2, 3), After(folder, before), checkpoint], enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Line(), DataLoader(TensorDataset(torch.ones(8, 1)), batch_size=2))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
