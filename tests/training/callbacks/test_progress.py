from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rtdetrv2_train.data.loading.datamodule import CocoDataModule
from rtdetrv2_train.training.callbacks.progress import Progress
from tests.support import write_coco


class Sleeper(LightningModule):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seconds = seconds

    def training_step(self, batch: Any, batch_index: int) -> torch.Tensor:
        time.sleep(self.seconds)
        return self.weight * 1.0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize(("loading", "training"), [(0.02, 0.0), (0.0, 0.05)])
def test_waiting_for_data_is_shown_where_loading_is_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loading: float, training: float
) -> None:
    paths = {"images": "images", "annotations": "annotations.json"}
    data = CocoDataModule(
        write_coco(tmp_path / "set"),
        paths,
        paths,
        image_size=[64, 64],
        transforms={},
        schedule={},
        reference_epochs=1,
        max_epochs=1,
        batch_size=2,
        eval_batch_size=2,
        num_workers=0,
    )
    read = CocoDataModule.train_dataloader

    def slow_loader(self: CocoDataModule) -> Any:
        loader = read(self)
        make = loader.dataset._training_sample
        loader.dataset._training_sample = lambda *which: (time.sleep(loading), make(*which))[1]
        return loader

    monkeypatch.setattr(CocoDataModule, "train_dataloader", slow_loader)
    progress = Progress()
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", callbacks=[progress], enable_checkpointing=False, enable_model_summary=False,
        logger=TensorBoardLogger(tmp_path, name="", version="log"), log_every_n_steps=2, use_distributed_sampler=False,
        limit_val_batches=0,
    )  # fmt: skip
    module = Sleeper(training)
    trainer.fit(module, datamodule=data)
    shown = int(progress.get_metrics(trainer, module)["data wait"].removesuffix("%"))
    events = EventAccumulator(str(tmp_path / "log"))
    events.Reload()
    share = events.Scalars("train/data_wait_share")[-1].value
    seconds = events.Scalars("train/data_wait_seconds")[-1].value
    assert shown == round(share * 100)
    if loading:
        assert share > 0.6
        assert seconds > 2 * loading
    else:
        assert share < 0.5
