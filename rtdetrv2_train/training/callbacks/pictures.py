"""Pictures of validation images with ground truth and predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from rtdetrv2_train.boxes import cxcywh_to_xyxy
from rtdetrv2_train.types import Batch
from rtdetrv2_train.viz.boxes import Marks, prediction_grid


class ValidationPictures(Callback):
    """Draws the first validation images with ground truth and predictions, into a file and TensorBoard.

    Args:
        path: PNG file of the latest picture.
        class_names: names of the classes.
        num_images: images in the picture.
        minimum_score: predictions below this are not drawn.
    """

    def __init__(
        self, path: Path | str, class_names: Sequence[str] = (), num_images: int = 8, minimum_score: float = 0.4
    ) -> None:
        self.path = Path(path)
        self.class_names = class_names
        self.num_images = num_images
        self.minimum_score = minimum_score
        self._images: list[np.ndarray] = []
        self._truth: list[Marks] = []
        self._found: list[Marks] = []

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drop the pictures of the previous epoch."""
        self._images, self._truth, self._found = [], [], []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the images that will be drawn."""
        missing = self.num_images - len(self._images)
        if not trainer.is_global_zero or missing <= 0:
            return
        height, width = batch.images.shape[2:]
        count = min(missing, len(batch))
        size = torch.tensor([[height, width]], device=pl_module.device).expand(count, -1)
        found = pl_module(batch.images[:count], size)
        scale = torch.tensor([width, height, width, height])
        for index in range(count):
            of_image = batch.targets.image_index == index
            boxes = cxcywh_to_xyxy(batch.targets.boxes[of_image]).cpu() * scale
            self._images.append(batch.images[index].permute(1, 2, 0).cpu().numpy())
            self._truth.append(_marks(boxes, batch.targets.labels[of_image]))
            sure = found.scores[index] >= self.minimum_score
            self._found.append(_marks(found.boxes[index][sure], found.labels[index][sure], found.scores[index][sure]))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw and save the picture."""
        if not self._images:
            return
        picture = prediction_grid(self._images, self._truth, self._found, self.class_names)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(self.path)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(
                    "val/predictions", np.asarray(picture), trainer.global_step, dataformats="HWC"
                )


def _marks(boxes: Tensor, labels: Tensor, scores: Tensor | None = None) -> Marks:
    return Marks(boxes.cpu().numpy(), labels.cpu().numpy(), None if scores is None else scores.cpu().numpy())
