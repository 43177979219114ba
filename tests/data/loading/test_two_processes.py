"""The training stream of two real processes, beside that of one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT

pytestmark = pytest.mark.slow

_PROGRAM = """
import hashlib, sys
from pathlib import Path
import torch
from lightning.pytorch import LightningModule, Trainer
from rtdetrv2_train.data.loading.datamodule import CocoDataModule
from rtdetrv2_train.data.augment.mosaic import Mosaic
from rtdetrv2_train.data.augment.photometric import PhotometricDistortion
from rtdetrv2_train.data.augment.geometric import HorizontalFlip, IoUCrop, ZoomOut

root, processes, workers = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])

class Stream(LightningModule):
    '''Learns nothing, and writes down what it is shown.'''

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch, step):
        boxes = batch.targets.boxes.split(batch.targets.counts)
        for number, image_id in enumerate(batch.targets.image_ids.tolist()):
            content = batch.images[number].numpy().tobytes() + boxes[number].numpy().tobytes()
            line = f"{self.current_epoch} {step} {image_id} {hashlib.sha256(content).hexdigest()}"
            with (root / f"seen_{processes}_{self.global_rank}").open("a") as file:
                file.write(line + "\\n")
        return self.weight * batch.images.float().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

paths = {"images": "set", "annotations": "set.json"}
mosaic = {"mosaic": Mosaic(p=0.3)}  # and no MixUp, for which it matters which images make up a batch
moves = {"photometric": PhotometricDistortion(), "zoom_out": ZoomOut(), "iou_crop": IoUCrop(), "flip": HorizontalFlip()}
data = CocoDataModule(
    root, paths, paths, image_size=[64, 64], transforms=mosaic | moves, schedule={"zoom_out": {"stop": 1}},
    reference_epochs=2, max_epochs=2, batch_size=4 // processes,
    eval_batch_size=2, multiscale=[320, 640, 960], num_workers=workers, seed=7,
)
Trainer(
    max_epochs=2, accelerator="cpu", devices=processes, strategy="ddp" if processes > 1 else "auto", logger=False,
    enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
    limit_val_batches=0,
).fit(Stream(), datamodule=data)
"""


def seen(root: Path, processes: int, workers: int) -> list[list[str]]:
    """What each of some processes of one run saw."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    launched = [
        subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(root), str(processes), str(workers)],
            cwd=ROOT,
            env={**environment, "WORLD_SIZE": str(processes), "LOCAL_RANK": str(rank), "NODE_RANK": "0"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    for process in launched:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors[-3000:]
    return [(root / f"seen_{processes}_{rank}").read_text().splitlines() for rank in range(processes)]


def test_two_processes_with_workers_see_what_one_without_sees(make_set: Any, tmp_path: Path) -> None:
    make_set(13)
    (alone,) = seen(tmp_path, 1, workers=0)
    ranks = seen(tmp_path, 2, workers=1)
    assert len(alone) == len(set(alone)) == 2 * 12, "the thirteenth image does not fill a batch"
    assert [len(lines) for lines in ranks] == [12, 12]
    assert not set(ranks[0]) & set(ranks[1])
    assert sorted(ranks[0] + ranks[1]) == sorted(alone), "the same images in the same steps, bit by bit"
